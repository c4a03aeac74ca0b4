// Package intake is what sources of message brokers have in common: sessions one after the other, and messages that are settled in their order, each
// on the bus, or where those go that it cannot take, before it is acknowledged.
package intake

import (
	"context"
	"errors"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

const (
	// settleTimeout is how long what was taken in has when the pod ends.
	settleTimeout = 15 * time.Second
	publishWait   = 20 * time.Second
	minPause      = 100 * time.Millisecond
	maxPause      = 5 * time.Second
	// heldPause is how long a message that the bus cannot take is left where it is before it is tried again.
	heldPause = 30 * time.Second
)

// ErrRestart ends a session whose connection is to be made anew at once: the Secrets have changed, or the source was suspended.
var ErrRestart = errors.New("the connection is made anew")

// HeldError is the state of a source whose next message the bus cannot take.
type HeldError struct{ Err error }

func (e HeldError) Error() string { return e.Err.Error() }

func (e HeldError) Unwrap() error { return e.Err }

// Sessions of a source.
type Sessions struct {
	Secrets sdk.Secrets
	// Session is one connection, from its opening to its end. worked says that messages were taken in, or could have been.
	Session func(context.Context) (worked bool, err error)
	// Look whether the system can be reached, without reading, until the source is not suspended any more.
	Look func(context.Context) error
}

// Run sessions until the context ends.
func (s *Sessions) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) {
	pause := minPause
	for ctx.Err() == nil {
		changed := s.Secrets.Changed()
		var worked bool
		var err error
		if errors.Is(bus.Ready(), sdk.ErrSuspended) {
			err = s.Look(ctx)
		} else {
			worked, err = s.Session(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if worked {
			pause = minPause
		}
		var held HeldError
		switch {
		case errors.Is(err, ErrRestart):
			continue
		case errors.As(err, &held):
			pause = heldPause
		}
		if err != nil {
			state.System(err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// Item is a delivery and its message, or why there can be none.
type Item[D any] struct {
	Delivery D
	Message  *sdk.Message
	Err      error
}

// Settler settles the deliveries of one connection.
type Settler[D any] struct {
	Bus sdk.Publisher
	// Lost is closed with the connection; Cause says then why.
	Lost  <-chan struct{}
	Cause func() error
	// Refuse a message that the bus can never take; nil says that it is to be acknowledged.
	Refuse func(context.Context, *Item[D]) error
	// Acknowledge deliveries, in their order.
	Acknowledge func([]Item[D]) error
	// Recovered is called when a message has come through.
	Recovered func()
}

// Settle deliveries, in their order.
func (s *Settler[D]) Settle(ctx context.Context, batch []Item[D]) error {
	for len(batch) > 0 {
		n := 0
		for n < len(batch) && batch[n].Err == nil {
			n++
		}
		if n == 0 {
			if err := s.Refuse(ctx, &batch[0]); err != nil {
				return err
			}
			if err := s.Acknowledge(batch[:1]); err != nil {
				return err
			}
			batch = batch[1:]
			continue
		}
		err := s.publish(ctx, batch[:n])
		switch {
		case err == nil:
			if err := s.Acknowledge(batch[:n]); err != nil {
				return err
			}
			s.Recovered()
			batch = batch[n:]
		case !errors.Is(err, sdk.ErrInvalid):
			return err
		case n == 1:
			batch[0].Err = err
		default: // one of them: each by itself
			for i := range n {
				if err := s.Settle(ctx, batch[i:i+1]); err != nil {
					return err
				}
			}
			batch = batch[n:]
		}
	}
	return nil
}

// publish until the bus has the messages, or never will (sdk.ErrInvalid), or the session is over.
func (s *Settler[D]) publish(ctx context.Context, batch []Item[D]) error {
	messages := make([]*sdk.Message, len(batch))
	for i := range batch {
		messages[i] = batch[i].Message
	}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		inner, cancel := Outlive(ctx)
		err := s.Bus.Publish(inner, messages...)
		cancel()
		if err == nil || errors.Is(err, sdk.ErrInvalid) {
			return err
		}
		if errors.Is(err, sdk.ErrSuspended) {
			return ErrRestart
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Lost:
			return s.Cause()
		case <-time.After(pause):
		}
	}
}

// Outlive is a context that outlives ctx by the time that what was taken in has when the pod ends.
func Outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishWait)
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(settleTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-inner.Done():
		}
	})
	return inner, func() { stop(); cancel() }
}
