package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/gate"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const (
	// maxBatch of deliveries that are published together, and the bytes of their bodies.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// maxHeld is what a source holds of bodies that are not settled; one message may exceed it.
	maxHeld = 32 << 20
	// quiet is how long nothing arrives before nothing is thought to be under way.
	quiet = 20 * time.Millisecond
)

// source reads a queue.
type source struct {
	rt       sdk.Runtime
	options  sourceOptions
	dialer   *cluster.Dialer
	receiver *receiver
	// dead is the connection for messages that the bus cannot take; nil where they stay in the queue.
	dead *publisher
	// prefetch that is asked for at present, and the largest body since it was chosen.
	prefetch, largest int
	// stuck: the last message that was looked at is one that the bus cannot take.
	stuck bool
}

// NewSource makes a source of the JSON of the API's RabbitMQSource.
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
	s := &source{rt: rt, options: o, dialer: d, receiver: newReceiver(rt.Config, o), prefetch: o.Prefetch}
	if o.DeadLetter != nil {
		s.dead = newPublisher(newHolder(d, &o.Connection))
	}
	return s, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	if s.dead != nil {
		defer s.dead.holder.Close()
	}
	sessions := intake.Sessions{
		Secrets: s.rt.Secrets,
		Session: func(ctx context.Context) (bool, error) { return s.session(ctx, bus, state) },
		Look:    func(ctx context.Context) error { return s.look(ctx, bus, state) },
	}
	sessions.Run(ctx, bus, state)
	return nil
}

// look whether the server can be reached, without reading: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	l, err := dial(ctx, s.dialer, &s.options.Connection, nil)
	if err != nil {
		return err
	}
	defer l.End()
	if _, err := s.channel(ctx, l); err != nil {
		return err
	}
	state.System(nil)
	changed := s.rt.Secrets.Changed()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) {
		select {
		case <-ctx.Done():
			return nil
		case <-l.lost:
			return unavailable(l.endpoint, l.cause)
		case <-changed:
			return intake.ErrRestart
		case <-time.After(time.Second):
		}
	}
	return intake.ErrRestart
}

// channel to read from, of a queue that is there.
func (s *source) channel(ctx context.Context, l *link) (channel *amqp.Channel, err error) {
	inner, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	err = l.within(inner, func() error {
		if channel, err = l.Channel(); err != nil {
			return err
		}
		_, err = channel.QueueDeclarePassive(s.options.Queue, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return nil, s.queueError(l, err)
	}
	return channel, nil
}

func (s *source) queueError(l *link, err error) error {
	var answer *amqp.Error
	if errors.As(err, &answer) && answer.Server {
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: queue %s: %s", l.endpoint, s.options.Queue, describe(err)))
	}
	return unavailable(l.endpoint, err)
}

// session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	var g *gate.Gate
	l, err := dial(ctx, s.dialer, &s.options.Connection, func(conn net.Conn) net.Conn { g = gate.New(conn, maxHeld); return g })
	if err != nil {
		return false, err
	}
	defer l.End() // after the channel's acknowledgements, which it sends
	defer g.TurnOff()
	channel, err := s.channel(ctx, l)
	if err != nil {
		return false, err
	}
	r := &reader{source: s, state: state, link: l, gate: g, channel: channel, closed: channel.NotifyClose(make(chan *amqp.Error, 1))}
	r.settler = intake.Settler[amqp.Delivery]{
		Bus: bus, Lost: l.lost, Cause: func() error { return unavailable(l.endpoint, l.cause) }, Refuse: r.refuse, Acknowledge: r.acknowledge, Recovered: r.recovered,
	}
	reported := make(chan struct{})
	finished := make(chan struct{})
	go func() { // also while a message is being published, which may take long
		defer close(reported)
		select {
		case <-l.lost:
			state.System(unavailable(l.endpoint, l.cause))
		case <-finished:
		}
	}()
	for err == nil {
		err = r.consume(ctx)
	}
	close(finished)
	<-reported
	return r.worked, err
}

// resize chooses the prefetch by what was seen: so many of the largest messages as may be held.
func (s *source) resize(tight bool) {
	fits := s.options.Prefetch
	if s.largest > 0 {
		fits = max(1, min(fits, maxHeld/2/s.largest))
	}
	switch {
	case tight:
		s.prefetch = min(s.prefetch, fits)
	default:
		s.prefetch = min(fits, 2*s.prefetch)
	}
	s.largest = 0
}
