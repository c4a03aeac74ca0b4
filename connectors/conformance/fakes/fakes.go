package fakes

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Secrets that a test sets. The zero value holds nothing.
type Secrets struct {
	mu      sync.Mutex
	values  map[string][]byte
	version uint64
	changed chan struct{}
}

// Set files to values, all at once, as the kubelet does.
func (s *Secrets) Set(values map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	for file, value := range values {
		s.values[file] = []byte(value)
	}
	s.version++
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Get implements sdk.Secrets.
func (s *Secrets) Get(file string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[file]; ok {
		return v, nil
	}
	return nil, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret test-secret has no key for %s", file))
}

// Version implements sdk.Secrets.
func (s *Secrets) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Changed implements sdk.Secrets.
func (s *Secrets) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Publisher keeps what it confirms. It de-duplicates as the broker does.
type Publisher struct {
	mu     sync.Mutex
	stored map[string]*sdk.Message
	order  []*sdk.Message
	calls  int
	err    error
	gate   chan struct{}
	// waiting messages, and the most there have been.
	waiting, crowd int
	repeats        int
	// refused is how often Ready has said that it is not.
	refused int
	lost    error
}

// Lose makes Publish store what it is given and answer err nevertheless, as a broker does whose confirmation is lost; nil ends that.
func (p *Publisher) Lose(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = err
}

// Fail makes Publish and Ready answer err from now on; nil lets them work.
func (p *Publisher) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Hold makes Publish wait, until release is called.
func (p *Publisher) Hold() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gate := make(chan struct{})
	p.gate = gate
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.gate == gate {
			p.gate = nil
		}
		close(gate)
	}
}

// Publish implements sdk.Publisher.
func (p *Publisher) Publish(ctx context.Context, messages ...*sdk.Message) error {
	p.mu.Lock()
	p.calls++
	gate := p.gate
	p.waiting += len(messages)
	p.crowd = max(p.crowd, p.waiting)
	p.mu.Unlock()
	var ended error
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			ended = ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting -= len(messages)
	if ended != nil {
		return ended
	}
	if p.err != nil {
		return p.err
	}
	if p.stored == nil {
		p.stored = map[string]*sdk.Message{}
	}
	for _, m := range messages {
		id := contract.MessageID("uid", m.Endpoint, m.ID)
		if p.stored[id] == nil {
			p.stored[id] = m
			p.order = append(p.order, m)
		} else {
			p.repeats++
		}
	}
	return p.lost
}

// Ready implements sdk.Publisher.
func (p *Publisher) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		p.refused++
	}
	return p.err
}

// Asked is how often it was called so far, or said that it was not ready.
func (p *Publisher) Asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls + p.refused
}

// Stored are the messages that were confirmed, in order, each once.
func (p *Publisher) Stored() []*sdk.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*sdk.Message(nil), p.order...)
}

// Repeats are how many messages were given again that were stored already.
func (p *Publisher) Repeats() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.repeats
}

// Waiting is how many messages wait for their confirmation now, and how many did at most.
func (p *Publisher) Waiting() (now, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting, p.crowd
}

// Calls of Publish so far, also of those that wait.
func (p *Publisher) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// Reporter keeps the last state.
type Reporter struct {
	mu    sync.Mutex
	err   error
	calls int
}

// System implements sdk.Reporter.
func (r *Reporter) System(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	r.calls++
}

// State is the last report, and whether there was one.
func (r *Reporter) State() (err error, reported bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err, r.calls > 0
}

// Runtime of a connector called test/connector. Its Dial is the plain one; its Listen listens on listener, if that is given.
func Runtime(t testing.TB, config *contract.Config, secrets sdk.Secrets, listener net.Listener) sdk.Runtime {
	t.Helper()
	return NewRuntime(config, slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})), secrets, listener)
}

// NewRuntime is Runtime where there is no test, in a process of its own.
func NewRuntime(config *contract.Config, log *slog.Logger, secrets sdk.Secrets, listener net.Listener) sdk.Runtime {
	config.Version = contract.ConfigVersion
	config.Connector.Namespace, config.Connector.Name, config.Connector.UID = "test", "connector", "uid"
	if config.Auth.Kind == contract.AuthNone {
		config.Auth.Kind = contract.AuthAnonymous
	}
	config.Auth.SecretName = "test-secret"
	return sdk.Runtime{
		Config:  config,
		Log:     log,
		Secrets: secrets,
		Dial:    (&net.Dialer{}).DialContext,
		Listen: func(context.Context) (net.Listener, error) {
			if listener == nil {
				return nil, fmt.Errorf("the test has no listener")
			}
			return listener, nil
		},
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}

// Delivery of a JSON message, as the engine gives it to a sink.
func Delivery(id, data string) *sdk.Delivery {
	return &sdk.Delivery{
		Message: &sdk.Message{
			ID: id, Type: "test.event", Source: "/metip/test/source", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			ContentType: "application/json", Format: sdk.FormatJSON, Data: []byte(data),
		},
		MessageID: contract.MessageID("source-uid", "in", id), Durable: "test_route_db", Attempt: 1,
	}
}

// JSON of options.
func JSON(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Eventually waits until f is true, at most limit.
func Eventually(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
