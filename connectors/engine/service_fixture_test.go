package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

// fakeService is a system whose answers the test sets.
type fakeService struct {
	mu    sync.Mutex
	check error
	call  func(context.Context, *sdk.Request) (*sdk.Answer, error)
	calls int
}

func newFakeService(call func(context.Context, *sdk.Request) (*sdk.Answer, error)) *fakeService {
	return &fakeService{call: call}
}

func (f *fakeService) system() sdk.System {
	return sdk.System{Name: "test", Service: func(sdk.Runtime, json.RawMessage) (sdk.Service, error) { return f, nil }}
}

func (f *fakeService) set(check error, call func(context.Context, *sdk.Request) (*sdk.Answer, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.check = check
	if call != nil {
		f.call = call
	}
}

func (f *fakeService) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fakeService) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	f.mu.Lock()
	f.calls++
	call := f.call
	f.mu.Unlock()
	return call(ctx, r)
}

func (f *fakeService) Check(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.check
}

func (f *fakeService) Close() error { return nil }

// text is an answer 200.
func text(format string, a ...any) *sdk.Answer {
	out := &sdk.Answer{Status: http.StatusOK}
	out.ContentType, out.Format, out.Data = "text/plain", sdk.FormatText, fmt.Appendf(nil, format, a...)
	return out
}

func always(a *sdk.Answer) func(context.Context, *sdk.Request) (*sdk.Answer, error) {
	return func(context.Context, *sdk.Request) (*sdk.Answer, error) { return a, nil }
}

// hang until the call's time is up or it is cancelled.
func hang(ctx context.Context, _ *sdk.Request) (*sdk.Answer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func serviceConfig(s *enginetest.Server, change func(*contract.Service)) *contract.Config {
	c := &contract.Config{
		Version: contract.ConfigVersion, Hash: "h1",
		Connector: contract.Connector{Namespace: "ns", Name: "svc", UID: "uid-svc", Integration: "in"},
		Broker:    s.Broker(),
		Service:   &contract.Service{System: contract.System{Type: "test"}, MaxConcurrent: 64, Timeout: contract.Duration(30 * time.Second)},
	}
	if change != nil {
		change(c.Service)
	}
	return c
}

// startService runs a pod of the service svc, and waits until calls reach it.
func startService(t testing.TB, s *enginetest.Server, name string, f *fakeService, change func(*contract.Service)) *pod {
	t.Helper()
	return startServicePod(t, servicePod(s, name, f, change))
}

func servicePod(s *enginetest.Server, name string, f *fakeService, change func(*contract.Service)) podOptions {
	c := serviceConfig(s, change)
	return podOptions{
		name: name, config: c, system: f.system(),
		creds: s.CredsFile("svc", contract.ServicePermissions("ns", "in", "svc", time.Duration(c.Service.Timeout)), time.Hour),
	}
}

func startServicePod(t testing.TB, o podOptions) *pod {
	t.Helper()
	p := startPod(t, o)
	within(t, 20*time.Second, "the service takes requests", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	return p
}

// kill the pod as SIGKILL does: its connection breaks, and it says nothing any more.
func (p *pod) kill() { p.engine.conn.nc.Close() }

func serviceCall(change func(*contract.Call)) contract.Call {
	c := contract.Call{Route: "persons", UID: "uid-r", Integration: "in", Service: "svc", Timeout: contract.Duration(30 * time.Second)}
	if change != nil {
		change(&c)
	}
	return c
}

// startCaller runs a source with these Routes, and returns what it calls with.
func startCaller(t testing.TB, s *enginetest.Server, calls ...contract.Call) (*pod, sdk.Caller) {
	t.Helper()
	return startCallerTraced(t, s, telemetry.Options{}, calls...)
}

func startCallerTraced(t testing.TB, s *enginetest.Server, traces telemetry.Options, calls ...contract.Call) (*pod, sdk.Caller) {
	t.Helper()
	c := sourceConfig(s)
	c.Source.Calls = calls
	c.Connector.Marking = "OFFICIAL"
	var services []contract.ServiceRef
	for _, call := range calls {
		services = append(services, contract.ServiceRef{Integration: call.Integration, Service: call.Service})
	}
	f, given := newFakeSource(), make(chan sdk.Caller, 1)
	system := sdk.System{Name: "test", Source: func(rt sdk.Runtime, _ json.RawMessage) (sdk.Source, error) {
		given <- rt.Caller
		return f, nil
	}}
	p := startPod(t, podOptions{name: "caller", config: c, system: system, telemetry: traces, creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src", services...), time.Hour)})
	select {
	case <-f.bus:
	case <-time.After(20 * time.Second):
		t.Fatal("the source does not run")
	}
	within(t, 20*time.Second, "the caller is connected", p.engine.conn.isUp)
	return p, <-given
}

func ask(method, path, body string) *sdk.Request {
	r := &sdk.Request{Method: method, Path: path}
	r.ID, r.ContentType, r.Data = "id-"+path, "application/json", []byte(body)
	return r
}

// answer of a call, closed.
func answer(t testing.TB, k sdk.Caller, r *sdk.Request) *sdk.Answer {
	t.Helper()
	a := k.Call(t.Context(), r)
	a.Close()
	return a
}

func wantAnswer(t testing.TB, a *sdk.Answer, status int, hop, text string) {
	t.Helper()
	if a.Status != status || a.Hop != hop || !contains(a.Data, text) {
		t.Fatalf("%d from hop %q: %s; want %d from %q with %q", a.Status, a.Hop, a.Data, status, hop, text)
	}
	if hop != "" {
		var p problemJSON
		if err := json.Unmarshal(a.Data, &p); err != nil || p.Status != status || p.Hop != hop || a.ContentType != "application/problem+json" {
			t.Fatalf("%s is no problem of %s: %v", a.Data, hop, err)
		}
	}
}
