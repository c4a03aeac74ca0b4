package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metip/metip/controllers/loopback"
)

// pipeline is a source and a sink process on one broker, with this process's target behind the sink.
type pipeline struct {
	name         string
	url          string
	flow         loopback.Flow
	broker       *server
	source, sink *process
	// idle memory, in bytes, before the first message.
	idleSource, idleSink int64
}

func (p *pipeline) stop() {
	p.sink.stop()
	p.source.stop()
}

// sample is what one round of load showed.
type sample struct {
	throughput, accepted       float64
	p50, p99, ack50, ack99     time.Duration
	source, sink, broker       time.Duration // CPU time of the processes
	sourceRSS, sinkRSS         int64
	messages, repeats, refused int64
}

// usage of the processes of a pipeline.
type usage struct{ source, sink, broker time.Duration }

func (p *pipeline) usage() (u usage, err error) {
	if u.source, err = p.source.cpu(); err != nil {
		return u, err
	}
	if p.sink != nil {
		if u.sink, err = p.sink.cpu(); err != nil {
			return u, err
		}
	}
	u.broker, err = p.broker.process.cpu()
	return u, err
}

// load puts messages on a pipeline; the record says which.
type load func(ctx context.Context, r *run, address string) error

// settings of a pipeline's measurement.
type settings struct {
	connections, rate, rounds int
	closed, open, warmUp      time.Duration
	// capacity of a run, in messages.
	capacity int
}

func (s settings) closedLoad() load {
	return func(ctx context.Context, r *run, address string) error {
		return closedLoop(ctx, r, address, s.connections, s.closed)
	}
}

func (s settings) warmLoad() load {
	return func(ctx context.Context, r *run, address string) error {
		return closedLoop(ctx, r, address, s.connections, s.warmUp)
	}
}

func (s settings) openLoad() load {
	return func(ctx context.Context, r *run, address string) error {
		return openLoop(ctx, r, address, s.connections, s.rate, s.open)
	}
}

// numbers gives every run ids of its own.
type numbers struct{ next int }

func (n *numbers) reserve(count int) int {
	base := n.next
	n.next += count
	return base
}

// round measures one load on a pipeline. What it stored is removed afterwards, so that every round meets the same broker.
func (p *pipeline) round(ctx context.Context, t *target, n *numbers, capacity int, put load) (s sample, err error) {
	r := newRun(n.reserve(capacity), capacity)
	t.expect(r)
	before, err := p.usage()
	if err != nil {
		return s, err
	}
	peaks, err := p.watch(ctx, func(ctx context.Context) error {
		if err := put(ctx, r, p.url); err != nil {
			return fmt.Errorf("load on %s: %w", p.name, err)
		}
		if p.sink == nil {
			return nil
		}
		return r.drain(ctx, time.Minute)
	})
	if err != nil {
		return s, fmt.Errorf("%s: %w\nsource: %s\nsink: %s", p.name, err, p.source.tail(), p.sink.tail())
	}
	after, err := p.usage()
	if err != nil {
		return s, err
	}
	s = r.sample(p.sink != nil)
	s.source, s.sink, s.broker = after.source-before.source, after.sink-before.sink, after.broker-before.broker
	s.sourceRSS, s.sinkRSS = peaks[0], peaks[1]
	if s.messages == 0 {
		return s, fmt.Errorf("%s: nothing was accepted, %d refused", p.name, s.refused)
	}
	return s, p.broker.purge(ctx, p.flow)
}

// sample of a run that has ended: what was delivered, or accepted where nothing delivers.
func (r *run) sample(delivers bool) (s sample) {
	s.messages, s.repeats, s.refused = r.confirmed.Load(), r.repeats.Load(), r.refused.Load()
	var lastAccepted int64
	for i := range min(int(r.next.Load()), len(r.accepted)) {
		lastAccepted = max(lastAccepted, r.accepted[i].Load())
	}
	s.accepted = perSecond(s.messages, time.Duration(lastAccepted))
	s.throughput = s.accepted
	acks := r.latencies(r.accepted)
	s.ack50, s.ack99 = percentile(acks, 0.50), percentile(acks, 0.99)
	if delivers {
		s.throughput = perSecond(r.arrived.Load(), time.Duration(r.lastArrival.Load()))
		all := r.latencies(r.delivered)
		s.p50, s.p99 = percentile(all, 0.50), percentile(all, 0.99)
	}
	return s
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// watch the memory of source and sink while do runs, and return the highest of each.
func (p *pipeline) watch(ctx context.Context, do func(context.Context) error) (peaks [2]int64, err error) {
	done := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(done)
		return do(ctx)
	})
	group.Go(func() error {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			for i, x := range []*process{p.source, p.sink} {
				if x == nil {
					continue
				}
				if err := x.alive(); err != nil {
					return err
				}
				rss, err := x.rss()
				if err != nil {
					return err
				}
				peaks[i] = max(peaks[i], rss)
			}
			select {
			case <-done:
				return nil
			case <-tick.C:
			}
		}
	})
	return peaks, group.Wait()
}

// rest lets the processes come to rest and notes their idle memory.
func (p *pipeline) rest(ctx context.Context, pause time.Duration) (err error) {
	if err := wait(ctx, pause); err != nil {
		return err
	}
	if p.idleSource, err = p.source.rss(); err != nil {
		return err
	}
	p.idleSink, err = p.sink.rss()
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// alternate measures the pipelines in turn, round by round, so that a machine whose speed drifts treats them alike.
func alternate(ctx context.Context, t *target, n *numbers, s settings, put load, pipelines ...*pipeline) (map[string][]sample, error) {
	all := map[string][]sample{}
	for i := range s.rounds {
		for _, p := range pipelines {
			x, err := p.round(ctx, t, n, s.capacity, put)
			if err != nil {
				return nil, err
			}
			_, _ = fmt.Fprintf(os.Stderr, "  round %d %-6s %6.0f msg/s  end to end p50 %6.2f p99 %6.2f ms  accept p50 %6.2f p99 %6.2f ms  (%d messages, %d repeated, %d refused)\n",
				i+1, p.name, x.throughput, milliseconds(x.p50), milliseconds(x.p99), milliseconds(x.ack50), milliseconds(x.ack99),
				x.messages, x.repeats, x.refused)
			all[p.name] = append(all[p.name], x)
		}
	}
	return all, nil
}

// of is the median of a figure over the rounds.
func of(samples []sample, figure func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, figure(s))
	}
	return median(values)
}
