package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// targetDrain is the share of what a loop that pulls and acknowledges reaches.
const targetDrain = 0.7

// bulkSettings of flows that publish or consume as fast as goes.
type bulkSettings struct {
	// lasts is how long a run of publishing takes; backlog how many messages are drained, or replayed.
	lasts   time.Duration
	backlog int
}

// drainer is one way to consume the backlog; each has a durable consumer of its own.
type drainer struct {
	name, role string
	flow       loopback.Flow
	batch      int
	samples    bulkSamples
}

// config of a sink that counts what a Route with a filter brings.
func (d *drainer) config(s *server) *contract.Config {
	c := configOf(s, d.flow, d.flow.Sink)
	c.Sink = &contract.Sink{
		System: contract.System{Type: "counter", Options: json.RawMessage(`{}`)},
		Routes: []contract.Route{{
			Name: d.flow.Route, UID: d.flow.Route, Generation: 1, Destination: d.flow.Destination, Integration: d.flow.Integration,
			Stream: d.flow.Stream(), Durable: d.flow.Durable(), Steps: []contract.Step{filterStep()}, Delivery: loopback.Delivery(),
		}},
	}
	return c
}

// benchDrain measures how fast a backlog goes through a filter into a sink that counts, beside pulling and acknowledging.
func benchDrain(ctx context.Context, dir string, o options, figures *results) error {
	var b binaries
	if err := build(ctx, dir, map[*string]string{&b.natsServer: packageNATSServer, &b.bulk: packageBulk}); err != nil {
		return err
	}
	profile, err := o.profileDir("drain")
	if err != nil {
		return err
	}
	s, err := startServer(ctx, filepath.Join(dir, "drain"), "broker", b.natsServer, true)
	if err != nil {
		return err
	}
	defer s.stop()
	flow := func(route string) loopback.Flow {
		return loopback.Flow{Integration: "drain", Source: "drain-in", Route: route, Destination: "out", Sink: "drain-out"}
	}
	ways := []*drainer{
		{name: "raw pull and acknowledge", role: "pull", flow: flow("raw")},
		{name: "metip, batches of 100", role: "sink", flow: flow("batched"), batch: 100},
		{name: "metip, singly", role: "sink", flow: flow("single"), batch: 1},
	}
	users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), ways[0].flow, ways[1].flow, ways[2].flow)
	if err != nil {
		return err
	}
	source, err := startBulk(ctx, s, "source", b.bulk, "", sourceOf(s, ways[0].flow), users.Source)
	if err != nil {
		return err
	}
	defer source.stop()
	_, _ = fmt.Fprintf(os.Stderr, "drain of %d messages\n", o.bulk.backlog)
	n := &numbers{}
	for round := range o.pipeline.rounds {
		if _, err := source.publish(ctx, n, o.bulk.backlog, time.Minute); err != nil {
			return err
		}
		for _, d := range ways {
			if err := d.drain(ctx, s, o, b.bulk, profile, users.Sink); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			_, _ = fmt.Fprintf(os.Stderr, "  round %d %-26s %6.0f msg/s\n", round+1, d.name, d.samples.rates[round])
		}
		if err := s.purge(ctx, ways[0].flow); err != nil {
			return err
		}
	}
	raw := fmt.Sprintf("backlog of %d, %s", o.bulk.backlog, ways[0].name)
	ways[0].samples.report(figures, raw, nil)
	for _, d := range ways[1:] {
		flow := fmt.Sprintf("backlog of %d->filter->count, %s", o.bulk.backlog, d.name)
		d.samples.report(figures, flow, func(r *Result) { r.against(raw, median(ways[0].samples.rates)).aim(targetDrain) })
		figures.add(flow, "rss sink loaded", mebibytes(d.samples.peak), "MiB", lower).aim(targetLoadedMiB)
	}
	return nil
}

// drain the backlog with a process that starts for it.
func (d *drainer) drain(ctx context.Context, s *server, o options, binary, profile string, user []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	broker, err := s.cpu()
	if err != nil {
		return err
	}
	p, err := startBulk(ctx, s, d.role, binary, profile, d.config(s), user, "-batch", strconv.Itoa(max(1, d.batch)), "-stream", d.flow.Stream(), "-durable", d.flow.Durable())
	if err != nil {
		return err
	}
	defer p.stop()
	var r ran
	for int(r.Messages) < o.bulk.backlog {
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d were consumed: %w\n%s", r.Messages, o.bulk.backlog, err, p.tail())
		}
		if r, err = p.ask(ctx, http.MethodGet, "/drained"); err != nil {
			return err
		}
	}
	if int(r.Messages) > o.bulk.backlog {
		return fmt.Errorf("%d messages were consumed of a backlog of %d", r.Messages, o.bulk.backlog)
	}
	cpu, err := p.cpu()
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	peak, err := p.peak()
	if err != nil {
		return err
	}
	d.samples.add(r, cpu, after-broker)
	d.samples.peak = max(d.samples.peak, peak)
	return nil
}
