package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// maxRetryAfter bounds what a system may ask for.
const maxRetryAfter = time.Hour

// outcome of one message, as the system answered.
func (d *destination) outcome(h *held, err error) {
	var unavailable *sdk.UnavailableError
	switch {
	case err == nil:
		d.delivered(h)
	case errors.Is(err, errFiltered):
		d.succeeded()
		d.metrics.filtered.Inc()
		d.settled(h, ackOK)
	case sdk.IsPermanent(err):
		d.succeeded()
		d.bury(h, rejected(err))
	case errors.As(err, &unavailable):
		d.unavailable(h, err)
	case errors.Is(err, context.DeadlineExceeded):
		d.timedOut(h, sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("no answer within %s: %w", time.Duration(d.route.Delivery.Timeout), err)))
	case errors.Is(err, context.Canceled) && d.sink.deliver.Err() != nil:
		d.mu.Lock()
		d.giveBack(h)
		d.mu.Unlock()
	default:
		d.succeeded()
		d.retry(h, err)
	}
}

// rejected is the dead letter of a message that will never be accepted.
func rejected(err error) *deadLetter {
	var step *stepError
	switch {
	case errors.Is(err, errHopLimit):
		return &deadLetter{reason: contract.DeadReasonHopLimit, err: err}
	case errors.Is(err, errClaimLost):
		return &deadLetter{reason: contract.DeadReasonClaimLost, err: err}
	case errors.As(err, &step):
		return &deadLetter{reason: contract.DeadReasonStepFailed, step: step.step, err: err}
	default:
		return &deadLetter{reason: contract.DeadReasonRejected, err: err}
	}
}

// delivered: the system has confirmed it.
func (d *destination) delivered(h *held) {
	d.metrics.delivered.Inc()
	// What a Replay brings was accepted long ago, which says nothing of how long messages take.
	if isReplay(h.in.Subject) {
		d.metrics.replayed.Inc()
	} else if accepted, err := time.Parse(time.RFC3339Nano, first(h.in.Header, contract.HeaderAccepted)); err == nil {
		d.metrics.latency.Observe(max(0, time.Since(accepted).Seconds()))
	}
	d.settled(h, ackOK)
	d.succeeded()
	d.sink.writes.Store(time.Now().UnixNano())
}

// settled: nothing more is to be done with the message.
func (d *destination) settled(h *held, ack []byte) {
	d.mu.Lock()
	if d.lane != nil && !d.lane.finished(h) {
		d.mu.Unlock()
		return
	}
	d.release(h)
	d.settledCount++
	d.memory.settle(h.identity)
	reply := h.in.Reply
	d.request()
	d.mu.Unlock()
	_ = d.sink.conn.nc.Publish(reply, ack)
}

// later gives a message back to the broker until a time, and remembers what is known of it. Where the order is kept it waits in its place.
func (d *destination) later(h *held, wait time.Duration) {
	d.mu.Lock()
	if d.lane != nil {
		d.lane.back(h, time.Now().Add(wait))
		d.mu.Unlock()
		return
	}
	d.release(h)
	d.memory.keep(h)
	reply := h.in.Reply
	d.request()
	d.mu.Unlock()
	_ = d.sink.conn.nc.Publish(reply, nakAfter(wait))
}

// nakAfter asks the broker to deliver a message again, after a while.
func nakAfter(wait time.Duration) []byte {
	return append(strconv.AppendInt([]byte(`-NAK {"delay":`), int64(wait), 10), '}')
}

// retry counts an attempt that failed: again after a while, or to the dead letters when it was the last.
func (d *destination) retry(h *held, err error) {
	h.tried++
	if n := int(d.route.Delivery.Attempts); n > 0 && h.tried >= n {
		d.bury(h, &deadLetter{reason: contract.DeadReasonAttemptsExhausted, err: err})
		return
	}
	d.metrics.retried.Inc()
	wait := backoff(time.Duration(d.route.Delivery.Backoff), time.Duration(d.route.Delivery.MaxBackoff), h.tried)
	var after *sdk.RetryAfterError
	if errors.As(err, &after) {
		wait = max(wait, min(after.After, maxRetryAfter))
	}
	d.log.Debug("an attempt failed", "sequence", h.seq, "attempt", h.tried, "error", err, "again", wait)
	d.later(h, wait)
}

// backoff before the attempt after the n-th: doubled each time up to the limit, give or take a fifth.
func backoff(base, limit time.Duration, n int) time.Duration {
	base = max(base, 10*time.Millisecond)
	limit = max(limit, base)
	wait := limit
	if n < 30 && base<<(n-1) > 0 {
		wait = min(limit, base<<(n-1))
	}
	return wait * time.Duration(80+rand.IntN(41)) / 100
}

// unavailable: the system as a whole does not work. The message keeps its place and its attempts, unless another one was delivered since it
// was tried before: then the fault may be its own.
func (d *destination) unavailable(h *held, err error) {
	d.mu.Lock()
	successes := d.circuit.successes
	suspect := h.seen >= 0 && successes > h.seen && !isBus(err) && !isRefusal(err)
	h.seen = successes
	d.circuit.fail(err)
	if !suspect {
		d.requeue(h)
	}
	d.mu.Unlock()
	if suspect {
		d.retry(h, err)
	}
}

// succeeded: the system answers.
func (d *destination) succeeded() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.circuit.success()
}
