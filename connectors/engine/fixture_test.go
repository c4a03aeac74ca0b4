package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

// within waits for a condition.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// testLog writes where tests look, when they are verbose.
func testLog(testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// pod is an engine that runs.
type pod struct {
	t       testing.TB
	name    string
	engine  *Engine
	stop    context.CancelFunc
	ended   chan error
	secrets string
	creds   string
}

type podOptions struct {
	name      string
	config    *contract.Config
	system    sdk.System
	creds     string
	secrets   string
	grace     time.Duration
	telemetry telemetry.Options
}

func startPod(t testing.TB, o podOptions) *pod {
	t.Helper()
	if o.name == "" {
		o.name = "pod-1"
	}
	if o.secrets == "" {
		o.secrets = t.TempDir()
	}
	e, err := New(Options{
		Config: o.config, System: o.system, Pod: o.name, CredsFile: o.creds, SystemDir: o.secrets, ListenAddress: "127.0.0.1:0", HealthAddress: freeAddress(t),
		AllowLoopback: true, Grace: o.grace, Linger: 50 * time.Millisecond, Log: testLog(t), Telemetry: o.telemetry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pod{t: t, name: o.name, engine: e, stop: cancel, ended: make(chan error, 1), secrets: o.secrets, creds: o.creds}
	go func() { p.ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-p.ended:
		case <-time.After(20 * time.Second):
			t.Error("the pod does not end")
		}
	})
	return p
}

// drain the pod and wait for its end.
func (p *pod) drain() {
	p.t.Helper()
	p.stop()
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Fatal("drain:", err)
		}
		p.ended <- nil
	case <-time.After(30 * time.Second):
		p.t.Fatal("the pod does not end")
	}
}

func (p *pod) get(path string) (int, string) {
	r, err := http.Get("http://" + p.engine.HealthAddress + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// metric is the value of one line of /metrics.
func (p *pod) metric(line string) float64 {
	_, body := p.get("/metrics")
	for l := range strings.SplitSeq(body, "\n") {
		if v, ok := strings.CutPrefix(l, line+" "); ok {
			var f float64
			_, _ = fmt.Sscan(v, &f)
			return f
		}
	}
	return -1
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// fakeSource hands its publisher to the test.
type fakeSource struct {
	bus chan sdk.Publisher
	// settle is what Run waits for after its context has ended.
	settle sync.WaitGroup
}

func newFakeSource() *fakeSource { return &fakeSource{bus: make(chan sdk.Publisher, 1)} }

func (f *fakeSource) system() sdk.System {
	return sdk.System{Name: "test", Source: func(sdk.Runtime, json.RawMessage) (sdk.Source, error) { return f, nil }}
}

func (f *fakeSource) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	state.System(nil)
	f.bus <- bus
	<-ctx.Done()
	f.settle.Wait()
	return nil
}

// fakeSink is a system whose behaviour the test sets.
type fakeSink struct {
	mu    sync.Mutex
	check func() error
	write func(*sdk.Delivery) error
	max   int
	// got are the ids that were confirmed, with how often; tries all that were tried.
	got, tries map[string]int
	batches    []int
}

func newFakeSink() *fakeSink {
	return &fakeSink{max: 1, got: map[string]int{}, tries: map[string]int{}, check: func() error { return nil }, write: func(*sdk.Delivery) error { return nil }}
}

func (f *fakeSink) system() sdk.System {
	return sdk.System{Name: "test", Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return f, nil }}
}

func (f *fakeSink) set(check func() error, write func(*sdk.Delivery) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if check != nil {
		f.check = check
	}
	if write != nil {
		f.write = write
	}
}

func (f *fakeSink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if string(raw) == `"bad"` {
		return nil, fmt.Errorf("no such table")
	}
	return f, nil
}

func (f *fakeSink) Check(context.Context) error {
	f.mu.Lock()
	check := f.check
	f.mu.Unlock()
	return check()
}
func (f *fakeSink) Close() error  { return nil }
func (f *fakeSink) MaxBatch() int { return f.max }

func (f *fakeSink) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	f.mu.Lock()
	write := f.write
	f.batches = append(f.batches, len(batch))
	f.mu.Unlock()
	out := make([]error, len(batch))
	for i, d := range batch {
		id := d.ID
		f.mu.Lock()
		f.tries[id]++
		f.mu.Unlock()
		if out[i] = write(d); out[i] == nil {
			f.mu.Lock()
			f.got[id]++
			f.mu.Unlock()
		}
		if ctx.Err() != nil {
			out[i] = ctx.Err()
		}
	}
	return out
}

func (f *fakeSink) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

func (f *fakeSink) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got[id] > 0
}

func (f *fakeSink) triesOf(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries[id]
}

// missing ids of want that were not confirmed, and how many were confirmed more than once.
func (f *fakeSink) missing(want []string) (missing []string, duplicates int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range want {
		switch n := f.got[id]; {
		case n == 0:
			missing = append(missing, id)
		case n > 1:
			duplicates += n - 1
		}
	}
	return missing, duplicates
}

// routeConfig of one destination with short times.
func routeConfig(name, destination string) contract.Route {
	return contract.Route{
		Name: name, Destination: destination, Integration: "in", Stream: contract.EventStream("ns", "in"), Durable: contract.DurableName("ns", name, destination),
		Delivery: contract.Delivery{
			Timeout: contract.Duration(5 * time.Second), Attempts: 4, Backoff: contract.Duration(20 * time.Millisecond), MaxBackoff: contract.Duration(100 * time.Millisecond),
		},
	}
}

// startSink makes the streams' durables and a pod for these routes.
func startSink(t testing.TB, s *enginetest.Server, f *fakeSink, routes ...contract.Route) *pod {
	t.Helper()
	return startPod(t, sinkPod(t, s, f, 10*time.Second, routes...))
}

func sinkPod(t testing.TB, s *enginetest.Server, f *fakeSink, ackWait time.Duration, routes ...contract.Route) podOptions {
	t.Helper()
	var destinations []contract.SinkDestination
	for _, r := range routes {
		if lanes := r.Delivery.Lanes; lanes > 0 {
			s.Lanes("ns", r.Integration, r.Name, r.Destination, r.Delivery.Order, lanes, testPinTime, ackWait)
		} else {
			s.Durable("ns", r.Integration, r.Name, r.Destination, ackWait)
		}
		destinations = append(destinations, contract.SinkDestination{Integration: r.Integration, Route: r.Name, Destination: r.Destination, Lanes: r.Delivery.Lanes, Sources: r.Sources})
	}
	return podOptions{
		config: &contract.Config{
			Version: contract.ConfigVersion, Hash: "h1",
			Connector: contract.Connector{Namespace: "ns", Name: "snk", UID: "uid-snk", Integration: "in"},
			Broker:    s.Broker(),
			Sink:      &contract.Sink{System: contract.System{Type: "test"}, Routes: routes},
		},
		system: f.system(), creds: s.CredsFile("snk", contract.SinkPermissions("ns", "snk", destinations, contract.EnrichServices(routes)...).
			WithTables("ns", contract.ReadTables(routes), nil), time.Hour),
	}
}

// report waits for the report of a pod that satisfies the test.
func report(t testing.TB, s *enginetest.Server, connector, pod, what string, limit time.Duration, ok func(contract.Report) bool) contract.Report {
	t.Helper()
	var last contract.Report
	within(t, limit, "a report that says "+what, func() bool {
		r, found := s.Report("ns", connector, pod)
		last = r
		return found && ok(r)
	})
	return last
}

func writeFile(t testing.TB, dir, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}
