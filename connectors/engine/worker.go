package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// limitAttempts bounds how often a step that runs out of its time or memory is tried, where the Route sets no bound.
const limitAttempts = 5

// work through the queue until it is empty or the circuit opens.
func (d *destination) work() {
	batch := make([]*held, 0, d.maxBatch)
	for {
		d.mu.Lock()
		if len(d.queue) == 0 || d.stopping || d.circuit.open() || d.gated {
			d.workers--
			d.idle.Broadcast()
			d.mu.Unlock()
			return
		}
		batch = d.throttle(d.nextBatch(batch[:0]))
		if len(batch) == 0 { // what is queued has to wait
			d.workers--
			d.idle.Broadcast()
			d.mu.Unlock()
			return
		}
		if len(d.queue) > 0 {
			d.startWorker()
		}
		d.mu.Unlock()
		d.process(batch)
	}
}

// nextBatch takes what one worker writes at a time. The caller holds the lock.
func (d *destination) nextBatch(batch []*held) []*held {
	if d.lane != nil {
		return d.lane.nextBatch(batch)
	}
	size := 0
	for i, h := range d.queue {
		if i == d.maxBatch || i > 0 && (h.alone || size+len(h.in.Data) > maxWriteBytes) {
			break
		}
		size += len(h.in.Data)
		batch = append(batch, h)
		if h.alone {
			break
		}
	}
	rest := copy(d.queue, d.queue[len(batch):])
	clear(d.queue[rest:])
	d.queue = d.queue[:rest]
	return batch
}

// process a batch: steps, then the system, then what becomes of each message.
func (d *destination) process(batch []*held) {
	if d.lane != nil && !d.lane.holds(batch) {
		return
	}
	granted := len(batch)
	permit := d.permitFor(batch)
	defer permit.end()
	ready := d.prepareAll(batch)
	if d.split != nil {
		d.unused(granted) // each part asks for itself
		d.deliverParts(ready)
		return
	}
	d.unused(granted - len(ready))
	if len(ready) == 0 {
		return
	}
	d.settlePermit(permit, ready)
	if n := d.awaitClaims(ready); n > 0 {
		defer d.bodies.give(n)
	}
	ctx := d.sink.deliver
	if d.lane != nil {
		if !d.lane.holds(ready) {
			return
		}
		ctx = ready[0].place.tenure.ctx
	}
	deliveries := make([]*sdk.Delivery, len(ready))
	for i, h := range ready {
		h.delivery.Attempt, h.batched = h.tried+1, len(ready) > 1
		deliveries[i] = &h.delivery
	}
	spans := d.beginSpans(ready)
	begun := time.Now()
	results, panicked := d.write(ctx, deliveries)
	endSpans(spans, results, panicked)
	d.metrics.write.Observe(time.Since(begun).Seconds())
	d.metrics.batch.Observe(float64(len(ready)))
	if d.lane != nil && d.lane.lapsed(ready) {
		return
	}
	if panicked != nil && len(ready) > 1 {
		d.separate(ready)
		return
	}
	for i, h := range ready {
		switch {
		case panicked != nil:
			d.bury(h, &deadLetter{reason: contract.DeadReasonRejected, err: panicked})
		case len(results) != len(ready):
			d.retry(h, fmt.Errorf("the system answered %d of %d messages", len(results), len(ready)))
		default:
			d.outcome(h, results[i])
		}
	}
}

// prepareAll messages of a batch, and give those that are ready.
func (d *destination) prepareAll(batch []*held) []*held {
	if d.enriches && len(batch) > 1 {
		return d.prepareTogether(batch)
	}
	ready := batch[:0]
	for _, h := range batch {
		if d.prepare(h) {
			ready = append(ready, h)
		}
	}
	return ready
}

// write calls the system. A panic is returned, not passed on.
func (d *destination) write(ctx context.Context, deliveries []*sdk.Delivery) (results []error, panicked error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(d.route.Delivery.Timeout))
	defer cancel()
	d.asked.Add(1)
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Errorf("the connector panicked: %v", r)
			d.log.Error("the system's operation panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	return d.op.Write(ctx, deliveries), nil
}

// separate the messages of a batch that panicked, so that the one that is to blame is found.
func (d *destination) separate(batch []*held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range batch {
		h.alone = true
	}
	d.requeue(batch...)
}

// requeue messages that are still held. The caller holds the lock.
func (d *destination) requeue(batch ...*held) {
	for _, h := range batch {
		switch {
		case d.stopping:
			d.giveBack(h)
		case d.lane != nil:
			d.lane.back(h, time.Time{})
		default:
			h.forget()
			d.queue = append(d.queue, h)
		}
	}
}

// prepare a message for the system: envelope, filters, transforms. It is false when the message has been dealt with.
func (d *destination) prepare(h *held) bool {
	if h.dead != nil {
		d.bury(h, h.dead)
		return false
	}
	if n := int(d.route.Delivery.Attempts); n > 0 && h.tried >= n {
		d.bury(h, &deadLetter{reason: contract.DeadReasonAttemptsExhausted, err: fmt.Errorf("it was delivered %d times without an outcome", h.delivered-1)})
		return false
	}
	if h.decoded {
		return !d.expired(h)
	}
	if err := decode(h.in, &h.message); err != nil {
		d.bury(h, &deadLetter{reason: contract.DeadReasonMalformed, err: err})
		return false
	}
	if err := d.setClaim(h); err != nil {
		d.bury(h, &deadLetter{reason: contract.DeadReasonMalformed, err: err})
		return false
	}
	h.message.Stored = time.Unix(0, h.at)
	if h.message.History != "" {
		h.message.History = contract.AppendHistory(h.message.History, d.route.Name+"/"+d.route.Destination, time.Now())
	}
	if h.permit != nil {
		h.message.BeforeBody(h.permit.begin)
		h.message.AfterBody(h.permit.know)
	}
	if err := d.setExpiry(h); err != nil {
		d.bury(h, &deadLetter{reason: contract.DeadReasonMalformed, err: err})
		return false
	}
	pass, failed := d.mediate(h)
	if d.enriches {
		if failed != nil && (isEnrichment(failed.err) || d.cancelled(failed.err)) {
			d.notEnriched(h, failed.err)
			return false
		}
		d.enriched()
	}
	var delayed *steps.NotBefore
	switch {
	case failed != nil && errors.As(failed.err, &delayed):
		d.later(h, time.Until(delayed.At))
		return false
	case failed != nil && errors.Is(failed.err, steps.ErrLimit) && h.tried+1 < max(limitAttempts, int(d.route.Delivery.Attempts)):
		if !d.expired(h) {
			d.retry(h, failed.err)
		}
		return false
	case failed != nil:
		d.bury(h, failed)
		return false
	case !pass:
		d.metrics.filtered.Inc()
		d.settled(h, ackOK)
		return false
	}
	if why := d.takesClaim(h); why != nil {
		if !d.expired(h) {
			d.bury(h, why)
		}
		return false
	}
	h.decoded = true
	from := originOf(h)
	h.delivery = sdk.Delivery{Message: &h.message, MessageID: from.messageID, Durable: d.name, Sequence: from.sequence}
	if h.delivery.MessageID == "" {
		h.delivery.MessageID = fmt.Sprintf("%s/%d", d.route.Stream, from.sequence)
	}
	// Again, for a step may have given it another end.
	if err := d.setExpiry(h); err != nil {
		d.bury(h, &deadLetter{reason: contract.DeadReasonMalformed, err: err})
		return false
	}
	return !d.expired(h)
}

// mediate runs the Route's steps. It tells whether the message passes, or why it fails.
func (d *destination) mediate(h *held) (pass bool, failed *deadLetter) {
	m := &h.message
	pass, n, err := steps.Run(d.sink.deliver, d.steps, m)
	if err == nil {
		return pass, nil
	}
	if delayed := (*steps.NotBefore)(nil); errors.As(err, &delayed) {
		return false, &deadLetter{err: delayed}
	}
	name, reason := d.route.Steps[n].Name, contract.DeadReasonStepFailed
	if isEnrichment(err) {
		return false, &deadLetter{step: name, err: fmt.Errorf("%s: %w", name, err)}
	}
	if errors.Is(err, sdk.ErrTooLarge) {
		reason = contract.DeadReasonTooLarge
	} else if _, bodyErr := m.Body(); m.Claim == nil && bodyErr != nil {
		reason, err = contract.DeadReasonMalformed, bodyErr
	}
	return false, &deadLetter{reason: reason, step: name, err: fmt.Errorf("%s: %w", name, err)}
}
