package stub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// service answers from examples.
type service struct {
	examples []compiled
	faults   []fault
	// percent is drawn for each call: 0 to 99.
	percent func() int
}

// NewService makes a service of the JSON of the API's StubService.
func NewService(_ sdk.Runtime, raw json.RawMessage) (sdk.Service, error) {
	o, examples, err := decode(raw)
	if err != nil {
		return nil, err
	}
	return &service{examples: examples, faults: o.Faults, percent: func() int { return rand.IntN(100) }}, nil
}

// Check finds nothing that could fail.
func (s *service) Check(context.Context) error { return nil }

// Close has nothing to release.
func (s *service) Close() error { return nil }

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	e, m, err := s.pick(r)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, e.latency); err != nil {
		return nil, err
	}
	if f := s.fault(); f != nil {
		if f.Drop {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return faulty(f.Status), nil
	}
	return e.answer(ctx, m)
}

// pick the first example that fits, and give the request as steps see it.
func (s *service) pick(r *sdk.Request) (*compiled, *sdk.Message, error) {
	shown := *r
	shown.Headers = maps.Clone(r.Headers)
	shown.Expose()
	for i := range s.examples {
		e := &s.examples[i]
		if e.when == nil {
			return e, &shown.Message, nil
		}
		// An example that asks for what a call does not have does not fit it.
		if fits, err := e.when.Match(&shown.Message); err == nil && fits {
			return e, &shown.Message, nil
		}
	}
	return nil, nil, sdk.CallErrorf(http.StatusNotFound, "none of the %d examples of this stub fits %s %s", len(s.examples), r.Method, r.Path)
}

func (s *service) fault() *fault {
	if len(s.faults) == 0 {
		return nil
	}
	drawn := s.percent()
	for i := range s.faults {
		if drawn -= s.faults[i].Percent; drawn < 0 {
			return &s.faults[i]
		}
	}
	return nil
}

func pause(ctx context.Context, l latencyRange) error {
	d := l.min
	if l.max > l.min {
		d += rand.N(l.max - l.min + 1)
	}
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// faulty is the answer of a fault. It looks like a system's.
func faulty(status int) *sdk.Answer {
	a := &sdk.Answer{Status: status, CacheFor: -1}
	a.ContentType, a.Format = "application/problem+json", sdk.FormatJSON
	a.Data = fmt.Appendf(nil, `{"type":"about:blank","title":%q,"status":%d,"detail":"a fault that the stub was told to put in"}`, http.StatusText(status), status)
	return a
}

// answer of an example. It depends on more of a request than a cache looks at.
func (e *compiled) answer(ctx context.Context, m *sdk.Message) (*sdk.Answer, error) {
	a := &sdk.Answer{Status: e.status, CacheFor: -1}
	a.ContentType, a.Format, a.Data = e.contentType, sdk.FormatOf(e.contentType), e.body
	if e.jq != nil {
		body, some, err := e.jq.Apply(ctx, m)
		if err != nil {
			return nil, sdk.CallErrorf(http.StatusInternalServerError, "%s: jq: %w", e.name, err)
		}
		if !some {
			return nil, sdk.CallErrorf(http.StatusInternalServerError, "%s: jq has no result", e.name)
		}
		if len(body) > contract.MaxMessageSize {
			return nil, &sdk.CallError{Status: http.StatusBadGateway, Err: errors.New(e.name + ": the answer is too large")}
		}
		a.Data = body
	}
	for name, t := range e.headers {
		value, err := t.Expand(m, nil)
		if err != nil {
			return nil, sdk.CallErrorf(http.StatusInternalServerError, "%s: header %s: %w", e.name, name, err)
		}
		if a.Header == nil {
			a.Header = make(map[string][]string, len(e.headers))
		}
		a.Header[name] = []string{value}
	}
	return a, nil
}
