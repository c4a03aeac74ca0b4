package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// enrichRoute asks the service svc for the person of each message.
func enrichRoute(change func(*contract.Enrich)) contract.Route {
	r := routeConfig("r", "d")
	e := &contract.Enrich{Service: "svc", Method: "GET", Path: "/persons/{data.n}", Into: "person", Timeout: contract.Duration(20 * time.Second)}
	if change != nil {
		change(e)
	}
	r.Steps = []contract.Step{{Name: "filter", Filter: "!has(data.skip)"}, {Name: "steps[0] (person)", Enrich: e}}
	return r
}

func jsonAnswer(status int, body string) *sdk.Answer {
	a := &sdk.Answer{Status: status}
	a.ContentType, a.Format, a.Data = "application/json", sdk.FormatJSON, []byte(body)
	return a
}

// persons answers with who was asked for.
func persons(_ context.Context, r *sdk.Request) (*sdk.Answer, error) {
	return jsonAnswer(200, `{"path":"`+r.Path+`"}`), nil
}

// bodies that a fake sink was given, by id.
type bodies struct {
	mu sync.Mutex
	of map[string]string
}

func bodiesOf(f *fakeSink) *bodies {
	b := &bodies{of: map[string]string{}}
	f.write = func(d *sdk.Delivery) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.of[d.ID] = string(d.Data)
		return nil
	}
	return b
}

func (b *bodies) get(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of[id]
}

// deadErrors are the errors of the dead letters, by message id.
func deadErrors(s *enginetest.Server) map[string]string {
	out := map[string]string{}
	for _, m := range s.Messages("ns_in_dead") {
		out[m.Header.Get(contract.HeaderID)] = m.Header.Get(contract.HeaderDeadReason) + " " + m.Header.Get(contract.HeaderDeadStep) + " " + m.Header.Get(contract.HeaderDeadError)
	}
	return out
}

func TestEnrichAsksAndMerges(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 10} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			var seen sync.Map
			service := newFakeService(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) {
				seen.Store(r.Path, fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.Query, r.Header["x-reason"], r.ContentType, r.Data, r.ID))
				switch r.Path {
				case "/persons/404":
					return jsonAnswer(404, `{}`), nil
				case "/persons/204":
					return &sdk.Answer{Status: 204}, nil
				case "/persons/409":
					return jsonAnswer(409, `{"secret":1}`), nil
				case "/persons/text":
					return text("plain \"text\""), nil
				case "/persons/bytes":
					a := text("\xff")
					a.ContentType, a.Format = "image/png", sdk.FormatBinary
					return a, nil
				case "/persons/large":
					return jsonAnswer(200, `"`+strings.Repeat("x", contract.MaxEnrichment)+`"`), nil
				case "/persons/deep":
					return jsonAnswer(200, strings.Repeat("[", 255)+strings.Repeat("]", 255)), nil
				}
				return jsonAnswer(200, ` {"amount": 12.10, "big": 123456789012345678901234567890} `), nil
			})
			startService(t, s, "svc-1", service, nil)
			r := enrichRoute(func(e *contract.Enrich) {
				e.Method, e.Query, e.Headers = "POST", map[string]string{"a b": "{data.n}&x", "f": "1"}, map[string]string{"X-Reason": "{id}", "X-None": ""}
				e.Body, e.Into = `{"id": data.n}`, "detainee.record"
			})
			f := newFakeSink()
			f.max = max
			got := bodiesOf(f)
			p := startSink(t, s, f, r)
			for id, body := range map[string]string{
				"plain": `{"n":"a/b c","detainee":{"z":1.10,"record":"old"}}`, "null": `{"n":204}`, "text": `{"n":"text"}`, "skipped": `{"skip":1}`,
				"missing": `{"n":404}`, "conflict": `{"n":409}`, "bytes": `{"n":"bytes"}`, "large": `{"n":"large"}`, "deep": `{"n":"deep"}`, "list": `[1]`, "nothing": `{}`,
				"empty": `{"n":""}`, "dots": `{"n":".."}`, "broken": `{`, "taken": `{"n":1,"detainee":[]}`,
			} {
				s.Publish("ns", "in", "src", "custody.arrest", id, []byte(body))
			}
			within(t, 60*time.Second, "all are settled", func() bool { return f.count() == 3 && len(deadReasons(s)) == 11 && settledAll(t, s, "ns_r_d") })
			for id, want := range map[string]string{
				"plain": `{"detainee":{"record": {"amount": 12.10, "big": 123456789012345678901234567890} ,"z":1.10},"n":"a/b c"}`,
				"null":  `{"detainee":{"record":null},"n":204}`,
				"text":  `{"detainee":{"record":"plain \"text\""},"n":"text"}`,
			} {
				if got.get(id) != want {
					t.Errorf("%s: %s, want %s", id, got.get(id), want)
				}
			}
			if asked, _ := seen.Load("/persons/a%2Fb%20c"); asked != `POST a%20b=a%2Fb%20c%26x&f=1 [plain] application/json {"id":"a/b c"} plain` &&
				asked != `POST a%20b=a%2Fb%20c&x&f=1 [plain] application/json {"id":"a/b c"} plain` {
				t.Errorf("the service was asked %v", asked)
			}
			dead := deadErrors(s)
			for id, want := range map[string]string{
				"missing": "service svc does not know what the message asks for (404 Not Found), and the step has no default", "conflict": "service svc answers 409 Conflict",
				"bytes": "content type", "large": "bytes, and at most 1048576 are taken", "deep": "nested deeper", "list": "unsupported index type", "nothing": "no such key: n",
				"empty": "a value that is inserted is empty", "dots": "which would lead elsewhere", "broken": "the body is not JSON", "taken": "into: detainee is there, and no object",
			} {
				if !strings.Contains(dead[id], want) || !strings.Contains(dead[id], "person") && id != "broken" && id != "list" || strings.Contains(dead[id], "secret") {
					t.Errorf("%s: %q, want %q", id, dead[id], want)
				}
			}
			if n := p.metric(`metip_connector_enriched_total{destination="d",outcome="answered",route="r"}`); n != 3 {
				t.Errorf("%v answered", n)
			}
		})
	}
}

func TestEnrichDefault(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	startService(t, s, "svc-1", newFakeService(always(jsonAnswer(410, ""))), nil)
	f := newFakeSink()
	got := bodiesOf(f)
	startSink(t, s, f, enrichRoute(func(e *contract.Enrich) { e.Default = `{"risk": "unknown", "of": data.n}` }))
	s.Publish("ns", "in", "src", "custody.arrest", "a", []byte(`{"n":1.50}`))
	within(t, 30*time.Second, "it is delivered", func() bool { return f.count() == 1 })
	if want := `{"n":1.50,"person":{"of":1.50,"risk":"unknown"}}`; got.get("a") != want {
		t.Errorf("%s, want %s", got.get("a"), want)
	}
}

// While nobody answers, messages wait and show where; when somebody does, all are delivered, each once, in order where that is kept.
func TestEnrichWaitsForItsService(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*contract.Route, *fakeSink){
		"single":  func(*contract.Route, *fakeSink) {},
		"batches": func(_ *contract.Route, f *fakeSink) { f.max = 10 },
		"lanes": func(r *contract.Route, f *fakeSink) {
			r.Delivery.Order, r.Delivery.Lanes = contract.OrderPerKey, 2
			f.max = 10
		},
		"strict": func(r *contract.Route, _ *fakeSink) { r.Delivery.Order, r.Delivery.Lanes = contract.OrderStrict, 1 },
		"parts": func(r *contract.Route, _ *fakeSink) {
			r.Steps = append([]contract.Step{{Name: "steps[0]", Split: &contract.Split{Items: "[data]"}}}, r.Steps...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			f := newFakeSink()
			r := enrichRoute(nil)
			r.Delivery.Attempts = 1 // none is lost by waiting
			change(&r, f)
			var mu sync.Mutex
			var order []string
			f.write = func(d *sdk.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, d.ID)
				return nil
			}
			p := startSink(t, s, f, r)
			const n = 60
			ids := publishMany(s, 0, n)
			said := report(t, s, "snk", "pod-1", "which service is missing", 30*time.Second, func(r contract.Report) bool {
				return len(r.Routes) == 1 && !r.Routes[0].OK && r.System.OK
			})
			if m := said.Routes[0].Message; said.Routes[0].Reason != contract.ReasonConnectionFailed || !strings.Contains(m, "steps[0] (person): service svc: no pod of service svc takes requests") {
				t.Errorf("the report says %s: %s", said.Routes[0].Reason, m)
			}
			within(t, 10*time.Second, "the circuit shows", func() bool {
				return p.metric(`metip_connector_circuit_open{destination="d",route="r"}`) == 1
			})
			service := newFakeService(persons)
			one := startService(t, s, "svc-1", service, nil)
			within(t, 60*time.Second, "all are delivered", func() bool { return f.count() == n })
			one.kill()
			more := publishMany(s, n, n)
			startService(t, s, "svc-2", service, nil)
			within(t, 60*time.Second, "the others are delivered", func() bool { return f.count() == 2*n })
			want := slices.Concat(ids, more)
			if name == "parts" {
				for i := range want {
					want[i] += "/0"
				}
			}
			if missing, twice := f.missing(want); len(missing) > 0 || twice > 0 {
				t.Errorf("missing %v, %d twice", missing, twice)
			}
			mu.Lock()
			if d := cmp.Diff(want, order); name == "strict" && d != "" {
				t.Error("the order:", d)
			}
			mu.Unlock()
			if dead := deadErrors(s); len(dead) > 0 {
				t.Errorf("dead letters: %v", dead)
			}
			report(t, s, "snk", "pod-1", "that it works", 30*time.Second, func(r contract.Report) bool { return len(r.Routes) == 0 })
		})
	}
}

// A service that leaves a call unanswered is asked again, and costs no attempt while no other message passes.
func TestEnrichTimeout(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	var slow atomic.Bool
	slow.Store(true)
	service := newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		if slow.Load() {
			return hang(ctx, r)
		}
		return persons(ctx, r)
	})
	startService(t, s, "svc-1", service, nil)
	f := newFakeSink()
	r := enrichRoute(func(e *contract.Enrich) { e.Timeout = contract.Duration(200 * time.Millisecond) })
	r.Delivery.Attempts = 1
	startSink(t, s, f, r)
	ids := publishMany(s, 0, 3)
	report(t, s, "snk", "pod-1", "that the service is late", 30*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && !r.Routes[0].OK && strings.Contains(r.Routes[0].Message, "steps[0] (person): service svc")
	})
	if dead := deadErrors(s); len(dead) > 0 {
		t.Errorf("dead letters: %v", dead)
	}
	slow.Store(false)
	// A machine under load may be as late as the service was.
	within(t, 60*time.Second, "all are settled", func() bool { return f.count()+len(deadReasons(s)) == len(ids) && settledAll(t, s, "ns_r_d") })
	if f.count() == 0 {
		t.Errorf("dead letters: %v", deadErrors(s))
	}
}

// What the service cannot do for one message is that message's matter, and the Route's retry policy says how often it is tried.
func TestEnrichRetries(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"error": 500, "away": 503, "forbidden": 403} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			var asked atomic.Int64
			startService(t, s, "svc-1", newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
				if r.Path == "/persons/0" {
					asked.Add(1)
					return jsonAnswer(status, `{"secret":1}`), nil
				}
				return persons(ctx, r)
			}), nil)
			f := newFakeSink()
			f.max = 5
			startSink(t, s, f, enrichRoute(nil))
			count := 0
			within(t, 60*time.Second, "the one is dead", func() bool {
				publishMany(s, count, 1) // that others pass shows whose fault it is
				count++
				return len(deadReasons(s)) == 1
			})
			within(t, 30*time.Second, "the others pass", func() bool { return f.count() == count-1 })
			if dead := deadErrors(s)["m0"]; !strings.HasPrefix(dead, contract.DeadReasonAttemptsExhausted) || strings.Contains(dead, "secret") ||
				!strings.Contains(dead, fmt.Sprintf("steps[0] (person): service svc answers %d %s", status, http.StatusText(status))) {
				t.Errorf("dead letter: %s", dead)
			}
			if asked.Load() < 4 {
				t.Errorf("it was tried %d times", asked.Load())
			}
		})
	}
}

func TestEnrichCacheIsBounded(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	service := newFakeService(persons)
	startService(t, s, "svc-1", service, nil)
	f := newFakeSink()
	got := bodiesOf(f)
	r := enrichRoute(func(e *contract.Enrich) {
		e.Path, e.Cache = "/persons/{data.n % 3}", &contract.EnrichCache{TTL: contract.Duration(time.Hour), Entries: 3}
	})
	r.Delivery.Order, r.Delivery.Lanes = contract.OrderStrict, 1 // one after the other
	p := startSink(t, s, f, r)
	publishMany(s, 0, 30)
	within(t, 60*time.Second, "all are delivered", func() bool { return f.count() == 30 })
	if n := service.count(); n != 3 {
		t.Errorf("the service was asked %d times, want 3", n)
	}
	if b := got.get("m17"); b != `{"n":17,"person":{"path":"/persons/2"}}` {
		t.Errorf("from the cache: %s", b)
	}
	if n := p.metric(`metip_connector_enriched_total{destination="d",outcome="cached",route="r"}`); n != 27 {
		t.Errorf("%v from the cache", n)
	}
	cache := newCallCache(contract.Cache{TTL: contract.Duration(time.Hour), MaxBytes: 4 * (cacheEntryCost + 100)})
	cache.maxEntries = 3
	for i := range 100 {
		cache.put(cacheKey{byte(i)}, jsonAnswer(200, strings.Repeat("x", 10+i)), time.Now())
	}
	if len(cache.entries) != 3 || cache.recent.Len() != 3 || cache.size > cache.max {
		t.Errorf("%d entries with %d bytes", len(cache.entries), cache.size)
	}
}

// The messages of a batch are asked for together.
func TestEnrichAsksTogether(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	const n = 8
	var inside atomic.Int64
	all := make(chan struct{})
	startService(t, s, "svc-1", newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		if inside.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
			return persons(ctx, r)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}), nil)
	f := newFakeSink()
	f.max = 100
	r := enrichRoute(nil)
	r.Delivery.Order, r.Delivery.Lanes = contract.OrderPerKey, 1
	o := sinkPod(t, s, f, 30*time.Second, r)
	publishMany(s, 0, n)
	startPod(t, o)
	within(t, 60*time.Second, "all are delivered", func() bool { return f.count() == n })
}

// In the relay a message is asked for once, whoever reads the event; steps that keep state see the answer.
func TestEnrichInTheRelay(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	service := newFakeService(persons)
	r := eventRoute(t, s, "r", "police.arrest", 10*time.Second, "src.custody.arrest")
	r.UID = "uid-r"
	r.Steps = slices.Concat(enrichRoute(func(e *contract.Enrich) { e.Path = "/persons/{data.n / 10}" }).Steps, []contract.Step{
		{Name: "steps[1]", Deduplicate: &contract.Deduplicate{Key: "data.person.path", Window: contract.Duration(time.Hour)}},
	})
	startPod(t, relayPod(s, r))
	publishMany(s, 0, 40)
	report(t, s, contract.RelayName("in"), "pod-1", "which service is missing", 30*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && strings.Contains(r.Routes[0].Message, "no pod of service svc takes requests")
	})
	startService(t, s, "svc-1", service, nil)
	within(t, 60*time.Second, "all are settled", func() bool { return settledAll(t, s, "ns_r_d") })
	seen := map[string]int{}
	for _, e := range events(s, "police.arrest") {
		var body struct{ Person struct{ Path string } }
		if err := json.Unmarshal(e.Data, &body); err != nil {
			t.Errorf("%s: %v", e.Data, err)
		}
		seen[body.Person.Path]++
	}
	if d := cmp.Diff(map[string]int{"/persons/0": 1, "/persons/1": 1, "/persons/2": 1, "/persons/3": 1}, seen); d != "" || len(deadReasons(s)) > 0 {
		t.Errorf("events: %s, dead letters: %v", d, deadErrors(s))
	}
}

// A service that is asked for more than it can take slows the destination down, and costs no message an attempt.
func TestEnrichOfABusyService(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	var inside, most atomic.Int64
	startService(t, s, "svc-1", newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		most.Store(max(most.Load(), inside.Add(1)))
		defer inside.Add(-1)
		time.Sleep(2 * time.Millisecond) // the work
		return persons(ctx, r)
	}), func(c *contract.Service) { c.MaxConcurrent = 2 })
	f := newFakeSink()
	f.max = 50
	r := enrichRoute(nil)
	r.Delivery.Attempts = 1
	startSink(t, s, f, r)
	ids := publishMany(s, 0, 200)
	within(t, 60*time.Second, "all are delivered", func() bool { return f.count() == len(ids) })
	if missing, twice := f.missing(ids); len(missing) > 0 || twice > 0 || len(deadReasons(s)) > 0 {
		t.Errorf("missing %v, %d twice, %v", missing, twice, deadErrors(s))
	}
	if most.Load() > 2 {
		t.Errorf("%d calls at a time", most.Load())
	}
}

// Whoever answers may be broken or bad: nothing of it reaches the system.
func TestEnrichBadAnswers(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	nc := connect(t, s, "bad", contract.ServicePermissions("ns", "in", "svc", time.Minute))
	subject := contract.ServiceSubject("ns", "in", "svc")
	if _, err := nc.QueueSubscribe(subject, subject, func(m *nats.Msg) {
		out := &nats.Msg{Subject: m.Reply, Header: nats.Header{"content-type": {"application/json"}}}
		switch path := first(m.Header, contract.HeaderCallPath); path {
		case "/persons/0":
			out.Data = bytes.Repeat([]byte("["), 7<<20)
		case "/persons/1":
			out.Data = []byte(`{"a":1}, "admin": true, "b": {"x":1}`)
		case "/persons/2":
			out.Data = bytes.Repeat([]byte("["), 100_000)
		case "/persons/3":
			out.Header.Set(contract.HeaderCallStatus, "600")
		default:
			out.Data = []byte(`"fine"`)
		}
		_ = m.RespondMsg(out)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	f := newFakeSink()
	startSink(t, s, f, enrichRoute(nil))
	count := 5
	publishMany(s, 0, count)
	within(t, 60*time.Second, "the bad ones are dead", func() bool {
		publishMany(s, count, 1)
		count++
		return len(deadReasons(s)) == 4
	})
	within(t, 30*time.Second, "the others pass", func() bool { return f.count() == count-4 })
	dead := deadErrors(s)
	for id, want := range map[string]string{"m0": "at most 1048576 are taken", "m1": "says that it is JSON, and is not", "m2": "says that it is JSON, and is not", "m3": "is malformed"} {
		if !strings.Contains(dead[id], want) {
			t.Errorf("%s: %q, want %q", id, dead[id], want)
		}
	}
}

// A pod whose user may not ask says so, and loses nothing.
func TestEnrichWithoutPermission(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	startService(t, s, "svc-1", newFakeService(persons), nil)
	f := newFakeSink()
	o := sinkPod(t, s, f, 10*time.Second, enrichRoute(nil))
	o.creds = s.CredsFile("snk", contract.SinkPermissions("ns", "snk", []contract.SinkDestination{{Integration: "in", Route: "r", Destination: "d"}}), time.Hour)
	startPod(t, o)
	publishMany(s, 0, 5)
	report(t, s, "snk", "pod-1", "that it may not ask", 30*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && strings.Contains(r.Routes[0].Message, "may not call service svc yet")
	})
	if n := f.count() + len(deadReasons(s)); n > 0 {
		t.Errorf("%d messages were settled", n)
	}
}
