package generator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/intake"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

const (
	defaultRate = 1
	maxRate     = 50000
	defaultSize = 1 << 10
	maxSize     = 1 << 20
	// tick is how often what is due is made, while the rate is not below that.
	tick = 10 * time.Millisecond
	// maxBatch of messages, and of their bytes, that are published together.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// storeEvery is how often the position is stored: what was made since is made again by a pod that follows one that died.
	storeEvery = time.Second
	maxBackoff = 5 * time.Second
)

// options are the JSON of the API's GeneratorSource.
type options struct {
	Rate  int                `json:"rate"`
	Count *int64             `json:"count"`
	Size  *quantity.Quantity `json:"size"`
}

// position is the document of the source's position: the number of the message that is made next, from 1.
type position struct {
	Next int64 `json:"next"`
}

// source makes messages.
type source struct {
	rt    sdk.Runtime
	rate  int
	count int64 // 0: without end
	body  func(n int64) ([]byte, error)

	next   int64 // 0 while it is not known
	stored int64 // what the position says
	at     time.Time
}

// NewSource makes a source of the JSON of the API's GeneratorSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o := options{Rate: defaultRate}
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	switch {
	case rt.Config.Source == nil:
		return nil, errors.New("the configuration has no source")
	case !rt.Config.Source.Position:
		return nil, errors.New("the configuration says that the source keeps no position")
	case rt.Config.Source.Format != sdk.FormatJSON:
		return nil, fmt.Errorf("format %s: what is made is JSON", rt.Config.Source.Format)
	case o.Rate < 1 || o.Rate > maxRate:
		return nil, fmt.Errorf("rate must be between 1 and %d", maxRate)
	case o.Count != nil && *o.Count < 1:
		return nil, errors.New("count must be at least 1")
	case o.Size != nil && rt.Config.Source.Schema != nil:
		return nil, errors.New("size: bodies are as large as the schema makes them")
	}
	s := &source{rt: rt, rate: o.Rate}
	if o.Count != nil {
		s.count = *o.Count
	}
	if schema := rt.Config.Source.Schema; schema != nil {
		maker, err := newMaker(schema.Text)
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		s.body = maker.document
		return s, nil
	}
	size := int64(defaultSize)
	if o.Size != nil {
		size = int64(*o.Size)
	}
	if size < 1 || size > maxSize {
		return nil, fmt.Errorf("size must be between 1 and %d bytes", maxSize)
	}
	s.body = func(n int64) ([]byte, error) { return filled(n, int(size)), nil }
	return s, nil
}

// filled is a document of a size, or a little more where that is too small for its number.
func filled(n int64, size int) []byte {
	b := strconv.AppendInt([]byte(`{"number":`), n, 10)
	b = append(b, `,"filler":"`...)
	for i := 0; len(b) < size-2; i++ {
		b = append(b, 'a'+byte((n+int64(i))%26))
	}
	return append(b, `"}`...)
}

// Run makes messages until the context ends. It does not make up for the time in which the bus took none.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	state.System(nil) // it talks to no system
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 100*time.Millisecond, maxBackoff
	pace := newPace(s.rate, time.Now())
	for {
		wait, err := s.round(ctx, bus, pace)
		switch {
		case err == nil:
			delay.Reset()
		case errors.Is(err, sdk.ErrInvalid):
			return err // body and type are the configuration's own
		case errors.Is(err, sdk.ErrMoved):
			s.next, wait = 0, delay.NextBackOff()
		default:
			s.rt.Log.Info("the bus takes no messages for now", "error", err)
			wait = delay.NextBackOff()
			pace = newPace(s.rate, time.Now().Add(wait))
		}
		select {
		case <-ctx.Done():
			return s.end(ctx)
		case <-time.After(wait):
		}
	}
}

// round makes what is due, and tells how long nothing will be.
func (s *source) round(ctx context.Context, bus sdk.Publisher, pace *pace) (time.Duration, error) {
	if s.next == 0 {
		if err := s.load(ctx); err != nil {
			return 0, err
		}
	}
	if s.count > 0 && s.next > s.count {
		return time.Hour, s.store(ctx)
	}
	due := pace.due(time.Now())
	if s.count > 0 {
		due = min(due, s.count-s.next+1)
	}
	for due > 0 && ctx.Err() == nil {
		n, err := s.make(ctx, bus, due)
		if err != nil {
			return 0, err
		}
		due -= n
		pace.made += n
	}
	if time.Since(s.at) >= storeEvery || s.count > 0 && s.next > s.count {
		if err := s.store(ctx); err != nil {
			return 0, err
		}
	}
	return pace.wait(time.Now()), nil
}

// make and publish at most limit messages; it returns how many.
func (s *source) make(ctx context.Context, bus sdk.Publisher, limit int64) (int64, error) {
	var messages []*sdk.Message
	for size := 0; int64(len(messages)) < min(limit, maxBatch) && size < maxBatchBytes; {
		n := s.next + int64(len(messages))
		body, err := s.body(n)
		if err != nil {
			return 0, fmt.Errorf("%w: message %d: %w", sdk.ErrInvalid, n, err)
		}
		size += len(body)
		messages = append(messages, &sdk.Message{ID: strconv.FormatInt(n, 10), ContentType: "application/json", Data: body})
	}
	ctx, cancel := intake.Outlive(ctx)
	defer cancel()
	if err := bus.Publish(ctx, messages...); err != nil {
		return 0, err
	}
	s.next += int64(len(messages))
	return int64(len(messages)), nil
}

func (s *source) load(ctx context.Context) error {
	raw, err := s.rt.Position.Load(ctx)
	if err != nil {
		return err
	}
	at := position{Next: 1}
	if raw != nil {
		if err := json.Unmarshal(raw, &at); err != nil || at.Next < 1 {
			return fmt.Errorf("the position of the source is not a generator's: %.100q", raw)
		}
	}
	s.next, s.stored, s.at = at.Next, at.Next, time.Now()
	return nil
}

// store the position, if there is anything new about it.
func (s *source) store(ctx context.Context) error {
	if s.next == s.stored {
		return nil
	}
	raw, err := json.Marshal(position{Next: s.next})
	if err != nil {
		return err
	}
	if err := s.rt.Position.Store(ctx, raw); err != nil {
		return err
	}
	s.stored, s.at = s.next, time.Now()
	return nil
}

// end stores what the pod that follows begins with. If it cannot, that makes some messages again.
func (s *source) end(ctx context.Context) error {
	if s.next == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxBackoff)
	defer cancel()
	if err := s.store(ctx); err != nil {
		s.rt.Log.Info("the position was not stored: the last messages will be made again, with their ids", "error", err)
	}
	return nil
}

// pace says what is due at a time.
type pace struct {
	rate  int
	begun time.Time
	made  int64
}

func newPace(rate int, begun time.Time) *pace { return &pace{rate: rate, begun: begun} }

func (p *pace) due(now time.Time) int64 {
	elapsed := now.Sub(p.begun)
	if elapsed < 0 {
		return 0
	}
	whole, rest := int64(elapsed/time.Second), elapsed%time.Second
	return whole*int64(p.rate) + int64(rest)*int64(p.rate)/int64(time.Second) + 1 - p.made
}

// wait until something is due, but not less than a tick.
func (p *pace) wait(now time.Time) time.Duration {
	next := p.begun.Add(time.Duration(p.made/int64(p.rate))*time.Second + time.Duration(p.made%int64(p.rate))*time.Second/time.Duration(p.rate))
	return max(next.Sub(now), tick)
}
