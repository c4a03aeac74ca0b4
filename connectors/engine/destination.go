package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// Bounds of one destination in one pod.
const (
	// maxHeld bounds how many messages are held: pulled and not settled. A destination holds two rounds of what its workers write, or what
	// it settles in a quarter of a second if that is more: enough not to wait for the broker, and little that another pod could have done.
	maxHeld = 1024
	// workers that write at the same time: of single messages, and of batches.
	singleWorkers, batchWorkers = 32, 4
	// defaultAckWait until the broker has told the durable's own.
	defaultAckWait = 30 * time.Second
)

// destination consumes one durable and delivers to one operation of the sink. Each has a subscription, workers and a circuit of its
// own, so that a slow one never holds up another.
type destination struct {
	sink  *sinkRunner
	route contract.Route
	// name is the destination's for good: idempotence keys hold it. durable is the consumer's that is read.
	name, durable string
	// lane is nil where the order is not kept.
	lane  *lane
	steps []steps.Step
	// split is nil where messages are delivered whole; steps are then those before it.
	split   *splitter
	op      sdk.Operation
	log     *slog.Logger
	metrics *destinationMetrics

	maxBatch, maxWorkers, minHeld int

	mu sync.Mutex
	// capacity is how many messages may be held; settledCount counts those settled since it was last set.
	capacity, settledCount int
	// held are all messages that were pulled and are not settled, by identity; queue are those that wait for a worker.
	held    map[identity]*held
	queue   []*held
	workers int
	idle    *sync.Cond
	// stopping: nothing more is pulled or begun.
	stopping bool
	pull     puller
	circuit  circuit
	memory   memory
	ackWait  time.Duration
	// limits of a throttled destination; gated: no attempt may be made for a while.
	limits []limiter
	gated  bool
	// bytes and bodies are what it may hold, and what it may have decoded.
	bytes, bodies *share
	// opaque: the operation does not look into bodies. enriches: some step asks a service.
	opaque, enriches bool
	// streams: the operation delivers messages with a claim.
	streams bool
	// asked counts the calls of the system.
	asked atomic.Int64
	// problems of this destination alone, for the report.
	consumer, deadLetters problem
	// invalid: the Route cannot run at all.
	invalid error
}

// problem is an error and since when.
type problem struct {
	err    error
	reason string
	since  time.Time
}

// set the problem, and say whether that is a change worth a report.
func (p *problem) set(reason string, err error) bool {
	changed := (p.err == nil) != (err == nil) || p.reason != reason
	if changed {
		p.since = time.Now()
	}
	p.err, p.reason = err, reason
	return changed
}

// held is one message in the pod's hands.
type held struct {
	identity
	in        *nats.Msg
	message   sdk.Message
	delivery  sdk.Delivery
	delivered uint64
	// size as the broker counts it.
	size int64
	// touched is when the broker last heard of it.
	touched time.Time
	decoded bool
	// tried counts the attempts before this one.
	tried int
	// seen is the count of successes at its last attempt that failed because the system was unavailable; -1 before any.
	seen int64
	// alone: not in a batch with others, because such a batch panicked or was not answered. batched: its last attempt was in one.
	alone, batched bool
	// expires is when it is no longer worth delivering, in Unix nanoseconds; 0 for never.
	expires int64
	// dead is why it goes to the dead letters, once that is decided.
	dead *deadLetter
	// place in its lane; nil where the order is not kept.
	place *place
	// permit of its batch to decode its body; nil where it needs none.
	permit *permit
	// progress of its parts; nil where it is not split.
	progress *progress
}

func newDestination(s *sinkRunner, r contract.Route) *destination {
	d := &destination{
		sink: s, route: r, log: s.log.With("route", r.Name, "destination", r.Destination), metrics: s.metrics.destination(r.Name, r.Destination),
		name:    contract.DurableName(s.config.Connector.Namespace, r.Name, r.Destination),
		durable: r.Durable,
		held:    map[identity]*held{}, ackWait: defaultAckWait, memory: newMemory(),
	}
	d.idle = sync.NewCond(&d.mu)
	d.bytes, d.bodies = s.memory.join(d.again), s.bodies.join(func() {})
	d.circuit.destination = d
	if d.invalid = d.compile(); d.invalid != nil {
		d.log.Error("the route cannot run", "error", d.invalid)
		return d
	}
	d.maxBatch = max(1, d.op.MaxBatch())
	d.maxWorkers = singleWorkers
	if d.maxBatch > 1 {
		d.maxWorkers = batchWorkers
	}
	d.minHeld = min(2*(d.maxBatch+d.maxWorkers), maxHeld)
	d.capacity = d.minHeld
	return d
}

// again asks for messages, when there is memory for them again.
func (d *destination) again() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.request()
}

func (d *destination) compile() error {
	for _, s := range d.route.Steps {
		c, err := steps.Compile(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		d.steps = append(d.steps, d.enrichStep(&s, c))
		d.memory.delays = d.memory.delays || s.Delay != nil
	}
	if err := d.splitSteps(); err != nil {
		return err
	}
	d.limits = limitersOf(&d.route, d.route.Delivery.Lanes)
	d.pull.pin.wanted = len(d.limits) > 0 && d.route.Delivery.Lanes == 0
	operation := func() (sdk.Operation, error) { return d.sink.sink.Operation(d.route.Operation) }
	if relay, ok := d.sink.sink.(*relaySink); ok {
		operation = func() (sdk.Operation, error) { return relay.operation(d.route) }
	}
	op, err := operation()
	if err != nil {
		return fmt.Errorf("operation: %w", err)
	}
	d.op = op
	opaque, ok := op.(sdk.Opaque)
	d.opaque = ok && opaque.Opaque()
	streaming, ok := op.(sdk.Streaming)
	d.streams = ok && streaming.Streams() && d.split == nil
	return nil
}

// run consumes until the context ends, and then gives back what was not begun, and waits for what was.
func (d *destination) run(ctx, deliver context.Context) {
	if d.invalid != nil {
		<-ctx.Done()
		return
	}
	if d.lane != nil {
		d.lane.run(ctx, deliver)
		return
	}
	d.pull.start(ctx, d)
	touch := time.NewTicker(time.Second)
	defer touch.Stop()
	stop := context.AfterFunc(ctx, d.drain)
	defer stop()
	for {
		select {
		case <-touch.C:
			d.touch(time.Now())
			d.pull.check(time.Now())
		case <-ctx.Done():
			d.finish(deliver)
			return
		}
	}
}

// touch tells the broker, once a second, of every message that is held for long that it is in good hands, and keeps the pull going.
func (d *destination) touch(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.held {
		if now.Sub(h.touched) >= d.ackWait/3 {
			h.touched = now
			_ = d.sink.conn.nc.Publish(h.in.Reply, ackProgress)
		}
	}
	d.capacity = max(d.minHeld, min(d.settledCount/4, maxHeld))
	d.settledCount = 0
	d.request()
	d.keepPin(now)
}

// drain stops pulling and gives what was not begun back to the broker, for another pod.
func (d *destination) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	for _, h := range d.queue {
		d.giveBack(h)
	}
	d.queue = nil
	d.circuit.wake()
	d.idle.Broadcast()
}

// giveBack a message that was not tried, for another pod: not before this pod's own pull has ended, or it would come back here. The caller
// holds the lock.
func (d *destination) giveBack(h *held) {
	if d.lane != nil {
		d.lane.drop(h)
		return
	}
	d.release(h)
	wait := max(0, time.Until(d.pull.until))
	if wait > 0 {
		wait += pullMargin
	}
	_ = d.sink.conn.nc.Publish(h.in.Reply, nakAfter(wait))
}

// finish waits for the workers, no longer than deliver lasts, and for pulls that are still open, so that nothing is sent to a pod that is gone.
func (d *destination) finish(deliver context.Context) {
	stop := context.AfterFunc(deliver, func() {
		d.mu.Lock()
		d.idle.Broadcast()
		d.mu.Unlock()
	})
	defer stop()
	d.mu.Lock()
	for d.workers > 0 && deliver.Err() == nil {
		d.idle.Wait()
	}
	for _, h := range d.held {
		d.giveBack(h)
	}
	d.mu.Unlock()
	d.pull.finish()
}

// release what is held. The caller holds the lock.
func (d *destination) release(h *held) {
	if d.held[h.identity] == h {
		delete(d.held, h.identity)
		d.bytes.give(h.size)
	}
}

// take a message that came from the broker.
func (d *destination) take(in *nats.Msg) {
	if d.lane != nil {
		d.lane.take(in)
		return
	}
	meta, err := parseReply(in.Reply)
	d.mu.Lock()
	defer d.mu.Unlock()
	size := d.pull.received(in)
	d.pull.pin.taken(in)
	d.pull.working()
	defer d.request()
	if err != nil {
		d.log.Error("a message without an address to acknowledge", "subject", in.Subject, "error", err)
		d.bytes.give(size)
		return
	}
	if isMark(in.Subject) {
		d.bytes.give(size)
		_ = d.sink.conn.nc.Publish(in.Reply, ackOK)
		return
	}
	if meta.delivered > 1 {
		d.metrics.redelivered.Inc()
		if d.memory.settled(meta.identity) {
			// The acknowledgement was lost, the delivery was not.
			d.bytes.give(size)
			_ = d.sink.conn.nc.Publish(in.Reply, ackOK)
			return
		}
		if h := d.held[meta.identity]; h != nil {
			h.in.Reply, h.touched = in.Reply, time.Now()
			d.bytes.give(size)
			return
		}
	}
	h := &held{in: in, identity: meta.identity, delivered: meta.delivered, touched: time.Now(), seen: -1, size: size}
	d.held[h.identity] = h
	d.memory.recall(h)
	if d.stopping {
		d.giveBack(h)
		return
	}
	d.queue = append(d.queue, h)
	d.startWorker()
}

// startWorker if there is work, room for a worker, and a system that is believed to work. The caller holds the lock.
func (d *destination) startWorker() {
	if len(d.queue) == 0 || d.stopping {
		return
	}
	if d.circuit.open() {
		d.circuit.wake()
		return
	}
	if d.workers < d.maxWorkers && !d.gated && (d.lane == nil || d.lane.ready()) {
		d.workers++
		go d.work()
	}
}

// state of this destination for the report: nil while it delivers.
func (d *destination) state() (problem, bool) {
	if d.invalid != nil {
		return problem{d.invalid, contract.ReasonSystemError, d.sink.started}, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range []problem{d.circuit.problem, d.deadLetters, d.consumer} {
		if p.err != nil {
			return p, true
		}
	}
	return problem{}, false
}
