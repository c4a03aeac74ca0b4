package stomp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const (
	subscription = "0"
	// maxBatch of messages that are published together, and the bytes of their bodies.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// maxHeld is what a source holds of bodies that are not settled; one message may exceed it. While it does, nothing is read.
	maxHeld = 32 << 20
	// subscribeWait is how long a server has to refuse a subscription, or to accept it.
	subscribeWait = 5 * time.Second
)

// source reads a queue.
type source struct {
	rt       sdk.Runtime
	options  sourceOptions
	dialer   *cluster.Dialer
	receiver *receiver
	// stuck: the last message that was looked at is one that the bus cannot take.
	stuck bool
}

// NewSource makes a source of the JSON of the API's STOMPSource.
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
	return &source{rt: rt, options: o, dialer: d, receiver: newReceiver(rt.Config, o)}, nil
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

// look whether the server can be reached, without reading: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	l, err := dial(ctx, s.dialer, &s.options.Connection)
	if err != nil {
		return err
	}
	defer l.close()
	state.System(nil)
	changed := s.rt.Secrets.Changed()
	lost := make(chan error, 1)
	go func() {
		_, err := l.read()
		lost <- err
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

// session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	l, err := dial(ctx, s.dialer, &s.options.Connection)
	if err != nil {
		return false, err
	}
	r := &reader{source: s, bus: bus, state: state, link: l, messages: make(chan *frame, s.options.Prefetch), lost: make(chan struct{}), end: make(chan struct{})}
	r.room.L = &r.mu
	if err := r.subscribe(); err != nil {
		l.close()
		return false, err
	}
	read := make(chan struct{})
	go func() { defer close(read); r.take() }()
	if !s.stuck {
		state.System(nil)
	}
	err = r.work(ctx)
	close(r.end)
	r.settled(maxHeld)
	if ctx.Err() != nil || errors.Is(err, intake.ErrRestart) {
		// What was acknowledged reaches the server before it answers; what was not goes back to its queue.
		timer := time.AfterFunc(closeTimeout, l.close)
		if l.write(newFrame(cmdUnsubscribe, hdrID, subscription), newFrame(cmdDisconnect, hdrReceipt, bye)) == nil {
			<-read
		}
		timer.Stop()
	}
	l.close()
	<-read
	return true, err
}

// reader is the source on one connection.
type reader struct {
	*source
	bus   sdk.Publisher
	state sdk.Reporter
	link  *link

	messages chan *frame
	// lost is closed with the connection; cause is why, and set before. end is closed by who works.
	lost  chan struct{}
	cause error
	end   chan struct{}

	mu   sync.Mutex
	room sync.Cond
	held int
}

// subscribe, and wait until the server has taken that: what it does not like it says before its receipt.
func (r *reader) subscribe() error {
	o := &r.options
	f := newFrame(cmdSubscribe, hdrID, subscription, hdrDestination, o.Destination, hdrAck, "client-individual", hdrReceipt, "subscribed",
		"activemq.prefetchSize", strconv.Itoa(o.Prefetch), "prefetch-count", strconv.Itoa(o.Prefetch), "consumer-window-size", strconv.Itoa(maxHeld))
	if o.Selector != "" {
		f.set("selector", o.Selector)
	}
	_ = r.link.conn.SetDeadline(time.Now().Add(subscribeWait))
	defer func() { _ = r.link.conn.SetDeadline(time.Time{}) }()
	if err := r.link.write(f); err != nil {
		return unavailable(r.link.endpoint, err)
	}
	for {
		answer, err := readFrame(r.link.reader, r.link.maxBody)
		switch {
		case err != nil:
			return unavailable(r.link.endpoint, err)
		case answer == nil:
		case answer.command == cmdError:
			return r.destinationError(serverError(answer))
		case answer.command == cmdMessage: // it may come before the receipt
			r.hold(answer)
			r.messages <- answer
			if len(r.messages) == cap(r.messages) {
				return nil
			}
		case answer.command == cmdReceipt:
			return nil
		}
	}
}

func (r *reader) destinationError(err error) error {
	var answer *errServer
	if errors.As(err, &answer) {
		reason := contract.ReasonSystemError
		if answer.refused {
			reason = contract.ReasonAuthenticationFailed
		}
		return sdk.Unavailable(reason, fmt.Errorf("%s: destination %s: %w", r.link.endpoint, r.options.Destination, err))
	}
	return unavailable(r.link.endpoint, err)
}

// take frames in until the connection ends.
func (r *reader) take() {
	defer close(r.lost)
	for {
		r.mu.Lock()
		for r.held > maxHeld {
			r.room.Wait()
		}
		r.mu.Unlock()
		f, err := r.link.read()
		switch {
		case err != nil:
			r.cause = unavailable(r.link.endpoint, err)
			return
		case f.command == cmdError:
			r.cause = r.destinationError(serverError(f))
			return
		case f.command == cmdReceipt && f.get(hdrReceiptID) == bye:
			r.cause = intake.ErrRestart
			return
		case f.command != cmdMessage:
			continue
		}
		r.hold(f)
		select {
		case r.messages <- f:
		case <-r.end: // it goes back to its queue
			r.settled(len(f.body))
		}
	}
}

func (r *reader) hold(f *frame) {
	r.mu.Lock()
	r.held += len(f.body)
	r.mu.Unlock()
}

// settled: so many bytes of bodies are no longer held.
func (r *reader) settled(n int) {
	r.mu.Lock()
	r.held = max(0, r.held-n)
	r.room.Broadcast()
	r.mu.Unlock()
}

// work until the session is over.
func (r *reader) work(ctx context.Context) error {
	settler := intake.Settler[*frame]{
		Bus: r.bus, Lost: r.lost, Cause: func() error { return r.cause }, Refuse: r.refuse, Acknowledge: r.acknowledge, Recovered: r.recovered,
	}
	changed := r.rt.Secrets.Changed()
	for {
		select { // first of all what ends the session: a queue may never be empty
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if r.dialer.Outdated(r.link.proof) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		case <-r.lost:
			return r.cause
		case f := <-r.messages:
			if err := settler.Settle(ctx, r.collect(f)); err != nil {
				return err
			}
			select {
			case <-changed:
				if r.dialer.Outdated(r.link.proof) {
					return intake.ErrRestart
				}
				changed = r.rt.Secrets.Changed()
			default:
			}
		}
	}
}

// item is a frame and its message, or why there can be none.
type item = intake.Item[*frame]

// collect what has arrived.
func (r *reader) collect(first *frame) []item {
	batch := make([]item, 0, 16)
	bytes := 0
	add := func(f *frame) {
		i := item{Delivery: f}
		i.Message, i.Err = r.receiver.message(f)
		batch = append(batch, i)
		bytes += len(f.body)
	}
	add(first)
	for len(batch) < maxBatch && bytes < maxBatchBytes {
		select {
		case f := <-r.messages:
			add(f)
		default:
			return batch
		}
	}
	return batch
}

func (r *reader) recovered() {
	if r.stuck {
		r.stuck = false
		r.state.System(nil)
	}
}

// acknowledge messages, each.
func (r *reader) acknowledge(batch []item) error {
	frames := make([]*frame, len(batch))
	bytes := 0
	for i := range batch {
		f := batch[i].Delivery
		bytes += len(f.body)
		if r.link.old {
			frames[i] = newFrame(cmdAck, hdrSubscription, subscription, hdrMessageID, f.get(hdrMessageID))
		} else {
			frames[i] = newFrame(cmdAck, hdrID, f.get(hdrAck))
		}
		batch[i] = item{}
	}
	err := r.link.write(frames...)
	r.settled(bytes)
	if err != nil {
		return unavailable(r.link.endpoint, err)
	}
	return nil
}

// refuse a message that the bus can never take: to the dead letters of the options or, where they name none, the source stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	name := i.Delivery.get(hdrMessageID)
	if !binding.Clean(name) {
		name = "without id"
	}
	where := fmt.Sprintf("%s: destination %s: message %.80s", r.link.endpoint, r.options.Destination, name)
	if r.options.DeadLetter == "" || i.Delivery.skipped > 0 {
		r.stuck = true
		return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s cannot be taken, and the source waits at it: %w (take it out of the queue, or set deadLetter)", where, i.Err))}
	}
	if err := r.bury(ctx, i); err != nil {
		r.stuck = true
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s cannot be taken: %w; and neither can deadLetter: %w", where, i.Err, err))
	}
	r.rt.Log.Warn("a message was put to the dead letters of its queue", "destination", r.options.Destination, "message", name, "error", i.Err)
	r.recovered()
	return nil
}

// bury a message in the dead letters, over a connection of its own, and wait for the server's receipt.
func (r *reader) bury(ctx context.Context, i *item) error {
	ctx, cancel := intake.Outlive(ctx)
	defer cancel()
	l, err := dial(ctx, r.dialer, &r.options.Connection)
	if err != nil {
		return err
	}
	f := newFrame(cmdSend, hdrDestination, r.options.DeadLetter, "persistent", "true", hdrReceipt, "buried", "metip-error", i.Err.Error(), "metip-destination", r.options.Destination)
	for _, h := range i.Delivery.headers {
		switch h.name {
		case hdrDestination, hdrMessageID, hdrSubscription, hdrAck, hdrReceipt, "persistent", "redelivered", "metip-error", "metip-destination":
		default:
			f.set(h.name, h.value)
		}
	}
	f.body = i.Delivery.body
	defer l.leave()
	return l.confirm(f, "buried")
}
