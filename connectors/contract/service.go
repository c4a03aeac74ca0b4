package contract

import "time"

// Service configures a service connector: a function that a system offers, called over the bus by request and reply. No stream is involved.
type Service struct {
	System System `json:"system"`
	// MaxConcurrent calls of one pod, at least 1; a further one is refused at once (RefusedBusy), and the caller tries another pod.
	MaxConcurrent int32 `json:"maxConcurrent"`
	// Timeout of a call whose caller sets none, and the longest that any call may take.
	Timeout Duration `json:"timeout"`
	// Suspended: every call is refused (RefusedSuspended).
	Suspended bool `json:"suspended,omitempty"`
	// Cache of answers; nil means none.
	Cache *Cache `json:"cache,omitempty"`
	// OpenAPI is a document of OpenAPI 3.0 or 3.1, as JSON (package openapi). Calls and answers that do not follow it are refused. Empty
	// means that nothing is asked of them.
	OpenAPI string `json:"openAPI,omitempty"`
}

// Cache of answers in each pod: those with a status of 2xx, by method, path, query, body, and the headers content-type, accept and
// accept-language. What the system says in Cache-Control, Vary and Set-Cookie makes it keep less, never more.
type Cache struct {
	TTL Duration `json:"ttl"`
	// MaxBytes of all cached answers of one pod; those that were not asked for longest go first.
	MaxBytes int64 `json:"maxBytes"`
	// Methods whose answers are kept, in capitals; empty means GET and HEAD. A POST that only asks may be named here.
	Methods []string `json:"methods,omitempty"`
}

// Call is a Route that ends in a service, compiled: what the caller's pod runs.
type Call struct {
	Route      string `json:"route"`
	UID        string `json:"uid"`
	Generation int64  `json:"generation"`
	// Service that is called, in the caller's namespace.
	Integration string `json:"integration"`
	Service     string `json:"service"`
	// Timeout of the whole exchange.
	Timeout Duration `json:"timeout"`
	// Request steps run on the request before it is sent, Response steps on the answer. Filters that stand first in Request choose: a
	// request that one of them does not let pass goes to the next Call. What any later step lets go is refused (422).
	Request  []Step `json:"request,omitempty"`
	Response []Step `json:"response,omitempty"`
	// Suspended: the Route refuses what its filters let pass (503).
	Suspended bool `json:"suspended,omitempty"`
}

// CallDestination is the Destination of a RouteState that speaks of a Call.
const CallDestination = "call"

// ServiceRef names a service that a connector calls, in its own namespace.
type ServiceRef struct{ Integration, Service string }

// ServiceSubject is where a service takes requests, in account EDGE, by a queue group of the same name. Requests are CloudEvents in NATS
// binary mode, as messages are, with the Call headers; none of them is required (docs/services.md).
func ServiceSubject(namespace, integration, connector string) string {
	return "svc." + namespace + "." + integration + "." + connector
}

// CancelSubject is where a caller that gives up says so, to all replicas; the body is the request's reply subject.
func CancelSubject(namespace, integration, connector string) string {
	return ServiceSubject(namespace, integration, connector) + ".cancel"
}

// CallSubjects are what a user has to publish to in order to call a service.
func CallSubjects(namespace string, s ServiceRef) []string {
	return []string{ServiceSubject(namespace, s.Integration, s.Service), CancelSubject(namespace, s.Integration, s.Service)}
}

// ReplyPrefix begins every subject that a service answers to: reply subjects are not permission-checked, and a caller could otherwise
// have the answer published as somebody's message.
const ReplyPrefix = "_INBOX."

// Headers of a request and of its answer.
const (
	// HeaderCallTimeout is how many milliseconds are left to answer: a duration, for clocks differ. Left out, the service's own counts.
	HeaderCallTimeout = "metip-timeout-ms"
	// HeaderCallMethod, HeaderCallPath and HeaderCallQuery are those of an HTTP request, escaped as they came. Left out, the method is POST
	// with a body and GET without; path and query are empty.
	HeaderCallMethod = "metip-method"
	HeaderCallPath   = "metip-path"
	HeaderCallQuery  = "metip-query"
	// HeaderCallHTTP begins each header of an HTTP request or answer that is carried on; its name follows in lower case. Content-Type
	// is HeaderContentType.
	HeaderCallHTTP = "http-"
	// HeaderCallStatus of an answer, in HTTP's numbers. An answer that a hop made instead of the system has HeaderCallHop, and is a
	// problem+json document (RFC 9457).
	HeaderCallStatus = "metip-status"
	// HeaderCallHop names the Connector whose pod answered instead of the system, as namespace/name.
	HeaderCallHop = "metip-hop"
	// HeaderCallRefused says that the call was not begun, and why: it may be sent again, whatever it does.
	HeaderCallRefused = "metip-refused"
)

// Why a call was not begun (HeaderCallRefused).
const (
	// RefusedBusy: the pod has as many calls under way as it may, or as much data.
	RefusedBusy = "busy"
	// RefusedUnavailable: the system cannot be reached.
	RefusedUnavailable = "unavailable"
	// RefusedSuspended: the service is suspended.
	RefusedSuspended = "suspended"
)

// ServiceReplyGrace is how much longer than its timeout a service may answer.
const ServiceReplyGrace = 5 * time.Second
