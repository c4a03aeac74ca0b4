package mail

import (
	"context"
	"encoding/json"
	"errors"
	"net/textproto"
	"sync"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

const (
	// idleTimeout after which a connection is closed that nobody needs. Servers close theirs after 5 minutes.
	idleTimeout = 30 * time.Second
	// answerTimeout of a message that nothing else bounds.
	answerTimeout = 5 * time.Minute
)

// sink submits over one connection.
type sink struct {
	dialer *dialer
	raw    json.RawMessage
	turn   chan struct{} // who has it has the session
	idle   *time.Timer

	mu      sync.Mutex
	session *session
	version uint64
	closed  bool
}

// NewSink makes a sink of the JSON of the API's MailSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	d, err := newDialer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	s := &sink{dialer: d, raw: o.Send, turn: make(chan struct{}, 1)}
	s.idle = time.AfterFunc(idleTimeout, s.rest)
	s.idle.Stop()
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
	return newOperation(s, o)
}

// Check connects, logs in, and asks for a sign of life. While messages are under way their results say more.
func (s *sink) Check(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	default:
		return nil
	}
	defer s.release()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		v, err := s.open(ctx)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = s.dialer.unavailable(errors.New("no answer in time"))
			}
			return err
		}
		used := v.used
		err = s.talk(ctx, v, v.client.Noop)
		var answer *textproto.Error
		switch {
		case err == nil, errors.As(err, &answer) && answer.Code == 502: // it lives
			v.used = true
			return nil
		case !used || ctx.Err() != nil:
			s.forget(v)
			if ctx.Err() != nil {
				err = errors.New("no answer in time")
			}
			return s.dialer.unavailable(err)
		}
		s.forget(v) // it has ended meanwhile
	}
}

// Close the connection.
func (s *sink) Close() error {
	s.idle.Stop()
	s.mu.Lock()
	v := s.session
	s.closed = true
	s.mu.Unlock()
	if v == nil {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
		v.leave()
		s.forget(v)
		<-s.turn
	case <-time.After(closeTimeout):
		v.drop()
	}
	return nil
}

// rest closes a connection that nobody needs.
func (s *sink) rest() {
	select {
	case s.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-s.turn }()
	s.mu.Lock()
	v := s.session
	s.session = nil
	s.mu.Unlock()
	if v != nil {
		v.leave()
	}
}

func (s *sink) release() {
	s.mu.Lock()
	if s.session != nil && !s.closed {
		s.idle.Reset(idleTimeout)
	}
	s.mu.Unlock()
	<-s.turn
}

// open is the present session, or a new one, for who has the turn.
func (s *sink) open(ctx context.Context) (*session, error) {
	version := s.dialer.rt.Secrets.Version()
	s.mu.Lock()
	v, same, closed := s.session, s.version == version, s.closed
	s.mu.Unlock()
	if closed {
		return nil, s.dialer.unavailable(errors.New("the sink is closed"))
	}
	if v != nil && (same || !s.dialer.outdated(v)) {
		return v, nil
	}
	if v != nil {
		v.leave()
		s.forget(v)
	}
	v, err := s.dialer.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if closed = s.closed; !closed {
		s.session, s.version = v, version
	}
	s.mu.Unlock()
	if closed {
		v.drop()
		return nil, s.dialer.unavailable(errors.New("the sink is closed"))
	}
	return v, nil
}

func (s *sink) forget(v *session) {
	v.drop()
	s.mu.Lock()
	if s.session == v {
		s.session = nil
	}
	s.mu.Unlock()
}

// talk to the server until ctx ends, which ends the session.
func (s *sink) talk(ctx context.Context, v *session, f func() error) error {
	_ = v.wire.SetDeadline(time.Now().Add(answerTimeout))
	v.wire.left.Store(maxAnswers)
	stop := context.AfterFunc(ctx, v.drop)
	err := f()
	if !stop() {
		s.forget(v)
	}
	return err
}
