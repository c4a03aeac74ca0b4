package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// maxPublish is how many messages wait for their confirmations together.
const maxPublish = 128

// Errors of JetStream that say something of the message itself.
const (
	codeMessageTooLarge = 10054
	codeHeaderTooLarge  = 10096
)

// sink publishes over one connection.
type sink struct {
	*link
	domain string
	raw    json.RawMessage
}

// NewSink makes a sink of the JSON of the API's NATSSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if o.Domain != "" && !validName(o.Domain) {
		return nil, errors.New("domain must be a name without dots, spaces, * and >")
	}
	l, err := newLink(rt, o.connectionOptions)
	if err != nil {
		return nil, err
	}
	return &sink{link: l, domain: o.Domain, raw: o.Publish}, nil
}

// operation publishes messages.
type operation struct {
	sink    *sink
	subject *steps.Template
	headers []headerTemplate
	// server: that the server has it is enough.
	server bool
}

type headerTemplate struct {
	name  string
	value *steps.Template
}

// Operation compiles what is published; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	var o publishOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	op := &operation{sink: s}
	var err error
	if op.subject, err = compileSubject(o.Subject); err != nil {
		return nil, err
	}
	switch o.Confirm {
	case "", confirmJetStream:
	case confirmServer:
		op.server = true
	default:
		return nil, fmt.Errorf("confirm %q is neither %s nor %s", o.Confirm, confirmJetStream, confirmServer)
	}
	for name, text := range o.Headers {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, eventPrefix) || strings.HasPrefix(lower, "metip-") {
			return nil, fmt.Errorf("headers: %q cannot be set", name)
		}
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.headers = append(op.headers, headerTemplate{name, value})
	}
	slices.SortFunc(op.headers, func(a, b headerTemplate) int { return strings.Compare(a.name, b.name) })
	return op, nil
}

// MaxBatch is what waits for confirmations together.
func (o *operation) MaxBatch() int { return maxPublish }

// Write publishes the messages, and waits until their streams have them or, where the options say so, the server.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	nc, err := o.sink.conn(ctx)
	var js jetstream.JetStream
	if err == nil {
		js, err = o.sink.stream(nc)
	}
	if err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	var wait sync.WaitGroup
	for i, d := range batch {
		m, err := o.message(d)
		if err == nil && int64(len(m.Data)) > nc.MaxPayload() {
			err = fmt.Errorf("the body has %d bytes, and the server takes %d", len(m.Data), nc.MaxPayload())
		}
		switch {
		case err != nil:
			results[i] = sdk.Permanent(fmt.Errorf("%s: %w", o.sink.servers, err))
		case o.server:
			results[i] = o.judge(ctx, nc, m.Subject, nc.PublishMsg(m))
		default:
			wait.Add(1)
			go func() {
				defer wait.Done()
				_, err := js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
				results[i] = o.judge(ctx, nc, m.Subject, err)
			}()
		}
	}
	wait.Wait()
	if o.server {
		if err := nc.FlushWithContext(ctx); err != nil {
			for i := range results {
				if results[i] == nil {
					results[i] = o.judge(ctx, nc, "", err)
				}
			}
		}
	}
	return results
}

// stream is JetStream on a connection.
func (s *sink) stream(nc *client.Conn) (jetstream.JetStream, error) {
	if s.domain != "" {
		return jetstream.NewWithDomain(nc, s.domain)
	}
	return jetstream.New(nc)
}

// judge what became of a message.
func (o *operation) judge(ctx context.Context, nc *client.Conn, subject string, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &api) && (api.ErrorCode == codeMessageTooLarge || api.ErrorCode == codeHeaderTooLarge):
		return sdk.Permanent(fmt.Errorf("%s: %s: %w", o.sink.servers, subject, err))
	case errors.As(err, &api):
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %s: %w", o.sink.servers, subject, err))
	case errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, client.ErrNoResponders):
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: no stream takes %s (make one or, if nothing has to be stored, set `confirm: Server`)", o.sink.servers, subject))
	case !nc.IsConnected():
		return o.sink.unavailable(err)
	default:
		return fmt.Errorf("%s: %s: %w", o.sink.servers, subject, err)
	}
}

// message that is published. An error is the message's own.
func (o *operation) message(d *sdk.Delivery) (*client.Msg, error) {
	m := d.Message
	subject, err := expandSubject(o.subject, m)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	h := client.Header{
		eventPrefix + "specversion": {contract.SpecVersion}, eventPrefix + "id": {m.ID}, eventPrefix + "source": {m.Source}, eventPrefix + "type": {m.Type},
		// The same for every attempt and every Replay, and another for each destination.
		jetstream.MsgIDHeader: {d.Durable + "/" + d.MessageID},
	}
	set := func(name, value string) {
		if value != "" && binding.Clean(value) {
			h[name] = []string{value}
		}
	}
	set(headerContentType, m.ContentType)
	set(eventPrefix+"datacontenttype", m.ContentType)
	if !m.Time.IsZero() {
		set(eventPrefix+"time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	set(eventPrefix+"subject", m.Subject)
	set(eventPrefix+"partitionkey", m.PartitionKey)
	set(contract.HeaderHistory, m.History)
	for name, value := range m.Headers {
		if name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			set(name, value)
		} else {
			set(eventPrefix+name, value)
		}
	}
	for i := range o.headers {
		value, err := o.headers[i].value.Expand(m, nil)
		switch {
		case err != nil:
			return nil, fmt.Errorf("header %s: %w", o.headers[i].name, err)
		case !binding.Clean(value):
			return nil, fmt.Errorf("header %s: the value holds control characters", o.headers[i].name)
		}
		h[o.headers[i].name] = []string{value}
	}
	return &client.Msg{Subject: subject, Header: h, Data: m.Data}, nil
}

// expandSubject over a message. A value that is inserted is one token: it cannot lead elsewhere.
func expandSubject(t *steps.Template, m *sdk.Message) (string, error) {
	bad := false
	subject, err := t.Expand(m, func(value string) string {
		bad = bad || value == "" || strings.ContainsAny(value, ".*> \t\r\n")
		return value
	})
	switch {
	case err != nil:
		return "", err
	case bad || !validSubject(subject):
		return "", errors.New("a value that is inserted is empty, or holds what one token of a subject cannot")
	}
	return subject, nil
}
