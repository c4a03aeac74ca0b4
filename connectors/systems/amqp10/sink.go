package amqp10

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

// sink sends over one connection.
type sink struct {
	*publisher
	raw json.RawMessage
	// address that is checked; empty where each message has its own.
	address string
}

// NewSink makes a sink of the JSON of the API's AMQP10Sink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	d, err := newDialer(rt, &o.Connection)
	if err != nil {
		return nil, err
	}
	s := &sink{publisher: newPublisher(d, &o.Connection), raw: o.Send}
	if send, err := decodeSend(o.Send); err == nil && fixed(send.Address) {
		s.address = send.Address
	}
	return s, nil
}

// Operation compiles what is sent; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	o, err := decodeSend(raw)
	if err != nil {
		return nil, err
	}
	return newOperation(s.publisher, o)
}

// Check asks the server for a sign of life and, where the Connector has one address, whether messages can be sent there.
func (s *sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	l, err := s.holder.Get(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.holder.Silent()
		}
		return err
	}
	defer s.holder.Release(l)
	if s.address == "" {
		return l.ping(ctx)
	}
	w, err := attach(ctx, l, s.address)
	if err == nil {
		w.drop(ctx)
	}
	if ctx.Err() != nil {
		return unavailable(l.endpoint, errors.New("no answer in time"))
	}
	return err
}

// Close the connection.
func (s *sink) Close() error {
	s.close()
	return nil
}

// MaxBatch is what waits for its outcome together.
func (o *operation) MaxBatch() int { return maxSend }

// Opaque: only expressions look into bodies.
func (o *operation) Opaque() bool { return o.opaque }

// Write sends the messages, those of an address in their order, and waits for the server's outcomes.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	publications := make([]publication, 0, len(batch))
	at := make([]int, 0, len(batch))
	for i, d := range batch {
		p, err := o.publication(d)
		if err != nil {
			results[i] = sdk.Permanent(fmt.Errorf("address %s: %w", o.name, err))
			continue
		}
		publications, at = append(publications, p), append(at, i)
	}
	for k, err := range o.publisher.publish(ctx, publications) {
		if o.template != nil {
			err = own(err)
		}
		results[at[k]] = err
	}
	return results
}
