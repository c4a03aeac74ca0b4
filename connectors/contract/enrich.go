package contract

import "slices"

// Enrich adds to the body of a message what a service of the Route's Integration answers, or what is in a table of it.
type Enrich struct {
	// Table that is looked into, and the CEL expression of the key; empty where a service is asked.
	Table string `json:"table,omitempty"`
	Key   string `json:"key,omitempty"`
	// Service is the Connector that is called.
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
	// Path, and the values of Query and Headers, are templates; values in Path and Query are percent-encoded.
	Path    string            `json:"path,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Body is a CEL expression; empty for a request without one.
	Body string `json:"body,omitempty"`
	// Into names the member that the answer becomes, with dots between the names of nested objects.
	Into string `json:"into"`
	// Default is a CEL expression for what is not known there; empty means that the message goes to the dead letters.
	Default string   `json:"default,omitempty"`
	Timeout Duration `json:"timeout"`
	// Cache of answers of 2xx in each pod, by the whole request, or of entries by their key; nil means none.
	Cache *EnrichCache `json:"cache,omitempty"`
}

// EnrichCache bounds what a pod keeps of a step's answers.
type EnrichCache struct {
	TTL     Duration `json:"ttl"`
	Entries int      `json:"entries"`
}

// MaxEnrichment is the largest answer that enrich takes, in bytes.
const MaxEnrichment = 1 << 20

// EnrichServices are the services that the steps of Routes ask, each once.
func EnrichServices(routes []Route) []ServiceRef {
	var out []ServiceRef
	for i := range routes {
		for _, s := range routes[i].Steps {
			if s.Enrich == nil || s.Enrich.Service == "" {
				continue
			}
			if ref := (ServiceRef{Integration: routes[i].Integration, Service: s.Enrich.Service}); !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	return out
}
