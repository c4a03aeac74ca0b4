package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Targets of the issue that asked for these figures, and of the pods.
const (
	targetThroughput = 0.8
	targetP99        = 1.5
	targetIdleMiB    = 32
	targetReadyMS    = 2000
)

// Names of the pipelines.
const (
	nameMetIP = "metip"
	nameRef   = "ref"
	nameBare  = "bare"
)

// benchPipelines measures http source -> stream -> http sink beside ref, on a broker of one server, for both sync modes.
func benchPipelines(ctx context.Context, dir string, o options, figures *results) error {
	var b binaries
	packages := map[*string]string{&b.natsServer: packageNATSServer, &b.ref: packageRef, &b.connector: packageConnector}
	if o.profile != "" {
		packages[&b.connector] = packageProfiled
	}
	if err := build(ctx, dir, packages); err != nil {
		return err
	}
	t, err := startTarget()
	if err != nil {
		return err
	}
	defer func() { _ = t.server.Close() }()
	n := &numbers{}
	for _, mode := range []struct {
		name  string
		fsync bool
	}{{"default", false}, {"always", true}} {
		if o.sync != "" && o.sync != mode.name {
			continue
		}
		m := &measurement{o: o, b: b, t: t, n: n, dir: filepath.Join(dir, mode.name), mode: mode.name, fsync: mode.fsync, figures: figures}
		for _, folder := range []string{m.dir, m.profile()} {
			if folder == "" {
				continue
			}
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return err
			}
		}
		if err := m.run(ctx); err != nil {
			return fmt.Errorf("sync %s: %w", mode.name, err)
		}
	}
	return nil
}

// measurement of the pipelines in one sync mode.
type measurement struct {
	o       options
	b       binaries
	t       *target
	n       *numbers
	dir     string
	mode    string
	fsync   bool
	figures *results
}

// profile is the folder of this mode's profiles, or empty.
func (m *measurement) profile() string {
	if m.o.profile == "" {
		return ""
	}
	return filepath.Join(m.o.profile, m.mode)
}

func (m *measurement) run(ctx context.Context) error {
	s, err := startServer(ctx, m.dir, "broker", m.b.natsServer, m.fsync)
	if err != nil {
		return err
	}
	defer s.stop()
	ref, err := startRef(ctx, s, nameRef, m.b.ref, m.t.url)
	if err != nil {
		return err
	}
	defer ref.stop()
	metip, err := startMetIP(ctx, s, nameMetIP, m.b.connector, m.t.url, m.profile())
	if err != nil {
		return err
	}
	defer metip.stop()
	for _, p := range []*pipeline{ref, metip} {
		if err := p.rest(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	m.pods(ref, metip)
	if err := m.warm(ctx, ref, metip); err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		put  load
	}{
		{fmt.Sprintf("closed %d connections", m.o.pipeline.connections), m.o.pipeline.closedLoad()},
		{fmt.Sprintf("open %d/s", m.o.pipeline.rate), m.o.pipeline.openLoad()},
	} {
		_, _ = fmt.Fprintf(os.Stderr, "sync %s, %s\n", m.mode, l.name)
		all, err := alternate(ctx, m.t, m.n, m.o.pipeline, l.put, ref, metip)
		if err != nil {
			return err
		}
		m.report(l.name, all)
	}
	if err := m.sourceOnly(ctx, ref, metip); err != nil {
		return err
	}
	if err := m.batches(ctx, metip); err != nil {
		return err
	}
	return m.bareRef(ctx)
}

// flow is the name of a measured flow in the figures.
func (m *measurement) flow(what, pipeline, load string) string {
	return fmt.Sprintf("%s, %s, sync %s, %s", what, pipeline, m.mode, load)
}

const whole = "http->stream->http"

// pods reports what the processes take before the first message.
func (m *measurement) pods(ref, metip *pipeline) {
	for _, x := range []struct {
		role           string
		ref, metip     *process
		idle, idleHere int64
	}{
		{"source", ref.source, metip.source, ref.idleSource, metip.idleSource},
		{"sink", ref.sink, metip.sink, ref.idleSink, metip.idleSink},
	} {
		refFlow := m.flow("http "+x.role, nameRef, "idle")
		m.figures.add(refFlow, "rss", mebibytes(x.idle), "MiB", lower)
		m.figures.add(refFlow, "start to ready", milliseconds(x.ref.ready), "ms", lower)
		flow := m.flow("http "+x.role, nameMetIP, "idle")
		m.figures.add(flow, "rss", mebibytes(x.idleHere), "MiB", lower).aim(targetIdleMiB)
		m.figures.add(flow, "start to ready", milliseconds(x.metip.ready), "ms", lower).aim(targetReadyMS)
	}
}

// warm fills caches and opens connections before anything counts.
func (m *measurement) warm(ctx context.Context, pipelines ...*pipeline) error {
	for _, p := range pipelines {
		if _, err := p.round(ctx, m.t, m.n, m.o.pipeline.capacity, m.o.pipeline.warmLoad()); err != nil {
			return err
		}
	}
	return nil
}

// metric of a sample.
type metric struct {
	name, unit, better string
	value              func(sample) float64
	// target of the ratio to ref's; 0 means none.
	target float64
}

func perMessage(used func(sample) time.Duration) func(sample) float64 {
	return func(s sample) float64 { return float64(used(s).Microseconds()) / float64(s.messages) }
}

// metrics of a load on a whole pipeline. An open loop's throughput is what was asked for, and has no target.
func metrics(closed bool) []metric {
	throughput := 0.0
	if closed {
		throughput = targetThroughput
	}
	return []metric{
		{"delivered", "msg/s", higher, func(s sample) float64 { return s.throughput }, throughput},
		{"end to end p50", "ms", lower, func(s sample) float64 { return milliseconds(s.p50) }, 0},
		{"end to end p99", "ms", lower, func(s sample) float64 { return milliseconds(s.p99) }, targetP99},
		{"accept p50", "ms", lower, func(s sample) float64 { return milliseconds(s.ack50) }, 0},
		{"accept p99", "ms", lower, func(s sample) float64 { return milliseconds(s.ack99) }, 0},
		{"cpu source", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.source }), 0},
		{"cpu sink", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.sink }), 0},
		{"cpu broker", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.broker }), 0},
		{"rss source loaded", "MiB", lower, func(s sample) float64 { return mebibytes(s.sourceRSS) }, 0},
		{"rss sink loaded", "MiB", lower, func(s sample) float64 { return mebibytes(s.sinkRSS) }, 0},
		{"repeated", "messages", lower, func(s sample) float64 { return float64(s.repeats) }, 0},
		{"refused", "requests", lower, func(s sample) float64 { return float64(s.refused) }, 0},
	}
}

// wayIn are the metrics of a source alone.
func wayIn() []metric {
	return []metric{
		{"accepted", "msg/s", higher, func(s sample) float64 { return s.accepted }, 0},
		{"accept p50", "ms", lower, func(s sample) float64 { return milliseconds(s.ack50) }, 0},
		{"accept p99", "ms", lower, func(s sample) float64 { return milliseconds(s.ack99) }, 0},
		{"cpu source", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.source }), 0},
		{"cpu broker", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.broker }), 0},
	}
}

// report the medians of ref, then MetIP's beside them.
func (m *measurement) report(load string, all map[string][]sample) {
	refFlow, flow := m.flow(whole, nameRef, load), m.flow(whole, nameMetIP, load)
	closed := load[0] == 'c'
	for _, x := range metrics(closed) {
		m.figures.add(refFlow, x.name, of(all[nameRef], x.value), x.unit, x.better)
	}
	for _, x := range metrics(closed) {
		figure := m.figures.add(flow, x.name, of(all[nameMetIP], x.value), x.unit, x.better).against(refFlow, of(all[nameRef], x.value))
		if x.target != 0 {
			figure.aim(x.target)
		}
	}
}

// sourceOnly measures the way in alone: the sinks are stopped, what is accepted stays on the stream.
func (m *measurement) sourceOnly(ctx context.Context, ref, metip *pipeline) error {
	load := fmt.Sprintf("closed %d connections", m.o.pipeline.connections)
	_, _ = fmt.Fprintf(os.Stderr, "sync %s, source only, %s\n", m.mode, load)
	for _, p := range []*pipeline{ref, metip} {
		p.sink.stop()
		p.sink = nil
	}
	all, err := alternate(ctx, m.t, m.n, m.o.pipeline, m.o.pipeline.closedLoad(), ref, metip)
	if err != nil {
		return err
	}
	refFlow, flow := m.flow("http->stream", nameRef, load), m.flow("http->stream", nameMetIP, load)
	for _, x := range wayIn() {
		m.figures.add(refFlow, x.name, of(all[nameRef], x.value), x.unit, x.better)
	}
	for _, x := range wayIn() {
		m.figures.add(flow, x.name, of(all[nameMetIP], x.value), x.unit, x.better).against(refFlow, of(all[nameRef], x.value))
	}
	return nil
}

// How the publisher is given batches: requests of CloudEvents over a few connections.
const (
	batchSize        = 100
	batchConnections = 4
)

// batches measures the publisher by itself as far as a client can: many messages in one call.
func (m *measurement) batches(ctx context.Context, metip *pipeline) error {
	load := fmt.Sprintf("closed %d connections, batches of %d", batchConnections, batchSize)
	_, _ = fmt.Fprintf(os.Stderr, "sync %s, source only, %s\n", m.mode, load)
	put := func(ctx context.Context, r *run, address string) error {
		return batchLoop(ctx, r, address, metip.flow.Source, batchConnections, batchSize, m.o.pipeline.closed)
	}
	all, err := alternate(ctx, m.t, m.n, m.o.pipeline, put, metip)
	if err != nil {
		return err
	}
	flow := m.flow("http->stream", nameMetIP, load)
	for _, x := range wayIn() {
		m.figures.add(flow, x.name, of(all[nameMetIP], x.value), x.unit, x.better)
	}
	return nil
}

// bareRef measures ref on a server without accounts and TLS, for information: what the border between the accounts costs.
func (m *measurement) bareRef(ctx context.Context) error {
	s, err := startBare(ctx, m.dir, "bare", m.b.natsServer, m.fsync)
	if err != nil {
		return err
	}
	defer s.stop()
	p, err := startRef(ctx, s, nameBare, m.b.ref, m.t.url)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := m.warm(ctx, p); err != nil {
		return err
	}
	load := fmt.Sprintf("closed %d connections", m.o.pipeline.connections)
	_, _ = fmt.Fprintf(os.Stderr, "sync %s, bare, %s\n", m.mode, load)
	all, err := alternate(ctx, m.t, m.n, m.o.pipeline, m.o.pipeline.closedLoad(), p)
	if err != nil {
		return err
	}
	for _, x := range metrics(true)[:3] {
		m.figures.add(m.flow(whole, "ref on a bare broker", load), x.name, of(all[nameBare], x.value), x.unit, x.better)
	}
	return nil
}
