package engine

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// splitRoute splits the body's member parts. Parts that have skip are filtered, and n is doubled.
func splitRoute() contract.Route {
	r := routeConfig("r", "d")
	r.Steps = []contract.Step{
		{Name: "filter", Filter: "!has(data.skipAll)"},
		{Name: "steps[0]", Split: &contract.Split{Items: "data.parts"}},
		{Name: "steps[1]", Filter: "!has(data.skip)"},
		{Name: "steps[2]", JQ: "{n: (.n * 2)}"},
	}
	return r
}

// partsOf makes a body with so many parts.
func partsOf(n int) []byte {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(`{"n":%d}`, i)
	}
	return []byte(`{"parts":[` + strings.Join(parts, ",") + `]}`)
}

// written are the parts that a fake sink was given, in order.
type written struct {
	mu  sync.Mutex
	ids []string
	all map[string]*sdk.Delivery
}

// record what the sink is given; answer says what it answers, by the part's id and how often it was tried before.
func record(f *fakeSink, answer func(id string, before int) error) *written {
	w := &written{all: map[string]*sdk.Delivery{}}
	tries := map[string]int{}
	f.write = func(d *sdk.Delivery) error {
		w.mu.Lock()
		before := tries[d.ID]
		tries[d.ID]++
		w.ids = append(w.ids, d.ID)
		m := *d.Message
		w.all[d.ID] = &sdk.Delivery{Message: &m, MessageID: d.MessageID, Durable: d.Durable, Attempt: d.Attempt}
		w.mu.Unlock()
		if answer == nil {
			return nil
		}
		return answer(d.ID, before)
	}
	return w
}

// of a message, the numbers of its parts in the order in which they were tried.
func (w *written) of(id string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, got := range w.ids {
		if n, ok := strings.CutPrefix(got, id+"/"); ok {
			out = append(out, n)
		}
	}
	return out
}

func TestSplitDeliversParts(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 3, 100} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			f := newFakeSink()
			f.max = max
			w := record(f, nil)
			p := startSink(t, s, f, splitRoute())
			for id, body := range map[string]string{
				"four": `{"parts":[{"n":1.10},{"n":2,"skip":true},{"n":3},{"n":4}]}`, "none": `{"parts":[]}`, "filtered": `{"parts":[{"n":1,"skip":1}]}`,
				"whole": `{"skipAll":true}`, "nolist": `{"parts":{}}`, "nobody": `{`, "broken": `{"parts":[{"n":1},{"n":{}},{"n":3}]}`,
			} {
				s.Publish("ns", "in", "src", "custody.arrest", id, []byte(body))
			}
			within(t, 30*time.Second, "all settled", func() bool { return f.count() == 5 && len(deadReasons(s)) == 3 && settledAll(t, s, "ns_r_d") })
			if d := cmp.Diff([]string{"0", "2", "3"}, w.of("four")); d != "" {
				t.Error("parts of the first message:", d)
			}
			if d := cmp.Diff([]string{"0", "2"}, w.of("broken")); d != "" {
				t.Error("a part that fails does not keep the others:", d)
			}
			w.mu.Lock()
			part := w.all["four/2"]
			w.mu.Unlock()
			if part == nil {
				t.Fatal("there is no part 2")
			}
			if string(part.Data) != `{"n":6}` || part.MessageID != "uid-src//four/2" || part.Type != "custody.arrest" || part.Attempt != 1 ||
				part.Headers[contract.ExtensionSplitID] != "four" || part.Headers[contract.ExtensionSplitIndex] != "2" || part.Headers[contract.ExtensionSplitCount] != "4" ||
				part.ContentType != "application/json" {
				t.Errorf("part: %+v", part)
				t.Errorf("its message: %+v", part.Message)
			}
			if d := cmp.Diff(map[string]string{"nolist": "StepFailed", "nobody": "Malformed", "broken": "StepFailed"}, deadReasons(s)); d != "" {
				t.Error("dead letters:", d)
			}
			for _, m := range s.Messages("ns_in_dead") {
				if m.Header.Get(contract.HeaderID) == "broken" {
					if m.Header.Get(contract.HeaderDeadPart) != "1" || m.Header.Get(contract.HeaderDeadStep) != "steps[2]" || string(m.Data) != `{"parts":[{"n":1},{"n":{}},{"n":3}]}` ||
						!strings.HasPrefix(m.Header.Get(contract.HeaderDeadError), "part 1 of 3: steps[2]: ") {
						t.Errorf("%s %v", m.Data, m.Header)
					}
				} else if m.Header.Get(contract.HeaderDeadPart) != "" {
					t.Errorf("a dead letter without parts names one: %v", m.Header)
				}
			}
			for metric, want := range map[string]float64{
				`metip_connector_parts_total{destination="d",outcome="delivered",route="r"}`: 5,
				`metip_connector_parts_total{destination="d",outcome="filtered",route="r"}`:  2,
				`metip_connector_parts_total{destination="d",outcome="failed",route="r"}`:    1,
				`metip_connector_delivered_total{destination="d",route="r"}`:                 1,
				`metip_connector_filtered_total{destination="d",route="r"}`:                  3,
			} {
				if got := p.metric(metric); got != want {
					t.Errorf("%s is %v, want %v", metric, got, want)
				}
			}
		})
	}
}

// TestSplitTriesOnlyWhatIsLeft: what is confirmed is not sent again by the same pod, whatever becomes of the others.
func TestSplitTriesOnlyWhatIsLeft(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 100} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			f := newFakeSink()
			f.max = max
			w := record(f, func(id string, before int) error {
				switch {
				case id == "m/3" && before < 2, id == "m/5" && before < 1:
					return errors.New("deadlock")
				case id == "rejected/0", id == "rejected/2":
					return sdk.Permanentf("not known")
				case id == "exhausted/1":
					return errors.New("deadlock")
				case id == "panics/1":
					panic("boom")
				}
				return nil
			})
			p := startSink(t, s, f, splitRoute())
			for _, id := range []string{"m", "rejected", "exhausted"} {
				s.Publish("ns", "in", "src", "custody.arrest", id, partsOf(7))
			}
			within(t, 30*time.Second, "all settled", func() bool { return len(deadReasons(s)) == 2 && f.has("m/3") && settledAll(t, s, "ns_r_d") })
			s.Publish("ns", "in", "src", "custody.arrest", "panics", partsOf(7)) // a batch that panics is written again, each by itself
			within(t, 30*time.Second, "that as well", func() bool { return len(deadReasons(s)) == 3 && settledAll(t, s, "ns_r_d") })
			if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6", "3", "5", "3"}, w.of("m")); d != "" {
				t.Error("m:", d)
			}
			if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6"}, w.of("rejected")); d != "" {
				t.Error("rejected:", d)
			}
			if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6", "1", "1", "1"}, w.of("exhausted")); d != "" {
				t.Error("exhausted:", d)
			}
			if got := w.of("panics"); max == 1 && !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6"}) || !slices.Contains(got, "6") {
				t.Error("panics:", got)
			}
			letters := map[string]string{}
			for _, m := range s.Messages("ns_in_dead") {
				h := m.Header
				letters[h.Get(contract.HeaderID)] = strings.Join([]string{h.Get(contract.HeaderDeadReason), h.Get(contract.HeaderDeadPart), h.Get(contract.HeaderDeadAttempts), h.Get(contract.HeaderDeadError)}, " ")
			}
			if d := cmp.Diff(map[string]string{
				"rejected":  "Rejected 0 0 part 0 of 7: not known (and 1 more parts failed)",
				"exhausted": "AttemptsExhausted 1 3 part 1 of 7: deadlock",
				"panics":    "Rejected 1 0 part 1 of 7: the connector panicked: boom",
			}, letters); d != "" {
				t.Error(d)
			}
			if n := p.metric(`metip_connector_delivered_total{destination="d",route="r"}`); n != 1 {
				t.Error("delivered", n)
			}
		})
	}
}

// TestSplitWaitsForTheSystem: while the system does not work no attempt counts, and afterwards only what is left is sent.
func TestSplitWaitsForTheSystem(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	down := make(chan struct{})
	away := func() error {
		select {
		case <-down:
			return nil
		default:
			return sdk.Unavailable(contract.ReasonConnectionFailed, errors.New("connection refused"))
		}
	}
	f.check = away
	w := record(f, func(id string, _ int) error {
		if strings.HasSuffix(id, "/0") || strings.HasSuffix(id, "/1") {
			return nil
		}
		return away()
	})
	p := startSink(t, s, f, splitRoute())
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		s.Publish("ns", "in", "src", "custody.arrest", id, partsOf(4))
	}
	report(t, s, "snk", "pod-1", "the system is away", 20*time.Second, func(r contract.Report) bool { return !r.System.OK })
	within(t, 60*time.Second, "several probes", func() bool { return len(w.of("a"))+len(w.of("b"))+len(w.of("c")) > 5 })
	close(down)
	within(t, 30*time.Second, "all settled", func() bool { return f.count() == 12 && settledAll(t, s, "ns_r_d") })
	for _, id := range ids {
		for n, times := range map[string]int{"0": 1, "1": 1, "3": 1} {
			if got := len(slices.DeleteFunc(w.of(id), func(x string) bool { return x != n })); got != times {
				t.Errorf("part %s of %s was sent %d times", n, id, got)
			}
		}
	}
	if n := p.metric(`metip_connector_delivered_total{destination="d",route="r"}`); n != 3 {
		t.Error("delivered", n)
	}
	if len(s.Messages("ns_in_dead")) > 0 {
		t.Error("there are dead letters")
	}
}

// TestSplitKeepsTheOrder: in a lane no part overtakes one that is to be tried again, nor does the next message of the key.
func TestSplitKeepsTheOrder(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.max = 2
	w := record(f, func(id string, before int) error {
		if before < 2 && (id == "m0/1" || id == "m1/3") {
			return errors.New("deadlock")
		}
		return nil
	})
	r := splitRoute()
	r.Delivery.Order, r.Delivery.Lanes = contract.OrderStrict, 1
	startSink(t, s, f, r)
	for i := range 3 {
		s.Publish("ns", "in", "src", "custody.arrest", fmt.Sprintf("m%d", i), partsOf(5))
	}
	within(t, 60*time.Second, "all delivered", func() bool { return f.count() == 15 })
	last := ""
	w.mu.Lock()
	defer w.mu.Unlock()
	confirmed := map[string]int{}
	for _, id := range w.ids {
		confirmed[id]++
		if id < last && confirmed[id] == 1 {
			t.Errorf("%s came after %s: %v", id, last, w.ids)
		}
		last = max(last, id)
	}
	// Batches are of two: of (m0/0, m0/1) and (m1/2, m1/3) the first is confirmed, and m0/2 and m1/4 have to wait.
	if i, j := slices.Index(w.ids, "m0/2"), slices.Index(w.ids, "m1/4"); confirmed["m0/1"] != 3 || confirmed["m1/3"] != 3 ||
		slices.Contains(w.ids[i:], "m0/1") || slices.Contains(w.ids[j:], "m1/3") {
		t.Errorf("overtaken: %v", w.ids)
	}
}

// TestSplitIsThrottled by the part.
func TestSplitIsThrottled(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.max = 10
	r := splitRoute()
	r.Steps = append(r.Steps, contract.Step{Name: "steps[3]", Throttle: &contract.Throttle{Rate: 20, Per: contract.Duration(time.Second)}})
	begun := time.Now()
	startSink(t, s, f, r)
	s.Publish("ns", "in", "src", "custody.arrest", "m", partsOf(20))
	within(t, 30*time.Second, "all delivered", func() bool { return f.count() == 20 })
	if took := time.Since(begun); took < 850*time.Millisecond {
		t.Errorf("20 parts at 20 a second took %s", took)
	}
}

// TestSplitTwice: what the API refuses the engine refuses too.
func TestSplitTwice(t *testing.T) {
	for _, more := range []contract.Step{{Name: "steps[3]", Split: &contract.Split{Items: "data"}}, {Name: "steps[3]", Delay: &contract.Delay{For: contract.Duration(time.Second)}}} {
		d := &destination{route: splitRoute()}
		d.route.Steps = append(d.route.Steps, more)
		for _, step := range d.route.Steps {
			c, err := steps.Compile(step)
			if err != nil {
				t.Fatal(err)
			}
			d.steps = append(d.steps, c)
		}
		if err := d.splitSteps(); err == nil || !strings.HasPrefix(err.Error(), "steps[3]: ") {
			t.Error(err)
		}
	}
}

// TestSplitReplayed: a replay's parts have the ids of the original's, and so have those of the next attempt by another pod.
func TestSplitReplayed(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	w := record(f, nil)
	startSink(t, s, f, splitRoute())
	sequence := s.Publish("ns", "in", "src", "custody.arrest", "m", partsOf(2))
	within(t, 20*time.Second, "the original", func() bool { return f.count() == 2 })
	w.mu.Lock()
	first := w.all["m/1"].MessageID
	w.mu.Unlock()
	replay(t, s, sequence)
	within(t, 20*time.Second, "the copy", func() bool { return len(w.of("m")) == 4 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.all["m/1"].MessageID; got != first || first != "uid-src//m/1" {
		t.Errorf("%q, then %q", first, got)
	}
}

// TestSplitPodDiesAtRandom: a sink's pod is killed at random while it delivers parts. Every part arrives; what arrives twice has the same id,
// and is part of a message that the pod had when it died.
func TestSplitPodDiesAtRandom(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	c.Streams("ns", "in", streamSize)
	target := newCountingTarget(t)
	target.answer = func(id string, times int) int {
		time.Sleep(2 * time.Millisecond)
		if strings.HasSuffix(id, "9/4") && times == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
	p := startSinkChild(t, c.Server, target, splitRoute())
	const messages, parts, kills = 200, 25, 6
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range messages {
			c.Publish("ns", "in", "src", "custody.arrest", fmt.Sprintf("m%d", i), partsOf(parts))
		}
	}()
	for range kills {
		before, _ := target.counts()
		within(t, 30*time.Second, "parts arrive", func() bool {
			n, _ := target.counts()
			return n > min(before+40, messages*parts-1)
		})
		time.Sleep(between(r, 0, 150*time.Millisecond))
		p.restart()
	}
	<-published
	within(t, 120*time.Second, "all parts have arrived", func() bool { n, _ := target.counts(); return n >= messages*parts })
	within(t, 30*time.Second, "all are acknowledged", func() bool { return settledAll(t, c.Server, "ns_r_d") })
	ids, duplicates := target.counts()
	t.Logf("%d kills, %d parts, %d came again", kills, ids, duplicates)
	for i := range messages {
		for n := range parts {
			if id := fmt.Sprintf("m%d/%d", i, n); target.times(id) == 0 {
				t.Errorf("%s is missing", id)
			}
		}
	}
	expected := map[string]bool{}
	for i := range messages {
		for n := range parts {
			expected[fmt.Sprintf("m%d/%d", i, n)] = true
		}
	}
	target.mu.Lock()
	defer target.mu.Unlock()
	for id := range target.got {
		// The test of another process may ask at an address that was its own a moment ago: that is no id of a message.
		if strings.HasPrefix(id, "m") && !expected[id] {
			t.Errorf("id %q: a part has more than one", id)
		}
	}
	if most := kills*singleWorkers*parts + messages; duplicates > most {
		t.Errorf("%d parts came again, and %d pods had at most %d messages each", duplicates, kills, singleWorkers)
	}
	if len(c.Messages("ns_in_dead")) > 0 {
		t.Error("there are dead letters")
	}
}
