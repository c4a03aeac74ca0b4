package conformance

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

// ordered: batches of one writer arrive one after the other, and each in its order.
func ordered(t *testing.T, h *SinkHarness) {
	if h.Arrived == nil {
		return // it promises no order
	}
	r := h.start(t)
	r.mustWrite(t, h.goods(0, 300)...)
	if got := h.Arrived(t); len(got) != 300 || !slices.IsSorted(got) {
		t.Errorf("the order is %v", got)
	}
}

// slow: the write returns when its context ends, says nothing of the message, and passes once the system answers again.
func slow(t *testing.T, h *SinkHarness) {
	if h.Slow == nil {
		return // the tests cannot make it so
	}
	r := h.start(t)
	r.mustWrite(t, h.goods(0, 3)...)
	resume := h.Slow(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	batch := h.goods(3, 3+min(3, r.op.MaxBatch()))
	results := r.op.Write(ctx, batch)
	late := time.Until(deadlineOf(ctx))
	resume()
	if late < -5*time.Second {
		t.Errorf("Write returned %s after its context had ended", -late)
	}
	for i, err := range results {
		if err == nil || sdk.IsPermanent(err) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	r.wantUp(t, batch[0])
	r.mustWrite(t, batch...)
	r.wantEffects(t, 0, 3+len(batch))
}

func deadlineOf(ctx context.Context) time.Time {
	deadline, _ := ctx.Deadline()
	return deadline
}

func mappedHeaders(t *testing.T, h *SinkHarness) {
	if h.Mapped == nil {
		return // it has no headers
	}
	r := h.start(t)
	d, check := h.Mapped(t)
	r.mustWrite(t, d)
	check(t)
}

func idleSink(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	r.mustWrite(t, h.Good(0, 500))
	wantIdle(t)
	r.mustWrite(t, h.Good(1, 500))
	r.wantEffects(t, 0, 2)
}
