package engine

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/steps"
)

// newLanes of an ordered destination. They share what is compiled, and their part of the pod's memory.
func newLanes(s *sinkRunner, r contract.Route) []*destination {
	first := newDestination(s, r)
	if r.Delivery.Lanes == 0 || first.invalid != nil {
		return []*destination{first}
	}
	var key *steps.Key
	if text := r.Delivery.Key; text != "" {
		if key, first.invalid = steps.CompileKey(text); first.invalid != nil {
			first.log.Error("the route cannot run", "error", first.invalid)
			return []*destination{first}
		}
	}
	batch, workers := min(first.maxBatch, contract.LaneWindow), first.maxWorkers
	switch {
	case r.Delivery.Order == contract.OrderStrict:
		batch, workers = 1, 1
	case r.Delivery.Lanes > 1:
		workers = max(1, 2*workers/r.Delivery.Lanes)
	}
	all := make([]*destination, r.Delivery.Lanes)
	for i := range all {
		d := first
		if i > 0 {
			d = &destination{
				sink: s, route: r, log: first.log, metrics: first.metrics, name: first.name, steps: first.steps, split: first.split, op: first.op, opaque: first.opaque, enriches: first.enriches,
				bytes: first.bytes, bodies: first.bodies, held: map[identity]*held{}, ackWait: defaultAckWait, memory: newMemory(),
			}
			d.idle = sync.NewCond(&d.mu)
			d.circuit.destination = d
			d.limits, d.memory.delays = limitersOf(&r, r.Delivery.Lanes), first.memory.delays
		}
		d.durable = contract.LaneName(r.Durable, i)
		d.maxBatch, d.maxWorkers = batch, workers
		d.memory.remember = laneSpan + contract.LaneWindow
		d.lane = newLane(d, i)
		d.lane.key = key
		all[i] = d
	}
	first.bytes.wake = func() {
		for _, d := range all {
			d.again()
		}
	}
	return all
}

// take a message that came from the broker.
func (l *lane) take(in *nats.Msg) {
	d := l.d
	meta, err := parseReply(in.Reply)
	key := l.keyOf(in)
	pin := first(in.Header, headerPinID)
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.Sub != d.pull.sub || d.stopping {
		return
	}
	size := d.pull.received(in)
	d.pull.working()
	if !l.expected(meta, err, pin) {
		d.bytes.give(size)
		return
	}
	defer d.request()
	h := d.held[meta.identity]
	settled := isMark(in.Subject)
	if meta.delivered > 1 {
		d.metrics.redelivered.Inc()
	}
	if !settled && h == nil {
		// Either the acknowledgement was lost, or the lane has begun anew.
		settled = d.memory.settled(meta.identity)
	}
	switch {
	case settled:
		d.bytes.give(size)
		_ = d.sink.conn.nc.Publish(in.Reply, ackOK)
	case h != nil:
		d.bytes.give(size)
		h.in.Reply, h.touched, h.place.consumer = in.Reply, time.Now(), meta.consumer
	default:
		h = &held{
			in: in, identity: meta.identity, delivered: meta.delivered, touched: time.Now(), seen: -1, size: size,
			place: &place{key: key, tenure: l.tenure, consumer: meta.consumer},
		}
		d.held[h.identity] = h
		d.memory.recall(h)
		d.queue = append(d.queue, h)
		d.startWorker()
	}
}

// expected tells whether a message is the next one of this pod's lane; otherwise it does what follows from that. The caller holds the lock.
func (l *lane) expected(meta replyMeta, err error, pin string) bool {
	switch {
	case err != nil:
		l.d.log.Error("a message without an address to acknowledge", "error", err)
		if l.phase == laneActive {
			l.restart("a message cannot be acknowledged")
		}
	case pin == "":
		l.d.pull.failed(errNoLane)
	case l.phase == laneStandby || pin != l.pin:
		l.pinned(pin)
	case l.phase == laneActive && meta.consumer != l.expect:
		l.restart("a message is missing")
	case l.phase == laneActive:
		l.expect++
		return true
	}
	return false
}

// keyOf a message.
func (l *lane) keyOf(in *nats.Msg) string {
	d := l.d
	switch {
	case d.route.Delivery.Order == contract.OrderStrict:
		return ""
	case l.key != nil:
		return l.computedKey(in)
	}
	if key := first(in.Header, contract.HeaderPartitionKey); key != "" {
		return key
	}
	return first(in.Header, contract.HeaderID)
}
