package contract

// Service configures a service connector: a function that a system offers, called over the bus by request and reply. No stream is involved.
type Service struct {
	System System `json:"system"`
	// MaxConcurrent calls of one pod; a further one is refused at once (StatusBusy).
	MaxConcurrent int32 `json:"maxConcurrent"`
	// Timeout of a call whose caller sets none, and the longest that any call may take.
	Timeout Duration `json:"timeout"`
	// Suspended: every call is refused.
	Suspended bool `json:"suspended,omitempty"`
	// Cache of answers; nil means none.
	Cache *Cache `json:"cache,omitempty"`
}

// Cache of answers.
type Cache struct {
	TTL Duration `json:"ttl"`
	// MaxBytes of all cached answers of one pod.
	MaxBytes int64 `json:"maxBytes"`
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
	// Request steps run on the request before it is sent, Response steps on the answer.
	Request  []Step `json:"request,omitempty"`
	Response []Step `json:"response,omitempty"`
}

// ServiceSubject is where a service takes requests, in account EDGE, by a queue group of the same name. Requests are CloudEvents in NATS
// binary mode, as messages are, with the Call headers.
func ServiceSubject(namespace, integration, connector string) string {
	return "svc." + namespace + "." + integration + "." + connector
}

// CancelSubject is where a caller that gives up says so, to all replicas; the body is the request's reply subject.
func CancelSubject(namespace, integration, connector string) string {
	return ServiceSubject(namespace, integration, connector) + ".cancel"
}

// Headers of a request and of its answer.
const (
	// HeaderCallTimeout is how many milliseconds are left to answer: a duration, for clocks differ.
	HeaderCallTimeout = "metip-timeout-ms"
	// HeaderCallMethod, HeaderCallPath and HeaderCallQuery are those of an HTTP request, escaped as they came.
	HeaderCallMethod = "metip-method"
	HeaderCallPath   = "metip-path"
	HeaderCallQuery  = "metip-query"
	// HeaderCallHTTP begins each header of an HTTP request or answer that is carried on.
	HeaderCallHTTP = "http-"
	// HeaderCallStatus of an answer, in HTTP's numbers. An answer that a hop made instead of the system has HeaderCallHop, and is a
	// problem+json document (RFC 9457).
	HeaderCallStatus = "metip-status"
	// HeaderCallHop names the Connector whose pod answered instead of the system, as namespace/name.
	HeaderCallHop = "metip-hop"
)
