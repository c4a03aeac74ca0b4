package mqtt

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const (
	// maxBatch of messages that are published together, and the bytes of their bodies.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// maxHeld is what a source holds of bodies that are not settled; one message may exceed it. While it does, nothing is read.
	maxHeld = 32 << 20
	// subscribe is the packet id of the subscription: nothing else is asked for.
	subscribe = 1
)

// source reads topics.
type source struct {
	rt       sdk.Runtime
	options  sourceOptions
	dialer   *dialer
	receiver *receiver
	client   string
	// stuck: the last message that was looked at is one that the bus cannot take.
	stuck bool
	// known: this pod has had the session, and its subscription, before.
	known bool

	mu sync.Mutex
	// released are messages of QoS 2 that the bus has and the broker may not know it: their packet ids, until the broker lets go of them.
	released map[uint16]bool
}

// NewSource makes a source of the JSON of the API's MQTTSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decodeSource(raw)
	if err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	d, err := newDialer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	s := &source{rt: rt, options: o, dialer: d, receiver: newReceiver(rt.Config, o), client: o.ClientID, released: map[uint16]bool{}}
	if s.client == "" {
		s.client = "metip-" + rt.Config.Connector.Namespace + "-" + rt.Config.Connector.Name
	}
	return s, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	sessions := intake.Sessions{
		Secrets: s.rt.Secrets,
		Session: func(ctx context.Context) (bool, error) { return s.session(ctx, bus, state) },
		Look:    func(ctx context.Context) error { return s.look(ctx, bus, state) },
	}
	sessions.Run(ctx, bus, state)
	return nil
}

// look whether the server can be reached, without touching the session: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	l, err := s.dialer.dial(ctx, hello{client: s.client + "-look", clean: true})
	if err != nil {
		return err
	}
	defer l.close()
	state.System(nil)
	changed := s.rt.Secrets.Changed()
	lost := make(chan error, 1)
	go func() {
		for {
			if p, err := l.read(); err != nil || p.kind == kindDisconnect {
				lost <- ended(p, err)
				return
			}
		}
	}()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return unavailable(l.endpoint, err)
		case <-changed:
			return intake.ErrRestart
		case <-time.After(time.Second):
		}
	}
	return intake.ErrRestart
}

// ended is why a connection has ended, that gave this packet or this error last.
func ended(p *packet, err error) error {
	if err == nil {
		return reasonError(p.code, p.reason)
	}
	return err
}

// session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	l, err := s.dialer.dial(ctx, hello{client: s.client, expiry: uint32(time.Duration(s.options.SessionExpiry) / time.Second), receive: uint16(s.options.Prefetch)})
	if err != nil {
		return false, err
	}
	r := &reader{source: s, bus: bus, state: state, link: l, messages: make(chan *packet, s.options.Prefetch), lost: make(chan struct{}), end: make(chan struct{}), subscribed: make(chan struct{})}
	r.room.L = &r.roomMu
	if err := r.subscribe(); err != nil {
		l.close()
		return false, err
	}
	read := make(chan struct{})
	go func() { defer close(read); r.take() }()
	err = r.work(ctx)
	close(r.end)
	r.settled(maxHeld)
	if ctx.Err() != nil || errors.Is(err, intake.ErrRestart) {
		// The broker closes when it has read what was acknowledged; the rest stays in the session.
		timer := time.AfterFunc(closeTimeout, l.close)
		if l.bye() == nil {
			<-read
		}
		timer.Stop()
	}
	l.close()
	<-read
	return r.good, err
}

// reader is the source on one connection.
type reader struct {
	*source
	bus   sdk.Publisher
	state sdk.Reporter
	link  *link
	// good: the broker has taken the subscription.
	good bool

	messages chan *packet
	// subscribed is closed when the broker has taken the subscription. lost is closed with the connection; cause is why, and set before. end is closed by who works.
	subscribed chan struct{}
	lost       chan struct{}
	cause      error
	end        chan struct{}

	roomMu sync.Mutex
	room   sync.Cond
	held   int
}

// subscribe. A session of 3.1.1 that this pod has subscribed already is left alone, as retained messages would come again.
func (r *reader) subscribe() error {
	l := r.link
	if !l.accepted.present {
		if r.known {
			r.rt.Log.Warn("the broker has lost the session, and what it had kept for it", "client", r.client, "server", l.endpoint)
		}
		r.receiver.memory.forget()
		r.mu.Lock()
		clear(r.released)
		r.mu.Unlock()
	} else if r.known && !l.five {
		close(r.subscribed)
		return nil
	}
	switch a := &l.accepted.properties; {
	case int(a.maximumQoS) < r.options.QoS:
		return unavailable(l.endpoint, &errServer{text: fmt.Sprintf("the server offers QoS %d at most, and qos is %d", a.maximumQoS, r.options.QoS)})
	case a.noWildcard && slices.ContainsFunc(r.options.Topics, func(filter string) bool { return strings.ContainsAny(filter, "+#") }):
		return unavailable(l.endpoint, &errServer{text: "the server has no wildcards: name each topic"})
	case a.noShared && r.options.Share != "":
		return unavailable(l.endpoint, &errServer{text: "the server has no shared subscriptions: leave share out"})
	}
	head := binary.BigEndian.AppendUint16(nil, subscribe)
	how := byte(r.options.QoS)
	if l.five {
		head = append(head, 0)
		if r.options.Share == "" {
			how |= 1 << 4 // retained messages for a new subscription only
		}
	}
	for _, filter := range r.options.Topics {
		head = append(appendText(head, r.filter(filter)), how)
	}
	if err := l.write(appendPacket(nil, kindSubscribe, 2, head, nil)); err != nil {
		return unavailable(l.endpoint, l.why(err))
	}
	return nil
}

func (r *reader) filter(topic string) string {
	if r.options.Share != "" {
		return "$share/" + r.options.Share + "/" + topic
	}
	return topic
}

// granted is what the broker says to the subscription.
func (r *reader) granted(p *packet) error {
	if p.id != subscribe || len(p.codes) != len(r.options.Topics) {
		return unavailable(r.link.endpoint, errPacket)
	}
	for i, code := range p.codes {
		filter := r.filter(r.options.Topics[i])
		switch {
		case code >= codeFailed:
			err := reasonError(code, p.reason)
			if !r.link.five {
				err.text = "the subscription is refused (MQTT 3.1.1 does not say why; may the user read it?)"
			}
			reason := contract.ReasonSystemError
			if err.refused {
				reason = contract.ReasonAuthenticationFailed
			}
			return sdk.Unavailable(reason, fmt.Errorf("%s: topics %s: %w", r.link.endpoint, filter, err))
		case int(code) < r.options.QoS:
			return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: topics %s: the server grants QoS %d, and qos is %d", r.link.endpoint, filter, code, r.options.QoS))
		}
	}
	return nil
}

// take packets in until the connection ends.
func (r *reader) take() {
	defer func() {
		close(r.lost)
		r.link.close() // who writes to a server that takes nothing is let go
	}()
	waiting := true
	for {
		r.roomMu.Lock()
		for r.held > maxHeld {
			r.room.Wait()
		}
		r.roomMu.Unlock()
		p, err := r.link.read()
		if err != nil || p.kind == kindDisconnect {
			r.cause = r.over(ended(p, err))
			return
		}
		switch p.kind {
		case kindSuback:
			if r.cause = r.granted(p); r.cause != nil {
				return
			}
			if waiting {
				waiting = false
				close(r.subscribed)
			}
		case kindPubrel:
			r.mu.Lock()
			delete(r.released, p.id)
			r.mu.Unlock()
			_ = r.link.write(appendAck(nil, kindPubcomp, p.id)) // that it is lost the next read will see
		case kindPublish:
			if p.qos() == 2 && r.isReleased(p) {
				_ = r.link.write(appendAck(nil, kindPubrec, p.id))
				continue
			}
			r.hold(p)
			select {
			case r.messages <- p:
			case <-r.end: // it stays in the session
				r.settled(len(p.body))
			}
		}
	}
}

// isReleased tells whether the bus has a message of QoS 2 already. A packet id that is used anew is another message's.
func (r *reader) isReleased(p *packet) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.duplicate() {
		delete(r.released, p.id)
	}
	return r.released[p.id]
}

// over is the state of a connection that has ended. While another client has the session, it is not fought for.
func (r *reader) over(err error) error {
	var answer *errServer
	state := unavailable(r.link.endpoint, err)
	if errors.As(err, &answer) && answer.code == codeTakenOver {
		return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %w: %s (each Connector needs a clientID of its own)", r.link.endpoint, err, r.client))}
	}
	return state
}

func (r *reader) hold(p *packet) {
	r.roomMu.Lock()
	r.held += len(p.body)
	r.roomMu.Unlock()
}

// settled: so many bytes of bodies are no longer held.
func (r *reader) settled(n int) {
	r.roomMu.Lock()
	r.held = max(0, r.held-n)
	r.room.Broadcast()
	r.roomMu.Unlock()
}
