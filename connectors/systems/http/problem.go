package http

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// problem is an answer other than 202, as RFC 9457 has it: detail says what to do about it.
type problem struct {
	status     int
	detail     string
	retryAfter int
	header     [2]string
	// hop is this Connector, where answers may also be another's.
	hop string
}

func problemf(status int, format string, a ...any) *problem {
	return &problem{status: status, detail: fmt.Sprintf(format, a...)}
}

func unauthorized(challenge, detail string) *problem {
	return &problem{status: http.StatusUnauthorized, detail: detail, header: [2]string{"WWW-Authenticate", challenge}}
}

func unavailable(retryAfter int, detail string) *problem {
	return &problem{status: http.StatusServiceUnavailable, detail: detail, retryAfter: retryAfter}
}

type problemBody struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hop    string `json:"hop,omitempty"`
}

func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	p.announce(w)
	if p.hop != "" {
		h.Set(headerHop, p.hop)
	}
	body, err := json.Marshal(problemBody{Type: "about:blank", Title: http.StatusText(p.status), Status: p.status, Detail: p.detail, Hop: p.hop})
	if err != nil {
		body = nil
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // the caller may be gone: nothing is owed to it any more
}
