package http

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/metip/metip/connectors/sdk"
)

// Explain what an answer that is not 2xx says: a reason where the system as a whole does not work (empty for the one that the status
// stands for), and what people read.
type Explain func(status int, answer string) (reason string, err error)

// NewExtendedSource is NewSource with other paths on the same listener, which nobody has to log in for.
func NewExtendedSource(rt sdk.Runtime, options json.RawMessage, others map[string]http.Handler) (sdk.Source, error) {
	inner, err := NewSource(rt, options)
	if err != nil {
		return nil, err
	}
	inner.(*source).others = others
	return inner, nil
}

// NewExplainedSink is NewSink of a url, whose answers say more than HTTP's do.
func NewExplainedSink(rt sdk.Runtime, to *url.URL, request json.RawMessage, explain Explain) (sdk.Sink, error) {
	s, err := newSink(rt, to, request)
	if err != nil {
		return nil, err
	}
	s.explain = explain
	return s, nil
}
