package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Targets. Those of throughput, of the open loop's p99 and of processor time are of ref's.
const (
	targetThroughput      = 0.9
	targetThroughputFsync = 1.3
	targetP99             = 1.25
	targetCPU             = 1.25
	targetIdleMiB         = 24
	targetLoadedMiB       = 48
	targetReadyMS         = 300
)

// Names of the pipelines.
const (
	nameMetIP = "metip"
	nameRef   = "ref"
	nameBare  = "bare"
)

// benchPipelines measures http source -> stream -> CEL filter -> http sink beside ref, which has no filter, on a broker of one server, for both sync modes.
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
	for _, part := range []func(context.Context, *pipeline, *pipeline) error{m.closedLoop, m.openLoop, m.sourceOnly, m.batches} {
		if err := part(ctx, ref, metip); err != nil {
			return err
		}
	}
	return nil
}

// closedLoop measures all that goes over so many connections. A third pipeline runs in turn with the two: ref on a server without accounts
// and TLS, for information. It shows what the border between the accounts costs.
func (m *measurement) closedLoop(ctx context.Context, ref, metip *pipeline) error {
	s, err := startBare(ctx, m.dir, nameBare, m.b.natsServer, m.fsync)
	if err != nil {
		return err
	}
	defer s.stop()
	bare, err := startRef(ctx, s, nameBare, m.b.ref, m.t.url)
	if err != nil {
		return err
	}
	defer bare.stop()
	if err := m.warm(ctx, bare); err != nil {
		return err
	}
	load := fmt.Sprintf("closed %d connections", m.o.pipeline.connections)
	_, _ = fmt.Fprintf(os.Stderr, "sync %s, %s\n", m.mode, load)
	all, err := alternate(ctx, m.t, m.n, m.o.pipeline, m.o.pipeline.closedLoad(), ref, metip, bare)
	if err != nil {
		return err
	}
	throughput := targetThroughput
	if m.fsync {
		throughput = targetThroughputFsync
	}
	aims := map[string]float64{"delivered": throughput}
	if !m.fsync {
		aims["cpu source"], aims["cpu sink"] = targetCPU, targetCPU
	}
	m.report(load, all, aims)
	bareFlow, flow := m.flow(whole, "ref on a bare broker", load), m.flow(whole, "metip beside a bare broker", load)
	for _, x := range metrics()[:bareMetrics] {
		m.figures.add(bareFlow, x.name, of(all[nameBare], x.value), x.unit, x.better)
	}
	for _, x := range metrics()[:bareMetrics] {
		m.figures.add(flow, x.name, of(all[nameMetIP], x.value), x.unit, x.better).against(bareFlow, of(all[nameBare], x.value))
	}
	return nil
}

// openLoop measures latency at a steady rate.
func (m *measurement) openLoop(ctx context.Context, ref, metip *pipeline) error {
	load := fmt.Sprintf("open %d/s", m.o.pipeline.rate)
	_, _ = fmt.Fprintf(os.Stderr, "sync %s, %s\n", m.mode, load)
	all, err := alternate(ctx, m.t, m.n, m.o.pipeline, m.o.pipeline.openLoad(), ref, metip)
	if err != nil {
		return err
	}
	m.report(load, all, map[string]float64{"end to end p99": targetP99})
	return nil
}

// flow is the name of a measured flow in the figures.
func (m *measurement) flow(what, pipeline, load string) string {
	return fmt.Sprintf("%s, %s, sync %s, %s", what, pipeline, m.mode, load)
}

const whole = "http->filter->http"

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
	// most is the target of the value itself; 0 means none.
	most float64
}

// bareMetrics are those of metrics that are told of a bare broker too.
const bareMetrics = 3

func perMessage(used func(sample) time.Duration) func(sample) float64 {
	return func(s sample) float64 { return float64(used(s).Microseconds()) / float64(s.messages) }
}

// metrics of a load on a whole pipeline.
func metrics() []metric {
	return []metric{
		{"delivered", "msg/s", higher, func(s sample) float64 { return s.throughput }, 0},
		{"end to end p50", "ms", lower, func(s sample) float64 { return milliseconds(s.p50) }, 0},
		{"end to end p99", "ms", lower, func(s sample) float64 { return milliseconds(s.p99) }, 0},
		{"accept p50", "ms", lower, func(s sample) float64 { return milliseconds(s.ack50) }, 0},
		{"accept p99", "ms", lower, func(s sample) float64 { return milliseconds(s.ack99) }, 0},
		{"cpu source", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.source }), 0},
		{"cpu sink", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.sink }), 0},
		{"cpu broker", "us/msg", lower, perMessage(func(s sample) time.Duration { return s.broker }), 0},
		{"rss source loaded", "MiB", lower, func(s sample) float64 { return mebibytes(s.sourceRSS) }, targetLoadedMiB},
		{"rss sink loaded", "MiB", lower, func(s sample) float64 { return mebibytes(s.sinkRSS) }, targetLoadedMiB},
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

// report the medians of ref, then MetIP's beside them, with what some of them should be of ref's.
func (m *measurement) report(load string, all map[string][]sample, aims map[string]float64) {
	refFlow, flow := m.flow(whole, nameRef, load), m.flow(whole, nameMetIP, load)
	for _, x := range metrics() {
		m.figures.add(refFlow, x.name, of(all[nameRef], x.value), x.unit, x.better)
	}
	for _, x := range metrics() {
		figure := m.figures.add(flow, x.name, of(all[nameMetIP], x.value), x.unit, x.better)
		if x.most != 0 {
			figure.aim(x.most)
			continue
		}
		figure.against(refFlow, of(all[nameRef], x.value))
		if aim, ok := aims[x.name]; ok {
			figure.aim(aim)
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
func (m *measurement) batches(ctx context.Context, _, metip *pipeline) error {
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
