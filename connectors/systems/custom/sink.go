package custom

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"

	"github.com/metip/metip/connectors/sdk"
	systemhttp "github.com/metip/metip/connectors/systems/http"
)

// sink posts each message to the container.
type sink struct {
	sdk.Sink
	container *container
}

// NewSink makes a sink of the JSON of the API's CustomSink.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	o, err := decode(raw)
	if err != nil {
		return nil, err
	}
	r, err := httpRequest(o.Request)
	if err != nil {
		return nil, err
	}
	c := newContainer(rt, o.Container)
	inner, err := systemhttp.NewExplainedSink(c.runtime(""), c.url(pathMessages), r, c.explain)
	if err != nil {
		return nil, err
	}
	return &sink{inner, c}, nil
}

// Check implements sdk.Sink.
func (s *sink) Check(ctx context.Context) error { return s.container.check(ctx) }

// Close implements sdk.Sink.
func (s *sink) Close() error {
	s.container.client.CloseIdleConnections()
	return s.Sink.Close()
}

// Operation implements sdk.Sink.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	r, err := httpRequest(raw)
	if err != nil {
		return nil, err
	}
	inner, err := s.Sink.Operation(r)
	if err != nil {
		return nil, err
	}
	return &operation{inner, s}, nil
}

// operation of package http. Without credentials nothing is sent, and why nothing can be sent the container says best.
type operation struct {
	sdk.Operation
	sink *sink
}

// Write implements sdk.Operation.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	if err := o.sink.container.secrets(); err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	for i, err := range o.Operation.Write(ctx, batch) {
		if results[i] = err; errors.Is(err, syscall.ECONNREFUSED) {
			results[i] = o.sink.container.silent(ctx, err)
		}
	}
	return results
}

// Opaque implements sdk.Opaque.
func (o *operation) Opaque() bool {
	opaque, ok := o.Operation.(sdk.Opaque)
	return ok && opaque.Opaque()
}

// Streams implements sdk.Streaming.
func (o *operation) Streams() bool {
	streaming, ok := o.Operation.(sdk.Streaming)
	return ok && streaming.Streams()
}

// service passes calls on to the container.
type service struct {
	sdk.Service
	container *container
}

// NewService makes a service of the JSON of the API's CustomService.
func NewService(rt sdk.Runtime, raw json.RawMessage) (sdk.Service, error) {
	o, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if o.Request != nil {
		return nil, errors.New("a service has no request")
	}
	c := newContainer(rt, o.Container)
	to, err := json.Marshal(map[string]string{"url": c.url(pathCalls).String()})
	if err != nil {
		return nil, err
	}
	inner, err := systemhttp.NewService(c.runtime(""), to)
	if err != nil {
		return nil, err
	}
	return &service{inner, c}, nil
}

// Check implements sdk.Service.
func (s *service) Check(ctx context.Context) error { return s.container.check(ctx) }

// Close implements sdk.Service.
func (s *service) Close() error {
	s.container.client.CloseIdleConnections()
	return s.Service.Close()
}
