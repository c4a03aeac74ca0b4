package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/intake"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

const (
	// maxBatch of messages that are published together, and the bytes of their bodies.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// maxHeld is what is held of bodies that are not settled, and what the server sends ahead besides; one message may exceed it.
	maxHeld = 16 << 20
	// ackWait of a consumer that the source makes: how long messages of a pod that has died are away. A pod that lives asks for more time.
	ackWait = 10 * time.Second
	// heartbeat of a request for messages: without two of them it has failed.
	heartbeat    = 5 * time.Second
	setupTimeout = 10 * time.Second
	closeTimeout = 3 * time.Second
	// maxReason of a dead letter, in characters.
	maxReason = 500
)

// source reads a stream by a durable pull consumer.
type source struct {
	*dialer
	options  sourceOptions
	receiver *receiver
	// stuck: the last message that was looked at is one that the bus cannot take.
	stuck bool
}

// NewSource makes a source of the JSON of the API's NATSSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decodeSource(raw)
	if err != nil {
		return nil, err
	}
	c := rt.Config
	if c.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	d, err := newDialer(rt, o.connectionOptions)
	if err != nil {
		return nil, err
	}
	return &source{dialer: d, options: o, receiver: &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format, stream: o.Stream,
	}}, nil
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

// session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	r := &reader{
		source: s, bus: bus, state: state, version: s.rt.Secrets.Version(), messages: make(chan jetstream.Msg, s.options.MaxPending), lost: make(chan struct{}), end: make(chan struct{}),
		pending: map[uint64]jetstream.Msg{},
	}
	r.room.L = &r.mu
	if err := r.open(ctx); err != nil {
		return false, err
	}
	var read sync.WaitGroup
	read.Go(r.take)
	read.Go(r.keep)
	if !s.stuck {
		state.System(nil)
	}
	err = r.work(ctx)
	close(r.end)
	r.iterator.Stop()
	r.release()
	read.Wait()
	r.release() // what came meanwhile
	// What was acknowledged, and what was given back, reaches the server before the connection ends.
	_ = r.nc.FlushTimeout(closeTimeout)
	r.nc.Close()
	return true, err
}

// look whether the consumer is there, without reading: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	r := &reader{source: s, bus: bus, state: state, version: s.rt.Secrets.Version(), lost: make(chan struct{})}
	if err := r.connect(ctx); err != nil {
		return err
	}
	defer r.nc.Close()
	if _, err := r.consumer(ctx); err != nil {
		return err
	}
	state.System(nil)
	changed := s.rt.Secrets.Changed()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) {
		select {
		case <-ctx.Done():
			return nil
		case <-r.lost:
			return r.cause
		case <-changed:
			return intake.ErrRestart
		case <-time.After(time.Second):
		}
	}
	return intake.ErrRestart
}

// reader is the source on one connection.
type reader struct {
	*source
	bus      sdk.Publisher
	state    sdk.Reporter
	version  uint64
	nc       *client.Conn
	iterator jetstream.MessagesContext

	messages chan jetstream.Msg
	// lost is closed with the connection; cause is why, and set before. end is closed by who works.
	lost  chan struct{}
	cause error
	once  sync.Once
	end   chan struct{}

	mu sync.Mutex
	// denied is what the server has last said that the user may not do.
	denied error
	// pending messages, by their sequence in the stream, and the bytes of their bodies. room is waited for while they are too many.
	pending map[uint64]jetstream.Msg
	held    int
	room    sync.Cond
	wait    time.Duration // of the consumer, for an acknowledgement
}

// hold a message until it is settled.
func (r *reader) hold(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return // it is no message of JetStream's, and will be refused
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.pending[meta.Sequence.Stream]; !again {
		r.held += len(m.Data())
	}
	r.pending[meta.Sequence.Stream] = m
}

// settled: a message is not held any more.
func (r *reader) settled(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.pending[meta.Sequence.Stream]; ok {
		delete(r.pending, meta.Sequence.Stream)
		r.held -= len(m.Data())
		r.room.Broadcast()
	}
}

// keep asks for more time for what is not settled, until the session is over.
func (r *reader) keep() {
	timer := time.NewTicker(max(r.wait/3, 100*time.Millisecond))
	defer timer.Stop()
	for {
		select {
		case <-r.end:
			return
		case <-timer.C:
		}
		r.mu.Lock()
		for _, m := range r.pending {
			_ = m.InProgress()
		}
		r.mu.Unlock()
	}
}

// release gives back what is not settled, so that whoever reads next has it at once.
func (r *reader) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sequence := range slices.Sorted(maps.Keys(r.pending)) { // they come again in the order in which they were given back
		_ = r.pending[sequence].Nak()
	}
	clear(r.pending)
	r.held = 0
	r.room.Broadcast()
}

func (r *reader) fail(err error) { r.once.Do(func() { r.cause = err; close(r.lost) }) }

// connect once: what breaks ends the session.
func (r *reader) connect(ctx context.Context) (err error) {
	r.nc, err = r.dialer.connect(ctx, client.NoReconnect(),
		client.ClosedHandler(func(nc *client.Conn) { r.fail(r.unavailable(nc.LastError())) }),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
			if errors.Is(err, client.ErrPermissionViolation) {
				r.mu.Lock()
				r.denied = err
				r.mu.Unlock()
			}
			r.rt.Log.Warn("the NATS server reports an error", "error", err)
		}))
	return err
}

func (r *reader) open(ctx context.Context) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	consumer, err := r.consumer(ctx)
	if err == nil {
		r.wait = consumer.CachedInfo().Config.AckWait
		r.iterator, err = consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(r.options.MaxPending, maxHeld), jetstream.PullHeartbeat(heartbeat))
	}
	if err != nil {
		r.nc.Close()
		return r.failure(err)
	}
	return nil
}

// consumer that is there, or that is made.
func (r *reader) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	o := &r.options
	js, err := jetstream.New(r.nc)
	if o.Domain != "" {
		js, err = jetstream.NewWithDomain(r.nc, o.Domain)
	}
	if err != nil {
		return nil, err
	}
	consumer, err := js.Consumer(ctx, o.Stream, o.Consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		policy := jetstream.DeliverAllPolicy
		if o.Start == startNew {
			policy = jetstream.DeliverNewPolicy
		}
		consumer, err = js.CreateConsumer(ctx, o.Stream, jetstream.ConsumerConfig{
			Durable: o.Consumer, Description: "metip " + r.rt.Config.Connector.Namespace + "/" + r.rt.Config.Connector.Name, DeliverPolicy: policy,
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: o.MaxPending, FilterSubjects: o.Subjects,
		})
	}
	if err != nil {
		return nil, r.failure(err)
	}
	return consumer, r.fits(consumer.CachedInfo().Config)
}

// fits tells whether a consumer is one that nothing is lost with.
func (r *reader) fits(c jetstream.ConsumerConfig) error {
	filter := c.FilterSubjects
	if c.FilterSubject != "" {
		filter = []string{c.FilterSubject}
	}
	want := slices.Sorted(slices.Values(r.options.Subjects))
	switch {
	case c.DeliverSubject != "":
		return r.systemError(errors.New("it is a push consumer, and a pull consumer is needed: name another one, which is made"))
	case c.AckPolicy != jetstream.AckExplicitPolicy:
		return r.systemError(fmt.Errorf("its ack policy is %s, and explicit is needed: name another one, which is made", c.AckPolicy))
	case c.MaxDeliver > 0:
		return r.systemError(fmt.Errorf("it gives a message up after %d deliveries: set its max-deliver to -1", c.MaxDeliver))
	case len(want) > 0 && !slices.Equal(want, slices.Sorted(slices.Values(filter))):
		return r.systemError(fmt.Errorf("its filter is %q, and subjects says %q: name another consumer, which is made, or edit its filter", filter, want))
	}
	return nil
}

// systemError is what somebody has to see to.
func (r *reader) systemError(err error) error {
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: stream %s, consumer %s: %w", r.servers, r.options.Stream, r.options.Consumer, err))
}

// failure of what was asked of JetStream.
func (r *reader) failure(err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return err
	}
	r.mu.Lock()
	denied := r.denied
	r.mu.Unlock()
	var api *jetstream.APIError
	switch {
	case denied != nil:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("%s: stream %s: %w", r.servers, r.options.Stream, denied))
	case errors.As(err, &api), errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		return r.systemError(err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, client.ErrNoResponders):
		return r.systemError(errors.New("the server has no JetStream for this user"))
	}
	return r.unavailable(err)
}

// take messages in until the connection ends.
func (r *reader) take() {
	for {
		r.mu.Lock()
		for r.held > maxHeld {
			r.room.Wait()
		}
		r.mu.Unlock()
		m, err := r.iterator.Next()
		if err != nil {
			// A consumer that is gone says so, or is silent: why is found out by asking.
			if errors.Is(err, jetstream.ErrNoHeartbeat) {
				ctx, cancel := context.WithTimeout(context.Background(), setupTimeout) //nolint:forbidigo // it ends with the session
				if _, asked := r.consumer(ctx); asked != nil {
					err = asked
				}
				cancel()
			}
			if !errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				r.fail(r.failure(err))
			}
			<-r.end
			return
		}
		r.hold(m)
		select {
		case r.messages <- m:
		case <-r.end: // it is given back
			return
		}
	}
}

// work until the session is over.
func (r *reader) work(ctx context.Context) error {
	settler := intake.Settler[jetstream.Msg]{
		Bus: r.bus, Lost: r.lost, Cause: func() error { return r.cause }, Refuse: r.refuse, Acknowledge: r.acknowledge, Recovered: r.recovered,
	}
	changed := r.rt.Secrets.Changed()
	if r.rt.Secrets.Version() != r.version {
		return intake.ErrRestart
	}
	for {
		select { // first of all what ends the session: a stream may never be empty
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			return intake.ErrRestart
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			return intake.ErrRestart
		case <-r.lost:
			return r.cause
		case m := <-r.messages:
			if err := settler.Settle(ctx, r.collect(m)); err != nil {
				return err
			}
		}
	}
}

// item is a delivery and its message, or why there can be none.
type item = intake.Item[jetstream.Msg]

// collect what has arrived.
func (r *reader) collect(m jetstream.Msg) []item {
	batch := make([]item, 0, 16)
	for size := 0; ; {
		i := item{Delivery: m}
		meta, err := m.Metadata()
		if err == nil {
			i.Message, err = r.receiver.message(m.Subject(), m.Headers(), m.Data(), place{meta.Sequence.Stream, meta.Timestamp})
		}
		i.Err = err
		batch = append(batch, i)
		if size += len(m.Data()); len(batch) == maxBatch || size >= maxBatchBytes {
			return batch
		}
		select {
		case m = <-r.messages:
		default:
			return batch
		}
	}
}

// acknowledge messages, each.
func (r *reader) acknowledge(batch []item) error {
	for i := range batch {
		r.settled(batch[i].Delivery)
		if err := batch[i].Delivery.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return err
		}
		batch[i] = item{}
	}
	return nil
}

func (r *reader) recovered() {
	if r.stuck {
		r.stuck = false
		r.state.System(nil)
	}
}

// refuse a message that the bus can never take: to the dead letters of the options or, where they name none, the source stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	meta, err := i.Delivery.Metadata()
	if err != nil {
		return err
	}
	what := fmt.Errorf("message %d of %s cannot be taken", meta.Sequence.Stream, i.Delivery.Subject())
	if r.options.DeadLetter == "" {
		r.stuck = true
		return intake.HeldError{Err: r.systemError(fmt.Errorf("%w, and the source waits at it: %w (remove it from the stream, or set deadLetter)", what, i.Err))}
	}
	header := client.Header{}
	for name, values := range i.Delivery.Headers() {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") {
			header[name] = values
		}
	}
	header["Metip-Dead-Reason"] = []string{oneline.Excerpt(i.Err.Error(), maxReason)}
	header["Metip-Dead-Subject"] = []string{i.Delivery.Subject()}
	id := fmt.Sprintf("%s/%d/%d", r.options.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano())
	header[jetstream.MsgIDHeader] = []string{id}
	js, err := jetstream.New(r.nc)
	if err == nil {
		inner, cancel := intake.Outlive(ctx)
		defer cancel()
		_, err = js.PublishMsg(inner, &client.Msg{Subject: r.options.DeadLetter, Header: header, Data: i.Delivery.Data()})
	}
	if err != nil {
		r.stuck = true
		return r.systemError(fmt.Errorf("%w: %w; and neither can deadLetter, which a stream has to take: %w", what, i.Err, err))
	}
	r.rt.Log.Warn("a message was put to the dead letters of its stream", "stream", r.options.Stream, "sequence", meta.Sequence.Stream, "error", i.Err)
	r.recovered()
	return nil
}
