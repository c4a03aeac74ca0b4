package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/robfig/cron/v3"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	defaultCatchUp = time.Minute
	// maxTicks that are published at a time, when many are due at once.
	maxTicks = 100
	// maxWait before the clock is looked at again: it may have been set.
	maxWait = 30 * time.Second
	// settleTimeout is how long a tick that is being published has when the pod ends.
	settleTimeout = 5 * time.Second
	publishWait   = 20 * time.Second
	maxBackoff    = 5 * time.Second
)

// options are the JSON of the API's ScheduleSource.
type options struct {
	Cron     string `json:"cron"`
	TimeZone string `json:"timeZone"`
	// Body of the messages; empty means the tick's time.
	Body string `json:"body"`
	// CatchUp as the API writes durations; absent means defaultCatchUp.
	CatchUp *contract.Duration `json:"catchUp"`
}

// source makes messages of ticks.
type source struct {
	schedule cron.Schedule
	body     []byte
	format   string
	catchUp  time.Duration
	created  time.Time
	now      func() time.Time
	sleep    func(ctx context.Context, d time.Duration) error
}

// NewSource makes a source of the JSON of the API's ScheduleSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	plan, err := steps.ParseSchedule(o.Cron, o.TimeZone)
	if err != nil {
		return nil, err
	}
	s := &source{
		schedule: plan, format: rt.Config.Source.Format, created: rt.Config.Connector.Created,
		catchUp: defaultCatchUp, now: time.Now, sleep: sleep,
	}
	if o.Body != "" {
		s.body = []byte(o.Body)
		if err := sdk.CheckFormat(s.format, s.body); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	if o.CatchUp != nil {
		s.catchUp = time.Duration(*o.CatchUp)
	}
	if s.catchUp < 0 {
		return nil, errors.New("catchUp must not be negative")
	}
	// Beyond the window, the broker would not recognise a tick that another pod has made.
	s.catchUp = min(s.catchUp, time.Duration(rt.Config.Source.DeduplicationWindow))
	return s, nil
}

// Run publishes ticks in order until the context ends. A tick that cannot be published is tried again until it can; those that fall
// due meanwhile follow it.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	state.System(nil) // the clock never fails; what the broker answers is reported by the engine
	last := s.begin()
	for {
		ticks, err := s.await(ctx, last)
		if err != nil {
			return nil // the pod ends, and nothing is under way
		}
		if err := s.publish(ctx, bus, ticks); err != nil {
			if ctx.Err() != nil {
				return nil // the pod that follows makes up for these ticks, as far as catchUp reaches
			}
			return err
		}
		last = ticks[len(ticks)-1]
	}
}

// begin is the time after which ticks count.
func (s *source) begin() time.Time {
	from := s.now().Add(-s.catchUp)
	if from.Before(s.created) {
		// A tick at the very second of creation counts.
		from = s.created.Add(-time.Nanosecond)
	}
	return from
}

// await the next ticks after last: all that are due, oldest first, at most maxTicks.
func (s *source) await(ctx context.Context, last time.Time) ([]time.Time, error) {
	next := s.schedule.Next(last)
	for {
		if next.IsZero() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		now := s.now()
		if !next.After(now) {
			ticks := []time.Time{next}
			for len(ticks) < maxTicks {
				if next = s.schedule.Next(next); next.IsZero() || next.After(now) {
					break
				}
				ticks = append(ticks, next)
			}
			return ticks, nil
		}
		if err := s.sleep(ctx, min(next.Sub(now), maxWait)); err != nil {
			return nil, err
		}
	}
}

// publish until the broker has the ticks. What is under way when the pod ends may still settle.
func (s *source) publish(ctx context.Context, bus sdk.Publisher, ticks []time.Time) error {
	messages := make([]*sdk.Message, len(ticks))
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 100*time.Millisecond, maxBackoff
	for {
		for i, tick := range ticks {
			messages[i] = s.message(tick)
		}
		err := settle(ctx, func(ctx context.Context) error { return bus.Publish(ctx, messages...) })
		if err == nil {
			return nil
		}
		if errors.Is(err, sdk.ErrInvalid) {
			return fmt.Errorf("publish the tick of %s: %w", messages[0].ID, err) // body and type are the configuration's own
		}
		if err := s.sleep(ctx, delay.NextBackOff()); err != nil {
			return err
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

func (s *source) message(tick time.Time) *sdk.Message {
	id := tick.UTC().Format(time.RFC3339)
	m := &sdk.Message{ID: id, Time: tick.UTC(), Data: s.body}
	switch s.format {
	case sdk.FormatXML:
		m.ContentType = "application/xml"
		if s.body == nil {
			m.Data = []byte("<scheduled>" + id + "</scheduled>")
		}
	case sdk.FormatText, sdk.FormatBinary:
		m.ContentType = "text/plain; charset=utf-8"
		if s.format == sdk.FormatBinary && s.body != nil {
			m.ContentType = "application/octet-stream"
		}
		if s.body == nil {
			m.Data = []byte(id)
		}
	default:
		m.ContentType = "application/json"
		if s.body == nil {
			m.Data = []byte(`{"scheduled":"` + id + `"}`)
		}
	}
	return m
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
