package contract

// Tracing says where spans go; a pod without it makes none, and passes on the trace context that a message came with.
type Tracing struct {
	// Endpoint of the collector: an OTLP/HTTP base URL, http://collector.observability:4318.
	Endpoint string `json:"endpoint"`
	// Ratio of traces that begin here and are sampled, from 0 to 1. What comes with a trace context is sampled as that says.
	Ratio float64 `json:"ratio"`
}
