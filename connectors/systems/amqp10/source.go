package amqp10

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/gate"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const (
	// maxBatch of messages that are published together, and the bytes of their bodies.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// maxHeld is what a source holds of bodies that are not settled; one message may exceed it.
	maxHeld = 32 << 20
	// quiet is how long nothing arrives before nothing is thought to be under way.
	quiet = 20 * time.Millisecond
	// nudgeAfter is how long nothing arrives before the server is told of its credit anew, and askEvery before it is asked for what it has.
	nudgeAfter = 200 * time.Millisecond
	askEvery   = 10 * time.Second
)

// source receives from an address.
type source struct {
	rt       sdk.Runtime
	options  sourceOptions
	dialer   *cluster.Dialer
	receiver *receiver
	// dead is the connection for messages that the bus cannot take; nil where they stay where they are, or are rejected.
	dead *publisher
	// stuck: the last message that was looked at is one that the bus cannot take.
	stuck bool
	// mute: the server does not answer when it is asked for all that it has.
	mute bool
}

// NewSource makes a source of the JSON of the API's AMQP10Source.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decodeSource(raw)
	if err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	d, err := newDialer(rt, &o.Connection)
	if err != nil {
		return nil, err
	}
	s := &source{rt: rt, options: o, dialer: d, receiver: newReceiver(rt.Config, o)}
	if o.DeadLetter != "" {
		s.dead = newPublisher(d, &s.options.Connection)
	}
	return s, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	if s.dead != nil {
		defer s.dead.close()
	}
	sessions := intake.Sessions{
		Secrets: s.rt.Secrets,
		Session: func(ctx context.Context) (bool, error) { return s.session(ctx, bus, state) },
		Look:    func(ctx context.Context) error { return s.look(ctx, bus, state) },
	}
	sessions.Run(ctx, bus, state)
	return nil
}

// attach a receiver that is given no message yet.
func (s *source) attach(ctx context.Context, l *link) (*amqp.Session, *amqp.Receiver, error) {
	inner, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	session, err := l.NewSession(inner, nil)
	var r *amqp.Receiver
	if err == nil {
		r, err = session.NewReceiver(inner, s.options.Address, &amqp.ReceiverOptions{Credit: -1, RequestedSenderSettleMode: &unsettled})
	}
	switch {
	case err == nil:
		return session, r, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case inner.Err() != nil:
		err = errors.New("no answer in time")
	}
	return nil, nil, addressError(l.endpoint, s.options.Address, err)
}

// look whether the address can be read from, without reading: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	l, err := dial(ctx, s.dialer, &s.options.Connection, nil)
	if err != nil {
		return err
	}
	defer l.End()
	if _, _, err := s.attach(ctx, l); err != nil {
		return err
	}
	state.System(nil)
	changed := s.rt.Secrets.Changed()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Done():
			return unavailable(l.endpoint, l.why())
		case <-changed:
			return intake.ErrRestart
		case <-time.After(time.Second):
		}
	}
	return intake.ErrRestart
}

// session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	var g *gate.Gate
	l, err := dial(ctx, s.dialer, &s.options.Connection, func(conn net.Conn) net.Conn { g = gate.New(conn, maxHeld); return g })
	if err != nil {
		return false, err
	}
	defer l.End()
	defer g.TurnOff()
	session, from, err := s.attach(ctx, l)
	if err != nil {
		return false, err
	}
	r := &reader{source: s, state: state, link: l, gate: g, session: session, from: from, messages: make(chan *amqp.Message, 2*s.options.Prefetch), lost: make(chan struct{})}
	r.settler = intake.Settler[*amqp.Message]{
		Bus: bus, Lost: r.lost, Cause: func() error { return r.cause }, Refuse: r.refuse, Acknowledge: func(batch []item) error { return r.accept(ctx, batch) }, Recovered: r.recovered,
	}
	receiving, stop := context.WithCancel(context.WithoutCancel(ctx))
	received := make(chan struct{})
	go func() { defer close(received); r.receive(receiving) }()
	reported := make(chan struct{})
	go func() { // also while a message is being published, which may take long
		defer close(reported)
		select {
		case <-r.lost:
			if receiving.Err() == nil {
				state.System(r.cause)
			}
		case <-receiving.Done():
		}
	}()
	if !s.stuck {
		state.System(nil)
	}
	err = r.read(ctx)
	stop()
	<-received
	<-reported
	r.release(ctx)
	return true, err
}

// refused is what the server is told of a message that is rejected.
func refused(err error) *amqp.Error {
	return &amqp.Error{Condition: "metip:refused", Description: err.Error()}
}

func (s *source) held(l *link, name string, err error) error {
	return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf(
		"%s: address %s: message %.80s cannot be taken, and the source waits at it: %w (take it out of the queue, or set deadLetter or reject)", l.endpoint, s.options.Address, name, err))}
}
