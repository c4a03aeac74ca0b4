package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

func contains(data []byte, text string) bool { return bytes.Contains(data, []byte(text)) }

const (
	callerHop  = "ns/src"
	serviceHop = "ns/svc"
)

func TestCallIsCarriedBothWays(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	var got *sdk.Request
	f := newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		got = r
		deadline, _ := ctx.Deadline()
		a := text("left %v", time.Until(deadline) < 7*time.Second)
		a.Status, a.Header = http.StatusConflict, map[string][]string{"set-cookie": {"a=1", "b=2"}, "etag": {`"x"`}}
		return a, nil
	})
	startService(t, s, "svc-1", f, nil)
	_, k := startCaller(t, s, serviceCall(func(c *contract.Call) { c.Timeout = contract.Duration(7 * time.Second) }))
	r := ask("PATCH", "/persons/M%C3%BCller", `{"a":1}`)
	r.Query, r.Header = "x=1&y=%20", map[string][]string{"accept": {"text/plain", "text/html"}, "x-name": {"M\u00fcller"}}
	r.Headers = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b", "unit": "cid 7"}
	a := answer(t, k, r)
	wantAnswer(t, a, http.StatusConflict, "", "left true")
	if diff := cmp.Diff(map[string][]string{"set-cookie": {"a=1", "b=2"}, "etag": {`"x"`}}, a.Header); diff != "" {
		t.Error(diff)
	}
	if a.ContentType != "text/plain" || a.Format != sdk.FormatText {
		t.Error(a.ContentType, a.Format)
	}
	if got.Method != http.MethodPatch || got.Path != "/persons/M%C3%BCller" || got.Query != "x=1&y=%20" || string(got.Data) != `{"a":1}` || got.ContentType != "application/json" || got.Format != sdk.FormatJSON {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(r.Header, got.Header); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{"traceparent": r.Headers["traceparent"], "tracestate": "a=b", "unit": "cid 7", "marking": "OFFICIAL"}
	if diff := cmp.Diff(want, got.Headers); diff != "" {
		t.Error(diff)
	}
	if got.Type != "custody.arrest" || got.Source != "/metip/ns/src" || got.ID != r.ID || got.Time.IsZero() {
		t.Errorf("%+v", got.Message)
	}
}

func TestCallSteps(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) {
		a := &sdk.Answer{Status: http.StatusOK}
		a.ContentType, a.Format, a.Data = "application/json", sdk.FormatJSON, fmt.Appendf(nil, `{"got":%s,"path":%q}`, r.Data, r.Path)
		if len(r.Data) == 0 {
			a.Data = fmt.Appendf(nil, `{"path":%q}`, r.Path)
		}
		return a, nil
	})
	startService(t, s, "svc-1", f, nil)
	filter := func(cel string) contract.Step { return contract.Step{Name: "filter", Filter: cel} }
	jq := func(program string) contract.Step { return contract.Step{Name: "steps[0]", JQ: program} }
	_, k := startCaller(t, s,
		serviceCall(func(c *contract.Call) { c.Route, c.Request = "broken", []contract.Step{filter(`data.kind ==`)} }),
		serviceCall(func(c *contract.Call) {
			c.Route = "reads"
			c.Request = []contract.Step{filter(`headers.method == "GET"`), filter(`headers["query-name"] == "a b"`), filter(`headers["http-accept"] == "x, y"`)}
			c.Response = []contract.Step{jq(`{read: .path, status: $message.headers.status}`)}
		}),
		serviceCall(func(c *contract.Call) {
			c.Route = "moved"
			c.Request = []contract.Step{filter(`headers.method == "DELETE"`), {Name: "steps[0]", SetHeaders: map[string]string{"method": "POST", "path": "/v2{headers.path}", "query": ""}}}
			c.Response = []contract.Step{{Name: "call.response.steps[0]", SetHeaders: map[string]string{"status": "202"}}}
		}),
		serviceCall(func(c *contract.Call) {
			c.Route, c.Request = "waits", []contract.Step{{Name: "steps[0]", Throttle: &contract.Throttle{}}}
		}),
		serviceCall(func(c *contract.Call) {
			c.Route = "writes"
			c.Request = []contract.Step{filter(`headers.method == "POST"`), jq(`if .drop then empty else {n: (.n + 1), path: $message.headers.path} end`)}
			c.Response = []contract.Step{jq(`if .got.n == 9 then empty elif .got.n == 10 then error("no") else .got end`)}
		}))
	read := ask("GET", "/a", "")
	read.Query, read.Header = "name=a%20b", map[string][]string{"accept": {"x", "y"}}
	// A broken Route takes nothing, and stands in nobody's way.
	wantAnswer(t, answer(t, k, read), 200, "", `{"read":"/a","status":"200"}`)
	wantAnswer(t, answer(t, k, ask("POST", "/b", `{"n":1}`)), 200, "", `{"n":2,"path":"/b"}`)
	moved := ask("DELETE", "/c", `{}`)
	moved.Query = "a=b"
	wantAnswer(t, answer(t, k, moved), 202, "", `"path":"/v2/c"`)
	wantAnswer(t, answer(t, k, ask("POST", "/b", `{"drop":true}`)), 422, callerHop, "writes does not let this request pass")
	wantAnswer(t, answer(t, k, ask("POST", "/b", `{"n":{}}`)), 400, callerHop, "Route writes, steps[0]")
	wantAnswer(t, answer(t, k, ask("POST", "/b", `{"n":8}`)), 502, callerHop, "writes does not let the answer pass")
	wantAnswer(t, answer(t, k, ask("POST", "/b", `{"n":9}`)), 502, callerHop, "Route writes, steps[0]")
	wantAnswer(t, answer(t, k, ask("PUT", "/b", `{}`)), 503, callerHop, "Route broken cannot run")
	report(t, s, "src", "caller", "the broken Routes", 10*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 2 && r.Routes[0].Route == "broken" && r.Routes[0].Destination == contract.CallDestination && !r.Routes[0].OK
	})
}

func TestUnroutedAndAbsent(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	p, k := startCaller(t, s, serviceCall(func(c *contract.Call) {
		c.Request = []contract.Step{{Name: "filter", Filter: `headers.method == "GET"`}}
	}))
	wantAnswer(t, answer(t, k, ask("POST", "/", `{}`)), 404, callerHop, "no Route takes this request")
	begun := time.Now()
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 503, callerHop, "no pod of service svc takes requests")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s to say that nobody is there", took)
	}
	report(t, s, "src", "caller", "that the service is absent", 10*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonConnectionFailed
	})
	startService(t, s, "svc-1", newFakeService(always(text("here"))), nil)
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 200, "", "here")
	report(t, s, "src", "caller", "that all is well", 10*time.Second, func(r contract.Report) bool { return len(r.Routes) == 0 })
	if p.metric(`metip_connector_requests_unrouted_total`) != 1 || p.metric(`metip_connector_requests_total{outcome="answered",route="persons"}`) != 1 ||
		p.metric(`metip_connector_requests_total{outcome="problem",route="persons"}`) != 1 {
		t.Error("the metrics do not say so")
	}
}

// Two pods share the load; one is killed while calls are under way. Every call ends with an answer, or with an error in its time.
func TestReplicasShareAndOneDies(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	var services [2]*fakeService
	var pods [2]*pod
	for i := range services {
		services[i] = newFakeService(func(ctx context.Context, _ *sdk.Request) (*sdk.Answer, error) {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			return text("pod %d", i), nil
		})
		pods[i] = startService(t, s, fmt.Sprint("svc-", i), services[i], nil)
	}
	_, k := startCaller(t, s, serviceCall(func(c *contract.Call) { c.Timeout = contract.Duration(3 * time.Second) }))
	var statuses sync.Map
	var wg sync.WaitGroup
	var answered atomic.Int64
	for worker := range 8 {
		wg.Go(func() {
			for n := range 100 {
				a := answer(t, k, ask("GET", fmt.Sprintf("/%d/%d", worker, n), ""))
				switch {
				case a.Status == 200:
					answered.Add(1)
				case a.Status != http.StatusGatewayTimeout && a.Status != http.StatusServiceUnavailable:
					statuses.Store(a.Status, string(a.Data))
				}
				if worker == 0 && n == 50 {
					pods[0].kill()
				}
			}
		})
	}
	wg.Wait()
	statuses.Range(func(status, body any) bool { t.Errorf("%v: %v", status, body); return true })
	// What pod 0 had in its hands ran into its time: at most one call of each worker.
	if n := answered.Load(); n < 800-8 || n > 800 {
		t.Errorf("%d of 800 calls were answered", n)
	}
	for i, f := range services {
		if f.count() < 100 {
			t.Errorf("pod %d got %d of 800 calls", i, f.count())
		}
	}
}

func TestCancelReachesTheSystem(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	f := newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		close(begun)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	p := startService(t, s, "svc-1", f, nil)
	_, k := startCaller(t, s, serviceCall(nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *sdk.Answer)
	go func() { done <- k.Call(ctx, ask("GET", "/", "")) }()
	<-begun
	cancel()
	if a := <-done; a.Status != http.StatusServiceUnavailable {
		t.Errorf("%d: %s", a.Status, a.Data)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, errCallCancelled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the system still works for nobody")
	}
	within(t, 10*time.Second, "the metrics say so", func() bool { return p.metric(`metip_connector_calls_total{outcome="cancelled"}`) == 1 })
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(hang)
	p := startService(t, s, "svc-1", f, func(c *contract.Service) { c.Timeout = contract.Duration(20 * time.Second) })
	_, k := startCaller(t, s, serviceCall(func(c *contract.Call) { c.Timeout = contract.Duration(4 * time.Second) }))
	// The service gives up a moment before the caller, and says so itself.
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 504, serviceHop, "not answered in time")
	// A system that does not care for its context is the caller's to give up on; a shorter time of the caller counts.
	release := make(chan struct{})
	defer close(release)
	f.set(nil, func(context.Context, *sdk.Request) (*sdk.Answer, error) { <-release; return text("late"), nil })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	wantAnswer(t, k.Call(ctx, ask("GET", "/", "")), 504, callerHop, "service svc has not answered in time")
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	if p.metric(`metip_connector_calls_total{outcome="timeout"}`) != 1 {
		t.Error("the time-out is not counted")
	}
}

func TestBusyAndSuspended(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	release, begun := make(chan struct{}), make(chan int, 4)
	limit := func(c *contract.Service) { c.MaxConcurrent = 1 }
	for i := range 2 {
		startService(t, s, fmt.Sprint("svc-", i), newFakeService(func(context.Context, *sdk.Request) (*sdk.Answer, error) {
			begun <- i
			<-release
			return text("done"), nil
		}), limit)
	}
	p, k := startCaller(t, s, serviceCall(nil))
	answers := make(chan *sdk.Answer, 2)
	call := func() { answers <- k.Call(t.Context(), ask("GET", "/", "")) }
	go call()
	first := <-begun
	// The busy pod refuses, and the other one gets it, sooner or later.
	second := -1
	within(t, 20*time.Second, "the other pod takes the second call", func() bool {
		go call()
		select {
		case second = <-begun:
			return true
		case a := <-answers:
			wantAnswer(t, a, 503, serviceHop, "as many calls under way")
			return false
		}
	})
	if second == first {
		t.Error("the pod took more than it may")
	}
	a := answer(t, k, ask("GET", "/", ""))
	wantAnswer(t, a, 503, serviceHop, "as many calls under way")
	if a.Header["retry-after"] == nil {
		t.Error("nothing says when to come again")
	}
	if p.metric(`metip_connector_requests_refused_total{reason="busy",route="persons"}`) < 1 {
		t.Error("the refusal is not counted")
	}
	close(release)
	for range 2 {
		wantAnswer(t, <-answers, 200, "", "done")
	}
}

func TestSuspendedService(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(always(text("done")))
	startService(t, s, "svc-1", f, func(c *contract.Service) { c.Suspended = true })
	_, k := startCaller(t, s, serviceCall(nil))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 503, serviceHop, "suspended")
	if f.count() != 0 {
		t.Error("it was called all the same")
	}
}

func TestDrainLosesNoCall(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	slow := func(context.Context, *sdk.Request) (*sdk.Answer, error) {
		time.Sleep(3 * time.Millisecond)
		return text("done"), nil
	}
	old := startService(t, s, "svc-0", newFakeService(slow), nil)
	_, k := startCaller(t, s, serviceCall(nil))
	var failed, calls atomic.Int64
	var last atomic.Value
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				if a := answer(t, k, ask("POST", "/", `{}`)); a.Status != 200 {
					failed.Add(1)
					last.Store(string(a.Data))
				}
			}
		})
	}
	for i := range 4 {
		fresh := startService(t, s, fmt.Sprint("svc-", i+1), newFakeService(slow), nil)
		before := calls.Load()
		within(t, 20*time.Second, "calls flow", func() bool { return calls.Load() > before+50 })
		old.drain()
		old = fresh
	}
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d calls failed in four rolls: %v", failed.Load(), calls.Load(), last.Load())
	}
}

func TestCircuitOfAService(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(always(text("done")))
	p := startService(t, s, "svc-1", f, nil)
	_, k := startCaller(t, s, serviceCall(nil))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 200, "", "done")
	report(t, s, "svc", "svc-1", "all is well", 10*time.Second, func(r contract.Report) bool { return r.System.OK && r.Bus.OK })

	down := sdk.Unavailable(contract.ReasonConnectionFailed, errors.New("https://secret-host: connection refused"))
	fails := func(context.Context, *sdk.Request) (*sdk.Answer, error) { return nil, down }
	// One call that breaks is no news of the system, as long as it can be reached.
	f.set(nil, func(context.Context, *sdk.Request) (*sdk.Answer, error) { return nil, errors.New("connection reset") })
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "may have been done")
	f.set(nil, always(text("done")))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 200, "", "done")
	// A dead system is noticed, by the call that meets it or by the check, and then nothing is called any more.
	f.set(down, fails)
	a := answer(t, k, ask("GET", "/", ""))
	wantAnswer(t, a, 503, serviceHop, "cannot be reached")
	if contains(a.Data, "secret-host") {
		t.Errorf("the caller learns the address: %s", a.Data)
	}
	report(t, s, "svc", "svc-1", "that the system is down", 10*time.Second, func(r contract.Report) bool {
		return !r.System.OK && r.System.Reason == contract.ReasonConnectionFailed && strings.Contains(r.System.Message, "secret-host")
	})
	if p.metric(`metip_connector_circuit_open`) != 1 {
		t.Error("the metric does not show the open circuit")
	}
	before := f.count()
	for range 20 {
		wantAnswer(t, answer(t, k, ask("GET", "/", "")), 503, serviceHop, "cannot be reached")
	}
	if n := f.count() - before; n != 0 {
		t.Errorf("a dead system was called %d times", n)
	}
	// The prober finds out that it is back, without a call.
	f.set(nil, always(text("back")))
	report(t, s, "svc", "svc-1", "that the system is back", 20*time.Second, func(r contract.Report) bool { return r.System.OK })
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 200, "", "back")
	// A system that refuses the credentials is reported, and other calls go on.
	f.set(nil, func(context.Context, *sdk.Request) (*sdk.Answer, error) {
		return nil, sdk.Unavailable(contract.ReasonAuthenticationFailed, errors.New("401"))
	})
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "credentials")
	report(t, s, "svc", "svc-1", "that the credentials are refused", 10*time.Second, func(r contract.Report) bool { return r.System.Reason == contract.ReasonAuthenticationFailed })
	f.set(nil, always(text("done")))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 200, "", "done")
	report(t, s, "svc", "svc-1", "that the system is back", 10*time.Second, func(r contract.Report) bool { return r.System.OK })
	if p.metric(`metip_connector_calls_refused_total{reason="unavailable"}`) < 20 {
		t.Error("the refusals are not counted")
	}
}

// A system that takes connections and answers nothing is left alone after a few calls, and one call at a time tries it again.
func TestCircuitOfASilentService(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(hang)
	startService(t, s, "svc-1", f, func(c *contract.Service) { c.Timeout = contract.Duration(200 * time.Millisecond) })
	_, k := startCaller(t, s, serviceCall(nil))
	for range failuresToOpen {
		wantAnswer(t, answer(t, k, ask("GET", "/", "")), 504, serviceHop, "not answered in time")
	}
	within(t, 20*time.Second, "calls are refused", func() bool { return answer(t, k, ask("GET", "/", "")).Status == 503 })
	report(t, s, "svc", "svc-1", "that the system is silent", 10*time.Second, func(r contract.Report) bool {
		return strings.Contains(r.System.Message, "does not answer them in time")
	})
	f.set(nil, always(text("done")))
	within(t, 60*time.Second, "a trial closes the circuit", func() bool { return answer(t, k, ask("GET", "/", "")).Status == 200 })
	report(t, s, "svc", "svc-1", "that all is well", 10*time.Second, func(r contract.Report) bool { return r.System.OK })
}

func TestCallsThatCannotBeCarried(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(nil)
	startService(t, s, "svc-1", f, nil)
	p, k := startCaller(t, s, serviceCall(nil))
	serve := func(call func(context.Context, *sdk.Request) (*sdk.Answer, error)) { f.set(nil, call) }

	large := text("")
	large.Data = make([]byte, contract.MaxMessageSize)
	serve(always(large))
	if a := answer(t, k, ask("GET", "/", "")); a.Status != 200 || len(a.Data) != contract.MaxMessageSize {
		t.Errorf("%d with %d bytes", a.Status, len(a.Data))
	}
	r := ask("POST", "/", "")
	r.Data = make([]byte, contract.MaxMessageSize)
	serve(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) { return text("%d", len(r.Data)), nil })
	wantAnswer(t, answer(t, k, r), 200, "", fmt.Sprint(contract.MaxMessageSize))

	larger := text("")
	larger.Data = make([]byte, contract.MaxMessageSize+1)
	serve(always(larger))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "most that the bus carries")
	headers := text("")
	headers.Header = map[string][]string{"x": {strings.Repeat("x", contract.MaxHeaderSize)}}
	serve(always(headers))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "headers")
	odd := text("")
	odd.Status = 700
	serve(always(odd))
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "malformed")
	serve(func(context.Context, *sdk.Request) (*sdk.Answer, error) { panic("oh") })
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 502, serviceHop, "see its log")
	serve(func(context.Context, *sdk.Request) (*sdk.Answer, error) {
		return nil, sdk.CallErrorf(http.StatusNotFound, "no such thing")
	})
	wantAnswer(t, answer(t, k, ask("GET", "/", "")), 404, serviceHop, "no such thing")
	r = ask("GET", "/", "")
	r.Header = headers.Header
	wantAnswer(t, answer(t, k, r), 431, callerHop, "headers")
	within(t, 10*time.Second, "what answers held is free again", func() bool {
		p.engine.caller.answers.mu.Lock()
		defer p.engine.caller.answers.mu.Unlock()
		return p.engine.caller.answers.held == 0 && len(p.engine.caller.answers.waiting) == 0
	})
}

// Room for answers is given to one call after the other.
func TestAnswersShareRoom(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	var holding, most atomic.Int64
	f := newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		if err := r.Reserve(ctx, contract.MaxMessageSize); err != nil {
			return nil, err
		}
		n := holding.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		holding.Add(-1)
		return text("done"), nil
	})
	startService(t, s, "svc-1", f, nil)
	_, k := startCaller(t, s, serviceCall(nil))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if a := answer(t, k, ask("GET", "/", "")); a.Status != 200 {
				t.Errorf("%d: %s", a.Status, a.Data)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > maxHeldCallAnswers/contract.MaxMessageSize {
		t.Errorf("%d answers of the largest size at a time", n)
	}
}

// The documented wire format, as a program without MetIP's help uses it.
func TestPlainRequest(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	startService(t, s, "svc-1", newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		deadline, _ := ctx.Deadline()
		return text("%s %s %q %s short=%v", r.Method, r.Format, r.Path, r.Data, time.Until(deadline) < 6*time.Second), nil
	}), nil)
	nc := connect(t, s, "app", contract.Permissions{
		Publish: contract.CallSubjects("ns", contract.ServiceRef{Integration: "in", Service: "svc"}), Subscribe: []string{"_INBOX.app.>"},
	})
	for _, c := range []struct {
		header nats.Header
		body   string
		want   string
		status string
	}{
		{nil, "", `GET JSON ""  short=false`, "200"},
		{nil, "{}", `POST JSON "" {} short=false`, "200"},
		{nats.Header{contract.HeaderCallMethod: {"PUT"}, contract.HeaderCallPath: {"/a"}, contract.HeaderCallTimeout: {"5000"}, "content-type": {"text/plain"}}, "x", `PUT Text "/a" x short=true`, "200"},
		{nats.Header{contract.HeaderCallPath: {"/a/../b"}}, "", `would lead elsewhere`, "400"},
		{nats.Header{contract.HeaderCallPath: {"/%2e%2e/b"}}, "", `would lead elsewhere`, "400"},
		{nats.Header{contract.HeaderCallPath: {"@evil.example"}}, "", `does not begin with`, "400"},
		{nats.Header{contract.HeaderCallTimeout: {"soon"}}, "", `no number of milliseconds`, "400"},
		{nats.Header{contract.HeaderCallMethod: {"G T"}}, "", `is none`, "400"},
	} {
		got, err := nc.RequestMsg(&nats.Msg{Subject: contract.ServiceSubject("ns", "in", "svc"), Header: c.header, Data: []byte(c.body)}, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got.Header.Get(contract.HeaderCallStatus) != c.status || !contains(got.Data, c.want) {
			t.Errorf("%v: %v %s, want %s with %s", c.header, got.Header, got.Data, c.status, c.want)
		}
	}
}

func TestSpansFollowACall(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := startCollector(t)
	traces := telemetry.Options{Endpoint: c.URL}
	var passed string
	o := servicePod(s, "svc-1", newFakeService(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) {
		passed = r.Headers[contract.HeaderTraceParent]
		return text("done"), nil
	}), nil)
	o.telemetry = traces
	service := startServicePod(t, o)
	source, k := startCallerTraced(t, s, traces, serviceCall(nil))
	r := ask("GET", "/", "")
	r.Headers = map[string]string{contract.HeaderTraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	wantAnswer(t, answer(t, k, r), 200, "", "done")
	source.drain()
	service.drain()
	var call, answered otlpSpan
	within(t, 10*time.Second, "both spans have arrived", func() (ok bool) {
		if call, ok = c.named("call svc"); ok {
			answered, ok = c.named("answer")
		}
		return ok
	})
	if call.TraceID != "0af7651916cd43dd8448eb211c80319c" || call.ParentSpanID != "b7ad6b7169203331" {
		t.Errorf("the call does not belong to its caller's trace: %+v", call)
	}
	if answered.TraceID != call.TraceID || answered.ParentSpanID != call.SpanID {
		t.Errorf("answering does not follow the call: %+v after %+v", answered, call)
	}
	if want := "00-" + answered.TraceID + "-" + answered.SpanID + "-01"; passed != want {
		t.Errorf("the system got %q, want %q", passed, want)
	}
}

func TestCallsFollowTheDocument(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	reply := text(`{"name":"Ada"}`)
	reply.ContentType, reply.Format = "application/json", sdk.FormatJSON
	f := newFakeService(always(reply))
	startService(t, s, "svc-1", f, func(c *contract.Service) {
		c.OpenAPI = `{"openapi":"3.1.0","paths":{"/persons/{id}":{"get":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"integer"}}],
			"responses":{"200":{"content":{"application/json":{"schema":{"required":["name"]}}}}}}}}}`
	})
	_, k := startCaller(t, s, serviceCall(nil))
	wantAnswer(t, answer(t, k, ask("GET", "/persons/17", "")), 200, "", "Ada")
	wantAnswer(t, answer(t, k, ask("GET", "/persons/x", "")), 400, serviceHop, "the path parameter id")
	wantAnswer(t, answer(t, k, ask("GET", "/nobody", "")), 404, serviceHop, "no such path")
	wantAnswer(t, answer(t, k, ask("POST", "/persons/17", "{}")), 405, serviceHop, "no POST of")
	if n := f.count(); n != 1 {
		t.Errorf("the system was called %d times", n)
	}
	wrong := text(`{}`)
	wrong.ContentType, wrong.Format = "application/json", sdk.FormatJSON
	f.set(nil, always(wrong))
	wantAnswer(t, answer(t, k, ask("GET", "/persons/17", "")), 502, serviceHop, "does not follow the service's OpenAPI document")

	broken := startPod(t, servicePod(s, "svc-2", f, func(c *contract.Service) { c.OpenAPI = `{"openapi":"2.0"}` }))
	report(t, s, "svc", "svc-2", "that the document is wrong", 20*time.Second, func(r contract.Report) bool {
		return !r.System.OK && strings.Contains(r.System.Message, "OpenAPI")
	})
	if code, _ := broken.get("/readyz"); code == 200 {
		t.Error("a pod that cannot work is ready")
	}
}
