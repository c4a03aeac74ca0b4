package http

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// headerTimeoutMS of a request says how long its caller waits: the bus waits no longer. Services send it on.
	headerTimeoutMS = "Metip-Timeout-Ms"
	// headerHop of an answer names the Connector that made it instead of the system.
	headerHop = "Metip-Hop"
	// headerRefused of an answer says that the call was not begun, and why.
	headerRefused = "Metip-Refused"
	contentLength = "content-length"
)

// exchange is the RequestReply side of a source: requests become calls of services.
type exchange struct {
	caller sdk.Caller
	// prefix of the paths that are taken, without a slash at its end.
	prefix    string
	hop       string
	signature string
}

func newExchange(rt sdk.Runtime, path string) *exchange {
	e := &exchange{caller: rt.Caller, prefix: strings.TrimSuffix(path, "/"), hop: rt.Config.Connector.Namespace + "/" + rt.Config.Connector.Name}
	if rt.Config.Auth.Kind == contract.AuthHMAC {
		e.signature = http.CanonicalHeaderKey(rt.Config.Auth.Header)
		if e.signature == "" {
			e.signature = defaultSignatureHeader
		}
	}
	return e
}

// writeTimeout of the server: from the end of a request's header to the end of the answer.
func (e *exchange) writeTimeout() time.Duration {
	if e == nil || e.caller == nil {
		return writeTimeout
	}
	return max(writeTimeout, readTimeout+e.caller.MaxTimeout()+5*time.Second)
}

// call passes a request on, and the answer back.
func (h *handler) call(w http.ResponseWriter, r *http.Request) {
	request, release, p := h.request(w, r)
	if p != nil {
		p.hop = h.exchange.hop
		p.write(w)
		return
	}
	defer release()
	ctx := r.Context()
	if limit := callerLimit(r.Header); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	answer := h.exchange.caller.Call(ctx, request)
	defer answer.Close()
	writeAnswer(w, r.Method, answer)
}

// callerLimit is how long the caller says that it waits; 0 when it does not say.
func callerLimit(header http.Header) time.Duration {
	ms, err := strconv.ParseInt(header.Get(headerTimeoutMS), 10, 32)
	if err != nil || ms <= 0 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// request for the bus, of one that is let in.
func (h *handler) request(w http.ResponseWriter, r *http.Request) (*sdk.Request, func(), *problem) {
	path := r.URL.EscapedPath()
	below, ok := strings.CutPrefix(path, h.exchange.prefix)
	if !ok || below != "" && below[0] != '/' {
		return nil, nil, problemf(http.StatusNotFound, "send to paths below %s", h.path)
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return nil, nil, problemf(http.StatusMethodNotAllowed, "the method %s is not carried on", r.Method)
	}
	credentials, p := h.admit(r)
	if p != nil {
		return nil, nil, p
	}
	if h.exchange.caller == nil {
		return nil, nil, problemf(http.StatusNotFound, "no Route takes the requests of this connector")
	}
	body, _, release, p := h.readBody(w, r)
	if p != nil {
		return nil, nil, p
	}
	if p = h.auth.checkBody(credentials, r.Header, body); p == nil {
		var request *sdk.Request
		if request, p = h.newRequest(r, below, body); p == nil {
			return request, release, nil
		}
	}
	release()
	return nil, nil, p
}

func (h *handler) newRequest(r *http.Request, path string, body []byte) (*sdk.Request, *problem) {
	request := &sdk.Request{
		Message: sdk.Message{ID: uuid.NewString(), ContentType: r.Header.Get("Content-Type"), Data: body},
		Method:  r.Method, Path: path, Query: r.URL.RawQuery, Header: requestHeaders(r.Header, h.exchange.signature),
	}
	if len(body) > 0 {
		if p := h.checkData(&request.Message, false, 0); p != nil {
			return nil, p
		}
	}
	setRequestTrace(&request.Message, r.Header)
	if err := request.Check(); err != nil {
		return nil, badRequest(err)
	}
	return request, nil
}

// writeAnswer to the caller. One that is gone is owed nothing any more.
func writeAnswer(w http.ResponseWriter, method string, a *sdk.Answer) {
	header := w.Header()
	setHeaders(header, a.Header)
	if a.ContentType != "" {
		header["Content-Type"] = []string{a.ContentType}
	} else {
		header["Content-Type"] = nil // it is not to be guessed
	}
	if a.Hop != "" {
		header[headerHop] = []string{a.Hop}
	}
	if method == http.MethodHead {
		if length := a.Header[contentLength]; length != nil {
			header["Content-Length"] = length
		}
	} else if bodyAllowed(a.Status) {
		header["Content-Length"] = []string{strconv.Itoa(len(a.Data))}
	}
	w.WriteHeader(a.Status)
	if method != http.MethodHead && bodyAllowed(a.Status) {
		_, _ = w.Write(a.Data)
	}
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}
