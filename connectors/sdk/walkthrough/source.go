package walkthrough

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

// How long the source waits after a failure: longer each time.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// source takes records from the registry, one by one.
type source struct{ *registry }

// NewSource makes a source of the options.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	r, err := newRegistry(rt, raw)
	if err != nil {
		return nil, err
	}
	return &source{r}, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		began := time.Now()
		err := s.read(ctx, bus, state)
		if ctx.Err() != nil {
			return nil
		}
		state.System(err)
		if time.Since(began) > lastPause {
			wait = firstPause
		}
		pause(ctx, wait, s.rt.Secrets.Changed())
	}
}

// read records over one connection, until it breaks.
func (s *source) read(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is being published is not tried again
	state.System(nil)
	for {
		record, err := r.take(ctx)
		if err != nil {
			return s.lost(err)
		}
		id, body, _ := strings.Cut(record, " ")
		m := &sdk.Message{ID: id, ContentType: "application/json", Data: []byte(body)}
		verdict := "DONE"
		published := s.publish(ctx, bus, m)
		if err := r.await(ctx, published); err != nil {
			return s.lost(err)
		}
		if err := <-published; errors.Is(err, sdk.ErrInvalid) {
			s.rt.Log.Warn("the registry is told that a record cannot be taken", "id", id, "error", err)
			verdict = "REFUSE"
		} else if err != nil {
			return nil // the pod ends, and the registry gives the record to another
		}
		// What is stored is acknowledged, also when the pod has been told to end.
		answer, err := r.ask(context.WithoutCancel(ctx), verdict, id)
		if err == nil && answer != "OK" {
			err = fmt.Errorf("the answer to %s is %.100q", verdict, answer)
		}
		if err != nil {
			return s.lost(err)
		}
	}
}

// take the next record, as soon as there is one.
func (s *session) take(ctx context.Context) (string, error) {
	for {
		answer, err := s.ask(ctx, "TAKE")
		if err != nil || answer != "NONE" {
			return answer, err
		}
	}
}

// publish a record, and tell the outcome. While the bus is full, suspended or away, the registry keeps the record, and it is tried again.
func (s *source) publish(ctx context.Context, bus sdk.Publisher, m *sdk.Message) chan error {
	outcome := make(chan error, 1)
	if !json.Valid(m.Data) {
		outcome <- fmt.Errorf("%w: the body is no JSON", sdk.ErrInvalid)
		return outcome
	}
	go func() {
		for wait := firstPause; ; wait = min(2*wait, lastPause) {
			// What has been begun is brought to its end.
			err := bus.Publish(context.WithoutCancel(ctx), m)
			if err == nil || errors.Is(err, sdk.ErrInvalid) || ctx.Err() != nil {
				outcome <- err
				return
			}
			pause(ctx, wait, nil)
		}
	}()
	return outcome
}

// await an outcome, and see meanwhile whether the registry is there: the status must say so when it is not, also while the bus is full.
func (s *session) await(ctx context.Context, outcome chan error) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-outcome:
			outcome <- err
			return nil
		case <-ticker.C:
			if _, err := s.ask(context.WithoutCancel(ctx), "PING"); err != nil {
				return err
			}
		}
	}
}

// pause for a while, or until something happens.
func pause(ctx context.Context, wait time.Duration, sooner <-chan struct{}) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-sooner:
	case <-ctx.Done():
	}
}
