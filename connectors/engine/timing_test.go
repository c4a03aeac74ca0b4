package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// writes of a fake sink: when each id was written.
type writes struct {
	mu sync.Mutex
	at map[string][]time.Time
	// all in the order of their coming.
	all []time.Time
}

func (w *writes) note(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.at[id], w.all = append(w.at[id], now), append(w.all, now)
}

func (w *writes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.at)
}

func recordWrites(f *fakeSink) *writes {
	w := &writes{at: map[string][]time.Time{}}
	f.write = func(d *sdk.Delivery) error { w.note(d.ID); return nil }
	return w
}

// delayed makes a destination of delays, with a durable that takes no more than maxPending unacknowledged messages.
func delayed(t testing.TB, s *enginetest.Server, delay contract.Delay, maxPending int) contract.Route {
	t.Helper()
	r := routeConfig("r", "d")
	r.Steps = []contract.Step{{Name: "filter", Filter: "!has(data.skip)"}, {Name: "steps[0]", Delay: &delay}, {Name: "steps[1]", JQ: ". + {after: true}"}}
	_, err := s.Admin().CreateConsumer(t.Context(), r.Stream, jetstream.ConsumerConfig{
		Durable: r.Durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second, MaxDeliver: -1, MaxAckPending: maxPending,
		FilterSubjects: []string{contract.EventSubjects("ns", "in"), contract.MarkSubject("ns", "in")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func startDelayed(t testing.TB, s *enginetest.Server, f *fakeSink, name string, r contract.Route) *pod {
	o := sinkPodOf(s, f, r)
	o.name = name
	return startPod(t, o)
}

// Far more messages wait than the broker lets be unacknowledged, for longer than AckWait, over a change of pods and a restart of the broker: each
// is delivered once, not before its time, and loses no attempt by waiting.
func TestDelayFor(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	const wait, n = 6 * time.Second, 600
	r := delayed(t, s, contract.Delay{For: contract.Duration(wait)}, 50)
	r.Delivery.Attempts = 2
	f := newFakeSink()
	w := recordWrites(f)
	p := startDelayed(t, s, f, "pod-1", r)
	published := map[string]time.Time{}
	for i := range n {
		id, body := fmt.Sprintf("m%d", i), `{"n":1}`
		if i%10 == 0 {
			body = `{"skip":true}`
		} else {
			published[id] = time.Now()
		}
		s.Publish("ns", "in", "src", "custody.arrest", id, []byte(body))
	}
	p.drain()
	startDelayed(t, s, f, "pod-2", r)
	s.Kill()
	s.Boot()
	within(t, 90*time.Second, "all delivered", func() bool { return w.count() == len(published) })
	within(t, 20*time.Second, "all settled", func() bool { return settledAll(t, s, r.Durable) })
	for id, at := range published {
		if early := wait - w.at[id][0].Sub(at); len(w.at[id]) != 1 || early > 50*time.Millisecond {
			t.Errorf("%s was written %d times, the first %s too early", id, len(w.at[id]), early)
		}
	}
	if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
		t.Errorf("%d dead letters: %s", len(dead), dead[0].Header.Get(contract.HeaderDeadError))
	}
}

func TestDelayUntil(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	r := delayed(t, s, contract.Delay{Until: "timestamp(data.at)"}, 1000)
	f := newFakeSink()
	w := recordWrites(f)
	startDelayed(t, s, f, "pod-1", r)
	due := map[string]time.Time{}
	for i, wait := range []time.Duration{5 * time.Second, -time.Hour, 2 * time.Second, 0} {
		id := fmt.Sprintf("m%d", i)
		due[id] = time.Now().Add(wait)
		s.Publish("ns", "in", "src", "custody.arrest", id, fmt.Appendf(nil, `{"at":%q}`, due[id].UTC().Format(time.RFC3339Nano)))
	}
	s.Publish("ns", "in", "src", "custody.arrest", "never", []byte(`{"at":"2999-01-01T00:00:00Z"}`))
	s.Publish("ns", "in", "src", "custody.arrest", "broken", []byte(`{"at":"soon"}`))
	within(t, 30*time.Second, "all delivered", func() bool { return w.count() == len(due) })
	within(t, 10*time.Second, "two dead letters", func() bool { return len(s.Messages("ns_in_dead")) == 2 })
	for id, at := range due {
		if len(w.at[id]) != 1 || w.at[id][0].Before(at) {
			t.Errorf("%s was due at %s, and written at %v", id, at, w.at[id])
		}
	}
	for _, m := range s.Messages("ns_in_dead") {
		if m.Header.Get(contract.HeaderDeadReason) != contract.DeadReasonStepFailed || !strings.HasPrefix(m.Header.Get(contract.HeaderDeadStep), "steps[0]") {
			t.Errorf("a dead letter with %q", m.Header)
		}
	}
}

func TestLimiter(t *testing.T) {
	route := contract.Route{Steps: []contract.Step{{Throttle: &contract.Throttle{Rate: 100, Per: contract.Duration(time.Second)}}, {Filter: "true"}}}
	for share, want := range map[int]int{0: 1005, 1: 1005, 4: 251} {
		d := &destination{limits: limitersOf(&route, share), gated: true}
		l, now, got := &d.limits[0], time.Now(), 0
		for step := range 10000 { // ten seconds, asked every millisecond
			for at := now.Add(time.Duration(step) * time.Millisecond); l.wait(at) == 0; got++ {
				l.take(at)
			}
		}
		if got < want-5 || got > want+1 {
			t.Errorf("share %d: %d attempts in ten seconds, want %d", share, got, want)
		}
	}
	if limits := limitersOf(&contract.Route{Steps: []contract.Step{{Filter: "true"}}}, 1); limits != nil {
		t.Error("a limit without a throttle")
	}
}

// Two pods keep one rate together, also while one of them dies; what is filtered costs nothing, and what fails costs again.
func TestThrottle(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 50} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			s := startBroker(t)
			const rate, n = 50, 400
			r := routeConfig("r", "d")
			r.Steps = []contract.Step{{Name: "steps[0]", Throttle: &contract.Throttle{Rate: rate, Per: contract.Duration(time.Second)}}, {Name: "steps[1]", Filter: "!has(data.skip)"}}
			_, err := s.Admin().CreateConsumer(t.Context(), r.Stream, jetstream.ConsumerConfig{
				Durable: r.Durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second, MaxDeliver: -1, MaxAckPending: 2000,
				PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{contract.LaneGroup}, PinnedTTL: contract.LanePinTime,
				FilterSubjects: []string{contract.EventSubjects("ns", "in"), contract.MarkSubject("ns", "in")},
			})
			if err != nil {
				t.Fatal(err)
			}
			f := newFakeSink()
			f.max = max
			w := &writes{at: map[string][]time.Time{}}
			f.write = func(d *sdk.Delivery) error {
				w.note(d.ID)
				if d.Attempt == 1 && strings.HasSuffix(d.ID, "7") {
					return fmt.Errorf("not the first time")
				}
				return nil
			}
			// What the pods of a killed connection hold is delivered again.
			begun := time.Now()
			var cuts []*proxy
			for i := range 2 {
				cut := startProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
				cuts = append(cuts, cut)
				o := sinkPodOf(s, f, r)
				o.name, o.grace = fmt.Sprintf("pod-%d", i), 100*time.Millisecond
				o.config.Broker.URLs = []string{cut.url()}
				startPod(t, o)
			}
			want := 0
			for i := range n {
				body := `{}`
				if i%2 == 0 {
					body = `{"skip":true}`
				} else {
					want++
				}
				s.Publish("ns", "in", "src", "custody.arrest", fmt.Sprintf("m%d", i), []byte(body))
			}
			within(t, 60*time.Second, "a quarter delivered", func() bool { return w.count() > want/4 })
			cuts[0].cut()
			within(t, 90*time.Second, "all delivered", func() bool { return w.count() == want })
			within(t, 30*time.Second, "all settled", func() bool { return settledAll(t, s, r.Durable) })
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("%d attempts in %s", len(w.all), w.all[len(w.all)-1].Sub(begun))
			// Whoever is late may be so by as much as the test's machine is; hence the allowance.
			for i, from := range w.all {
				for j := i; j < len(w.all); j++ {
					if allowed := int(w.all[j].Sub(from)*rate/time.Second) + 3 + 12; j-i+1 > allowed {
						t.Fatalf("%d attempts in %s, %d may", j-i+1, w.all[j].Sub(from), allowed)
					}
				}
			}
		})
	}
}

// sinkPodOf a route whose durable exists.
func sinkPodOf(s *enginetest.Server, f *fakeSink, r contract.Route) podOptions {
	return podOptions{
		config: &contract.Config{
			Version: contract.ConfigVersion, Hash: "h1",
			Connector: contract.Connector{Namespace: "ns", Name: "snk", UID: "uid-snk", Integration: "in"},
			Broker:    s.Broker(),
			Sink:      &contract.Sink{System: contract.System{Type: "test"}, Routes: []contract.Route{r}},
		},
		system: f.system(), creds: s.CredsFile("snk", contract.SinkPermissions("ns", "snk", []contract.SinkDestination{{Integration: "in", Route: r.Name, Destination: r.Destination}}), time.Hour),
	}
}
