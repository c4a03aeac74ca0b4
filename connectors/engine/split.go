package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// A destination with a split delivers the parts of each message instead of the message: in their order, each with an id of its own that is the
// same for every attempt. The message is acknowledged once every part is confirmed or filtered. When a part fails in a way that may pass, the
// message is tried again, without the parts that are done; this pod remembers them, another one begins anew. A part that fails for good sends
// the message to the dead letters, after all other parts have been tried. Where the order is kept, no part overtakes one that is to be
// tried again.

// splitter is the split of a destination's Route.
type splitter struct {
	*steps.Split
	// number of the step; after are the steps for each part.
	number int
	after  []steps.Step
}

// splitSteps takes a Route's steps apart where it splits.
func (d *destination) splitSteps() error {
	for n, s := range d.steps {
		split, ok := s.(*steps.Split)
		switch {
		case !ok:
		case d.split != nil:
			return fmt.Errorf("%s: the Route has split the message already", d.route.Steps[n].Name)
		default:
			d.split = &splitter{Split: split, number: n, after: d.steps[n+1:]}
		}
	}
	if d.split == nil {
		return nil
	}
	for _, s := range d.route.Steps[d.split.number:] {
		if s.Delay != nil {
			return fmt.Errorf("%s: a delay must stand before the split", s.Name)
		}
	}
	d.steps = d.steps[:d.split.number]
	return nil
}

// progress of a message that is split: what becomes of its parts, over all attempts. What is done is neither made nor delivered again.
type progress struct {
	count, left int
	done        []uint64
	// delivered: the system has confirmed a part.
	delivered bool
	// failed is the first part that failed for good, -1 for none; failures how many did, and dead why the first.
	failed, failures int
	dead             *deadLetter
}

func newProgress(count int) *progress {
	return &progress{count: count, left: count, done: make([]uint64, (count+63)/64), failed: -1}
}

func (p *progress) isDone(i int) bool { return p.done[i/64]&(1<<(i%64)) != 0 }

func (p *progress) finish(i int) {
	if !p.isDone(i) {
		p.done[i/64] |= 1 << (i % 64)
		p.left--
	}
}

// next part that is not done, from one on; count where there is none.
func (p *progress) next(i int) int {
	for i < p.count && p.isDone(i) {
		i++
	}
	return i
}

// fail a part for good.
func (p *progress) fail(i int, why *deadLetter) {
	p.finish(i)
	p.failures++
	if p.failed < 0 || i < p.failed {
		p.failed, p.dead = i, why
	}
}

// first part that a dead letter speaks of.
func (p *progress) first() int {
	if p.failed >= 0 {
		return p.failed
	}
	return p.next(0)
}

// attempt at the parts of one message.
type attempt struct {
	*held
	parts *steps.Parts
	// at is the part that comes next. last: there is no further attempt.
	at   int
	last bool
	// passing is why a part has to be tried again, away that the system did not work, and over that no further part is to be begun now.
	passing, away error
	over          bool
}

// part on its way.
type part struct {
	of       *attempt
	index    int
	delivery sdk.Delivery
}

// deliverParts of messages that have come as far as the split.
func (d *destination) deliverParts(ready []*held) {
	var attempts []*attempt
	for _, h := range ready {
		if a := d.makeParts(h); a != nil {
			attempts = append(attempts, a)
		}
	}
	if len(attempts) == 0 {
		return
	}
	messages := make([]*held, len(attempts))
	for i, a := range attempts {
		messages[i] = a.held
	}
	spans := d.beginSpans(messages)
	lost := d.writeParts(attempts, messages)
	results := make([]error, len(attempts))
	for i, a := range attempts {
		results[i] = a.result()
	}
	endSpans(spans, results, nil)
	if lost {
		return
	}
	for _, a := range attempts {
		d.conclude(a)
	}
}

// makeParts of a message. It is nil when the message has been dealt with.
func (d *destination) makeParts(h *held) *attempt {
	parts, err := d.split.Parts(&h.message)
	if err != nil {
		name, reason := d.route.Steps[d.split.number].Name, contract.DeadReasonStepFailed
		if _, bodyErr := h.message.Body(); bodyErr != nil {
			reason, err = contract.DeadReasonMalformed, bodyErr
		}
		d.bury(h, &deadLetter{reason: reason, step: name, err: fmt.Errorf("%s: %w", name, err)})
		return nil
	}
	h.message.SetData(h.message.Data) // what was decoded is not needed any more
	if parts.Count() == 0 {
		d.metrics.filtered.Inc()
		d.settled(h, ackOK)
		return nil
	}
	if h.progress == nil || h.progress.count != parts.Count() {
		h.progress = newProgress(parts.Count())
	}
	h.delivery.Attempt = h.tried + 1
	attempts := int(d.route.Delivery.Attempts)
	return &attempt{held: h, parts: parts, at: h.progress.next(0), last: attempts > 0 && h.tried+1 >= attempts}
}

// writeParts until all attempts are over. It is true when the messages are no longer this pod's.
func (d *destination) writeParts(attempts []*attempt, messages []*held) (lost bool) {
	ctx := d.sink.deliver
	if d.lane != nil {
		ctx = messages[0].place.tenure.ctx
	}
	for ctx.Err() == nil {
		chunk := d.nextParts(ctx, attempts)
		if len(chunk) == 0 {
			break
		}
		if d.lane != nil && !d.lane.holds(messages) {
			return true
		}
		d.writeChunk(ctx, chunk)
		if d.lane != nil && d.lane.lapsed(messages) {
			return true
		}
		for _, p := range chunk {
			if p.of.away != nil { // nor will it work for the others
				for _, a := range attempts {
					a.over = true
				}
			}
		}
	}
	return d.lane != nil && d.lane.lapsed(messages)
}

// nextParts that are written at a time: as many as the system takes, and as often as a throttle lets them.
func (d *destination) nextParts(ctx context.Context, attempts []*attempt) []*part {
	var chunk []*part
	size := 0
	for _, a := range attempts {
		for !a.over && a.at < a.progress.count && len(chunk) < d.maxBatch {
			p := d.preparePart(a)
			if p == nil {
				continue
			}
			if size += len(p.delivery.Data); len(chunk) > 0 && size > maxWriteBytes {
				return chunk // it is made again: steps change nothing but what they make
			}
			if !d.awaitGrant(ctx) {
				return chunk
			}
			a.at = a.progress.next(a.at + 1)
			chunk = append(chunk, p)
		}
	}
	return chunk
}

// preparePart runs the steps after the split on the next part. It is nil when there is nothing to deliver of it.
func (d *destination) preparePart(a *attempt) *part {
	i := a.at
	m := a.parts.Part(&a.message, i)
	pass, n, err := steps.Run(d.sink.deliver, d.split.after, m)
	if d.enriches && !isEnrichment(err) {
		d.enriched()
	}
	if err == nil && pass {
		return &part{of: a, index: i, delivery: sdk.Delivery{
			Message: m, MessageID: steps.PartID(a.delivery.MessageID, i), Durable: d.name, Sequence: a.delivery.Sequence, Part: i, Attempt: a.tried + 1,
		}}
	}
	switch {
	case err == nil:
		d.metrics.parts.WithLabelValues("filtered").Inc()
		a.progress.finish(i)
	case isEnrichment(err) || d.cancelled(err):
		a.notEnriched(d, i, fmt.Errorf("%s: %w", d.route.Steps[d.split.number+1+n].Name, err))
	case errors.Is(err, steps.ErrLimit) && a.tried+1 < max(limitAttempts, int(d.route.Delivery.Attempts)):
		a.again(d, i, err)
	default:
		name := d.route.Steps[d.split.number+1+n].Name
		a.fail(d, i, &deadLetter{reason: contract.DeadReasonStepFailed, step: name, err: fmt.Errorf("%s: %w", name, err)})
	}
	a.at = a.progress.next(i + 1)
	return nil
}

// again: a part has failed, and is to be tried again. At the last attempt it has failed for good. Where the order is kept, those after it wait.
func (a *attempt) again(d *destination, i int, err error) {
	if a.last {
		a.fail(d, i, &deadLetter{reason: contract.DeadReasonAttemptsExhausted, err: err})
		return
	}
	if a.passing == nil {
		a.passing = fmt.Errorf("part %d of %d: %w", i, a.progress.count, err)
	}
	a.over = a.over || d.lane != nil
}

// fail a part for good.
func (a *attempt) fail(d *destination, i int, why *deadLetter) {
	d.metrics.parts.WithLabelValues("failed").Inc()
	a.progress.fail(i, why)
}

// awaitGrant waits until the throttle, where there is one, lets one more attempt be made.
func (d *destination) awaitGrant(ctx context.Context) bool {
	if len(d.limits) == 0 {
		return true
	}
	for {
		d.mu.Lock()
		now, wait := time.Now(), time.Duration(0)
		for i := range d.limits {
			wait = max(wait, d.limits[i].wait(now))
		}
		if wait == 0 {
			for i := range d.limits {
				d.limits[i].take(now)
			}
		}
		d.mu.Unlock()
		if wait == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// writeChunk calls the system, and notes what becomes of each part.
func (d *destination) writeChunk(ctx context.Context, chunk []*part) {
	deliveries := make([]*sdk.Delivery, len(chunk))
	for i, p := range chunk {
		deliveries[i] = &p.delivery
	}
	begun := time.Now()
	results, panicked := d.write(ctx, deliveries)
	d.metrics.write.Observe(time.Since(begun).Seconds())
	d.metrics.batch.Observe(float64(len(chunk)))
	if len(chunk) > 1 && (panicked != nil || d.mustSeparate(results)) {
		// Which one is to blame only they themselves can tell, each alone.
		for _, p := range chunk {
			if !p.of.over && ctx.Err() == nil {
				d.writeChunk(ctx, []*part{p})
			}
		}
		return
	}
	for i, p := range chunk {
		switch {
		case panicked != nil:
			p.of.fail(d, p.index, &deadLetter{reason: contract.DeadReasonRejected, err: panicked})
		case len(results) != len(chunk):
			p.of.again(d, p.index, fmt.Errorf("the system answered %d of %d messages", len(results), len(chunk)))
		default:
			d.partOutcome(p, results[i])
		}
	}
}

// mustSeparate: a batch was not answered in time, and what becomes of its parts depends on which one is slow.
func (d *destination) mustSeparate(results []error) bool {
	if o := d.route.Delivery.OnTimeout; o != contract.OnTimeoutRetry && o != contract.OnTimeoutDeadLetter {
		return false
	}
	for _, err := range results {
		if isTimeout(err) {
			return true
		}
	}
	return false
}

// isTimeout tells an attempt that was not answered in time from what the system says.
func isTimeout(err error) bool {
	var unavailable *sdk.UnavailableError
	return errors.Is(err, context.DeadlineExceeded) && !sdk.IsPermanent(err) && !errors.As(err, &unavailable)
}

// partOutcome as the system answered.
func (d *destination) partOutcome(p *part, err error) {
	a, unavailable := p.of, (*sdk.UnavailableError)(nil)
	switch {
	case err == nil:
		d.metrics.parts.WithLabelValues("delivered").Inc()
		a.progress.delivered = true
		a.progress.finish(p.index)
		d.succeeded()
	case errors.Is(err, errFiltered):
		d.metrics.parts.WithLabelValues("filtered").Inc()
		a.progress.finish(p.index)
		d.succeeded()
	case sdk.IsPermanent(err):
		d.succeeded()
		a.fail(d, p.index, rejected(err))
	case errors.As(err, &unavailable):
		a.away, a.over = err, true
	case isTimeout(err):
		err = sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("no answer within %s: %w", time.Duration(d.route.Delivery.Timeout), err))
		switch d.route.Delivery.OnTimeout {
		case contract.OnTimeoutDeadLetter:
			a.fail(d, p.index, &deadLetter{reason: contract.DeadReasonTimedOut, err: fmt.Errorf("%w; whether the system did the work is not known", err)})
		case contract.OnTimeoutRetry:
			a.again(d, p.index, err)
		default:
			a.away, a.over = err, true
		}
	case errors.Is(err, context.Canceled) && d.sink.deliver.Err() != nil:
		a.over = true
	default:
		d.succeeded()
		a.again(d, p.index, err)
	}
}

// result of an attempt, for its span.
func (a *attempt) result() error {
	switch {
	case a.away != nil:
		return a.away
	case a.passing != nil:
		return a.passing
	case a.progress.dead != nil:
		return a.progress.dead.err
	}
	return nil
}

// conclude an attempt: the message is done with, or comes again.
func (d *destination) conclude(a *attempt) {
	h, p := a.held, a.progress
	switch {
	case a.away != nil:
		d.unavailable(h, a.away)
	case p.left > 0 && a.passing == nil: // it was not its turn: the system does not work, or the pod ends
		d.mu.Lock()
		d.requeue(h)
		d.mu.Unlock()
	case p.left > 0:
		d.retry(h, a.passing)
	case p.dead != nil:
		why := *p.dead
		why.err = fmt.Errorf("part %d of %d: %w", p.failed, p.count, why.err)
		if p.failures > 1 {
			why.err = fmt.Errorf("%w (and %d more parts failed)", why.err, p.failures-1)
		}
		d.bury(h, &why)
	case p.delivered:
		d.delivered(h)
	default:
		d.metrics.filtered.Inc()
		d.settled(h, ackOK)
	}
}
