package http

import (
	"net/http"
	"strings"
)

// connectionHeaders, by lower-case name, concern one connection only (RFC 9110, 7.6.1), or are made anew for each: they are not carried
// from one side of a call to the other.
var connectionHeaders = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true, "proxy-authorization": true, "proxy-authentication-info": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "http2-settings": true, "content-length": true, "alt-svc": true, "expect": true,
}

// callerHeaders of a request are not carried on: what the caller proves itself with is the listener's business, what a proxy says of the
// caller nobody can check, and an answer is to come as it is, so that steps can read it.
var callerHeaders = map[string]bool{
	"host": true, "authorization": true, "cookie": true, "accept-encoding": true, "forwarded": true, "x-forwarded-for": true, "x-forwarded-host": true,
	"x-forwarded-proto": true, "x-forwarded-port": true, "x-forwarded-prefix": true, "x-forwarded-server": true, "x-real-ip": true,
	// These travel as attributes of the request.
	"content-type": true, "traceparent": true, "tracestate": true, "metip-timeout-ms": true,
}

// requestHeaders are those of a request that are carried on, by lower-case name. signature is the header of a caller's signature, which
// is a credential too.
func requestHeaders(from http.Header, signature string) map[string][]string {
	return carried(from, func(name, lower string) bool { return !callerHeaders[lower] && name != signature })
}

// answerHeaders are those of an answer that are carried on.
func answerHeaders(from http.Header) map[string][]string {
	return carried(from, func(_, lower string) bool { return lower != "content-type" })
}

func carried(from http.Header, wanted func(name, lower string) bool) map[string][]string {
	var named []string // by Connection
	for _, value := range from["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			named = append(named, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	out := make(map[string][]string, len(from))
next:
	for name, values := range from {
		lower := strings.ToLower(name)
		if connectionHeaders[lower] || !wanted(name, lower) {
			continue
		}
		for _, other := range named {
			if lower == other {
				continue next
			}
		}
		out[lower] = values
	}
	return out
}

// setHeaders of a call. Those that concern the connection are not taken from anybody.
func setHeaders(to http.Header, from map[string][]string) {
	for name, values := range from {
		if !connectionHeaders[name] {
			to[http.CanonicalHeaderKey(name)] = values
		}
	}
}

// headerName tells whether a name is one of letters, digits and '-'.
func headerName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}
