package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// sink publishes over one connection.
type sink struct {
	dialer *dialer
	raw    json.RawMessage
	turn   chan struct{} // one dials

	mu      sync.Mutex
	current *sender
	version uint64
	closed  bool
}

// NewSink makes a sink of the JSON of the API's MQTTSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	d, err := newDialer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	return &sink{dialer: d, raw: o.Publish, turn: make(chan struct{}, 1)}, nil
}

// Operation compiles what is published; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	o, err := decodePublish(raw, s.dialer.options.five())
	if err != nil {
		return nil, err
	}
	return newOperation(s, o)
}

// Check connects. Whether a topic takes messages only publishing can tell.
func (s *sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	w, err := s.sender(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = unavailable(s.dialer.servers[0].endpoint, errors.New("no answer in time"))
		}
		return err
	}
	return w.alive(ctx)
}

// Close the connection.
func (s *sink) Close() error {
	s.mu.Lock()
	w := s.current
	s.current, s.closed = nil, true
	s.mu.Unlock()
	if w != nil {
		w.link.leave()
	}
	return nil
}

// sender is the present connection, or a new one.
func (s *sink) sender(ctx context.Context) (*sender, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	version := s.dialer.rt.Secrets.Version()
	s.mu.Lock()
	w, same, closed := s.current, s.version == version, s.closed
	s.mu.Unlock()
	if closed {
		return nil, unavailable(s.dialer.servers[0].endpoint, errors.New("the sink is closed"))
	}
	if w != nil && !w.over() && (same || !s.dialer.outdated(w.link)) {
		return w, nil
	}
	made, err := openSender(ctx, s.dialer)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	s.mu.Lock()
	former := s.current
	s.current, s.version = made, version
	s.mu.Unlock()
	if former != nil {
		former.retire()
	}
	return made, nil
}

// operation publishes to one topic.
type operation struct {
	sink       *sink
	options    publishOptions
	topic      *steps.Template
	properties []propertyTemplate
}

type propertyTemplate struct {
	name  string
	value *steps.Template
}

func newOperation(s *sink, o publishOptions) (*operation, error) {
	op := &operation{sink: s, options: o}
	var err error
	if op.topic, err = steps.CompileTemplate(o.Topic); err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	for name, text := range o.Properties {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("property %s: %w", name, err)
		}
		op.properties = append(op.properties, propertyTemplate{name, value})
	}
	slices.SortFunc(op.properties, func(a, b propertyTemplate) int { return strings.Compare(a.name, b.name) })
	return op, nil
}

// MaxBatch is what waits for acknowledgements together.
func (o *operation) MaxBatch() int { return maxSend }

// Write publishes the messages in their order, and waits for the server's acknowledgements.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	w, err := o.sink.sender(ctx)
	if err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	publications := make([]*publication, len(batch))
	own := make([]error, len(batch))
	for i, d := range batch {
		if publications[i], own[i] = o.publication(d, w.link.five); own[i] != nil {
			publications[i] = nil
		}
	}
	for i, err := range w.publish(ctx, publications) {
		if results[i] = err; own[i] != nil {
			results[i] = sdk.Permanent(fmt.Errorf("%s: %w", w.link.endpoint, own[i]))
		}
	}
	return results
}

// publication of a message. An error is the message's own.
func (o *operation) publication(d *sdk.Delivery, five bool) (*publication, error) {
	m := d.Message
	topic, err := o.topic.Expand(m, nil)
	if err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	if err := checkTopic(topic); err != nil {
		return nil, err
	}
	p := &publication{topic: topic, qos: byte(o.options.QoS), retain: o.options.Retain, body: m.Data}
	if !five {
		return p, nil
	}
	p.contentType = m.ContentType
	p.text = m.Format != sdk.FormatBinary && utf8.Valid(m.Data)
	p.expiry = uint32(time.Duration(o.options.Expiration) / time.Second)
	p.correlation = []byte(m.Headers[nameCorrelationID])
	p.user = append(p.user, pair{"specversion", contract.SpecVersion}, pair{"id", m.ID}, pair{"source", m.Source}, pair{"type", m.Type})
	if !m.Time.IsZero() {
		p.user = append(p.user, pair{"time", m.Time.UTC().Format(time.RFC3339Nano)})
	}
	for _, u := range []pair{
		{"subject", m.Subject}, {"partitionkey", m.PartitionKey}, {contract.HeaderHistory, m.History},
		{"metip-message-id", binding.Short(d.Durable + "/" + d.MessageID)}, // the same for every attempt and every Replay, and another for each destination
	} {
		if u.value != "" {
			p.user = append(p.user, u)
		}
	}
	for name, value := range m.Headers {
		if !slices.ContainsFunc(o.properties, func(t propertyTemplate) bool { return t.name == name }) {
			p.user = append(p.user, pair{name, value})
		}
	}
	for i := range o.properties {
		t := &o.properties[i]
		value, err := t.value.Expand(m, nil)
		if err != nil {
			return nil, fmt.Errorf("property %s: %w", t.name, err)
		}
		p.user = append(p.user, pair{t.name, value})
	}
	return p, nil
}
