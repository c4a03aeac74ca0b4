package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pglogrepl"

	"github.com/metip/metip/connectors/sdk"
)

const (
	// captureBatch is how many changes are published at a time, and captureBytes of how many bytes before another one is begun. Three batches
	// are in memory at most: one on its way, one that waits, one that is being read; a fourth where the bus has to be tried again.
	captureBatch = 200
	captureBytes = 2 << 20
	publishWait  = 20 * time.Second
	// settleTimeout is how long what is on its way has when the pod ends.
	settleTimeout = 8 * time.Second
)

// batch of changes, in order, no two of them of one row: a call of Publish may be stored in part, and rows keep their order.
type batch struct {
	messages []*sdk.Message
	keys     map[string]struct{}
	size     int
	// limit of messages.
	limit int
	// reached is up to where the log is covered once the batch and all before it are stored.
	reached pglogrepl.LSN
}

func newBatch() *batch { return &batch{keys: map[string]struct{}{}, limit: captureBatch} }

func (b *batch) isEmpty() bool { return len(b.messages) == 0 && b.reached == 0 }

// mustGo tells whether the message needs another batch.
func (b *batch) mustGo(m *sdk.Message) bool {
	if n := len(b.messages); n == 0 || n < b.limit && b.size+len(m.Data) <= captureBytes {
		_, same := b.keys[m.PartitionKey]
		return same
	}
	return true
}

func (b *batch) add(m *sdk.Message) {
	b.messages = append(b.messages, m)
	b.size += len(m.Data)
	if m.PartitionKey != "" {
		b.keys[m.PartitionKey] = struct{}{}
	}
}

// join another batch to this one, if together they are still one.
func (b *batch) join(o *batch) bool {
	if len(b.messages)+len(o.messages) > captureBatch || b.size+o.size > captureBytes {
		return false
	}
	for key := range o.keys {
		if _, same := b.keys[key]; same {
			return false
		}
	}
	for _, m := range o.messages {
		b.add(m)
	}
	b.reach(o.reached)
	return true
}

func (b *batch) reach(lsn pglogrepl.LSN) { b.reached = max(b.reached, lsn) }

// publish until the bus has the batch; grow, if there is one, may add to it before it is tried again. What is on its way when the context ends may still settle; the error is the context's.
func (s *capture) publish(ctx context.Context, bus sdk.Publisher, b *batch, grow func(*batch)) error {
	if len(b.messages) == 0 {
		return nil
	}
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 100*time.Millisecond, maxBackoff
	for {
		err := settle(ctx, func(ctx context.Context) error { return bus.Publish(ctx, b.messages...) })
		if err == nil {
			s.health.refused(nil)
			return nil
		}
		if errors.Is(err, sdk.ErrInvalid) {
			// Nothing may be left out, so that everything waits until the cause is removed.
			s.health.refused(s.systemErrorf("the bus can take none of the changes from %s of table %s on: %w", b.messages[0].ID, b.messages[0].Subject, err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay.NextBackOff()):
		}
		if grow != nil {
			grow(b)
		}
	}
}

// settle calls f with a context that outlives ctx by settleTimeout.
func settle(ctx context.Context, f func(context.Context) error) error {
	inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishWait)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(settleTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-inner.Done():
		}
	})
	defer stop()
	return f(inner)
}
