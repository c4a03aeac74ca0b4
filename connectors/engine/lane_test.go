package engine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// testPinTime of lanes in tests.
const testPinTime = 2 * time.Second

// arrivals at a system, by key. The rule is the one of docs/ordering.md: a message of a key is tried only when the one before it has been, or
// again, from some earlier one on and then without a gap.
type arrivals struct {
	mu sync.Mutex
	// last message of each key that was tried, and all that were.
	last map[string]int
	seen map[string]map[int]bool
	// by is who tried last.
	by         map[string]string
	tries      int
	rewinds    int
	violations []string
	latest     time.Time
	silence    time.Duration
}

func newArrivals() *arrivals {
	return &arrivals{last: map[string]int{}, seen: map[string]map[int]bool{}, by: map[string]string{}}
}

// arrive: id is <key>.<number>, and numbers count from 1.
func (a *arrivals) arrive(id, by string) {
	key, number, _ := strings.Cut(id, ".")
	n, err := strconv.Atoi(number)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.violations = append(a.violations, "id "+id)
		return
	}
	a.tries++
	last := a.last[key]
	if n > last+1 {
		a.violations = append(a.violations, fmt.Sprintf("key %s: %d (%s) after %d (%s)", key, n, by, last, a.by[key]))
	}
	if n < last {
		a.rewinds++
	}
	if a.seen[key] == nil {
		a.seen[key] = map[int]bool{}
	}
	a.seen[key][n] = true
	a.last[key], a.by[key] = n, by
	if now := time.Now(); a.latest.IsZero() {
		a.latest = now
	} else {
		a.silence = max(a.silence, now.Sub(a.latest))
		a.latest = now
	}
}

// complete tells whether all messages up to these numbers have been tried, the last one last.
func (a *arrivals) complete(want map[string]int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, n := range want {
		if len(a.seen[key]) < n || a.last[key] != n {
			return false
		}
	}
	return true
}

func (a *arrivals) check(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	distinct := 0
	for _, s := range a.seen {
		distinct += len(s)
	}
	t.Logf("%d messages in %d tries, %d times from an earlier one on, longest silence %s", distinct, a.tries, a.rewinds, a.silence.Round(time.Millisecond))
	if n := len(a.violations); n > 0 {
		t.Errorf("%d times out of order: %q", n, a.violations[:min(n, 10)])
	}
}

// publishKeyed publishes number n of a key.
func publishKeyed(t testing.TB, s *enginetest.Server, key string, n int) uint64 {
	t.Helper()
	id := key + "." + strconv.Itoa(n)
	m := keyedMessage(key, id, fmt.Appendf(nil, `{"id":%q,"key":%q,"n":%d}`, id, key, n))
	ack, err := s.Admin().PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func keyedMessage(key, id string, body []byte) *nats.Msg {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	return &nats.Msg{
		Subject: contract.EventSubject("ns", "in", "src", contract.Slot(key), "custody.arrest"), Data: body,
		Header: nats.Header{
			"Nats-Msg-Id": {contract.MessageID("uid-src", "", id)}, contract.HeaderSpecVersion: {contract.SpecVersion}, contract.HeaderID: {id},
			contract.HeaderType: {"custody.arrest"}, contract.HeaderSource: {contract.SourceURI("ns", "src")}, contract.HeaderFormat: {"JSON"},
			contract.HeaderAccepted: {now}, contract.HeaderTime: {now}, contract.HeaderPartitionKey: {key},
		},
	}
}

// publishKeys publishes messages from..to of so many keys, in turn, and says what has to arrive.
func publishKeys(t testing.TB, s *enginetest.Server, keys, from, to int) map[string]int {
	t.Helper()
	want := map[string]int{}
	for n := from; n <= to; n++ {
		for k := range keys {
			key := "k" + strconv.Itoa(k)
			publishKeyed(t, s, key, n)
			want[key] = n
		}
	}
	return want
}

func orderedRoute(name string, order contract.Order, lanes int) contract.Route {
	r := routeConfig(name, "d")
	r.Delivery.Order, r.Delivery.Lanes = order, lanes
	return r
}

// settledLanes: the lanes owe nothing.
func settledLanes(t testing.TB, s *enginetest.Server, r contract.Route) bool {
	for _, durable := range contract.Durables(r.Durable, r.Delivery.Lanes) {
		if !settledAll(t, s, durable) {
			return false
		}
	}
	return true
}

func TestLanesKeepTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		order      contract.Order
		lanes, max int
	}{{contract.OrderPerKey, 1, 1}, {contract.OrderPerKey, 4, 1}, {contract.OrderPerKey, 16, 1}, {contract.OrderPerKey, 2, 50}, {contract.OrderStrict, 1, 1}, {contract.OrderStrict, 1, 50}} {
		t.Run(fmt.Sprintf("%s in %d lanes, batches of %d", c.order, c.lanes, c.max), func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			f, a := newFakeSink(), newArrivals()
			f.max = c.max
			var mu sync.Mutex
			under, failed := map[string]int{}, map[string]bool{}
			f.write = func(d *sdk.Delivery) error {
				key, _, _ := strings.Cut(d.ID, ".")
				if c.order == contract.OrderStrict {
					key = "all"
				}
				mu.Lock()
				under[key]++
				if under[key] > 1 {
					t.Errorf("%d messages of key %s are under way together", under[key], key)
				}
				// One in seven fails at first.
				fail := contract.Slot(d.ID)%7 == 0 && !failed[d.ID]
				failed[d.ID] = true
				mu.Unlock()
				a.arrive(d.ID, "")
				time.Sleep(100 * time.Microsecond)
				mu.Lock()
				under[key]--
				mu.Unlock()
				if fail {
					return errors.New("try again")
				}
				return nil
			}
			r := orderedRoute("r", c.order, c.lanes)
			want := publishKeys(t, s, 20, 1, 10)
			startSink(t, s, f, r)
			publishKeys(t, s, 20, 11, 15)
			for key := range want {
				want[key] = 15
			}
			within(t, 60*time.Second, "all delivered", func() bool { return a.complete(want) })
			within(t, 20*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
			a.check(t)
		})
	}
}

// What is strict arrives as the stream has it, whatever the keys.
func TestStrictKeepsTheOrderOfTheStream(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var mu sync.Mutex
	var got []string
	f.write = func(d *sdk.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, d.ID)
		if len(got) == 3 {
			return errors.New("try again")
		}
		return nil
	}
	var want []string
	for n := 1; n <= 30; n++ {
		for _, key := range []string{"a", "b", "c"} {
			publishKeyed(t, s, key, n)
			want = append(want, key+"."+strconv.Itoa(n))
		}
	}
	want = append(want[:3], want[2:]...)
	startSink(t, s, f, orderedRoute("r", contract.OrderStrict, 1))
	within(t, 30*time.Second, "all delivered", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == len(want) })
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("delivered %q", got)
	}
}

func TestKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	f.write = func(d *sdk.Delivery) error {
		body, _ := d.Body()
		a.arrive(body.(map[string]any)["case"].(string), "")
		return nil
	}
	want := map[string]int{}
	for n := 1; n <= 20; n++ {
		for k := range 5 {
			// The partition key, and with it the slot, is another for each message.
			key, id := "c"+strconv.Itoa(k), fmt.Sprintf("%d-%d", k, n)
			m := keyedMessage(id, id, fmt.Appendf(nil, `{"case":"%s.%d","key":%q}`, key, n, key))
			if _, err := s.Admin().PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			want[key] = n
		}
	}
	r := orderedRoute("r", contract.OrderPerKey, 1)
	r.Delivery.Key = "data.key"
	startSink(t, s, f, r)
	within(t, 30*time.Second, "all delivered", func() bool { return a.complete(want) })
	a.check(t)
}

// A message that fails holds up its own key and no other, and when it goes to the dead letters its key goes on.
func TestLaneGoesOnAfterADeadLetter(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	f.write = func(d *sdk.Delivery) error {
		a.arrive(d.ID, "")
		switch d.ID {
		case "k1.3":
			return errors.New("never")
		case "k2.2":
			return sdk.Permanentf("no such court")
		}
		return nil
	}
	r := orderedRoute("r", contract.OrderPerKey, 1)
	want := publishKeys(t, s, 4, 1, 12)
	p := startSink(t, s, f, r)
	within(t, 30*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
	if n := f.triesOf("k1.3"); n != 4 {
		t.Errorf("the failing message was tried %d times, want 4", n)
	}
	reasons := map[string]string{}
	for _, m := range s.Messages("ns_in_dead") {
		reasons[m.Header.Get(contract.HeaderID)] = m.Header.Get(contract.HeaderDeadReason)
	}
	if len(reasons) != 2 || reasons["k1.3"] != contract.DeadReasonAttemptsExhausted || reasons["k2.2"] != contract.DeadReasonRejected {
		t.Errorf("dead letters: %v", reasons)
	}
	if n := p.metric(`metip_connector_lane_active{destination="d",lane="0",route="r"}`); n != 1 {
		t.Errorf("lane_active is %v", n)
	}
}

// While the system is away nothing is given up and nothing overtakes, and the pod keeps its lanes.
func TestLanesWaitForTheSystem(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	down := errors.New("connection refused")
	write := func(d *sdk.Delivery) error { a.arrive(d.ID, ""); return nil }
	f.write = write
	r := orderedRoute("r", contract.OrderPerKey, 4)
	p := startSink(t, s, f, r)
	want := publishKeys(t, s, 8, 1, 3)
	within(t, 30*time.Second, "the first delivered", func() bool { return a.complete(want) })
	unavailable := sdk.Unavailable(contract.ReasonConnectionFailed, down)
	f.set(func() error { return unavailable }, func(d *sdk.Delivery) error { a.arrive(d.ID, ""); return unavailable })
	want = publishKeys(t, s, 8, 4, 30)
	report(t, s, "snk", "pod-1", "the system is away", 20*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonConnectionFailed
	})
	// For longer than a pin lasts.
	within(t, 20*time.Second, "some tries", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.tries > 8*3+4 })
	f.set(func() error { return nil }, write)
	within(t, 60*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
	if n := len(s.Messages("ns_in_dead")); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	report(t, s, "snk", "pod-1", "all is well", 20*time.Second, func(r contract.Report) bool { return r.System.OK && len(r.Routes) == 0 })
	_ = p
}

// Of two pods one delivers; the other is well all the same, and goes on when the first is gone.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	a := newArrivals()
	pods := map[string]*pod{}
	r := orderedRoute("r", contract.OrderPerKey, 2)
	for _, name := range []string{"pod-1", "pod-2"} {
		f := newFakeSink()
		f.write = func(d *sdk.Delivery) error { a.arrive(d.ID, name); return nil }
		o := sinkPod(t, s, f, 5*time.Second, r)
		o.name = name
		pods[name] = startPod(t, o)
	}
	want := publishKeys(t, s, 10, 1, 10)
	within(t, 30*time.Second, "the first delivered", func() bool { return a.complete(want) })
	active := func(p *pod) (n float64) {
		for lane := range 2 {
			n += p.metric(`metip_connector_lane_active{destination="d",lane="` + strconv.Itoa(lane) + `",route="r"}`)
		}
		return n
	}
	if n := active(pods["pod-1"]) + active(pods["pod-2"]); n != 2 {
		t.Errorf("%v lanes are active", n)
	}
	for name := range pods {
		report(t, s, "snk", name, "all is well", 20*time.Second, func(r contract.Report) bool { return r.Bus.OK && r.System.OK && len(r.Routes) == 0 })
	}
	first, second := pods["pod-1"], pods["pod-2"]
	if active(first) == 0 {
		first, second = second, first
	}
	first.drain()
	want = publishKeys(t, s, 10, 11, 20)
	within(t, 60*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
	if n := active(second); n != 2 {
		t.Errorf("%v lanes are active", n)
	}
	// Nothing was under way when the first ended, so that nothing had to come again.
	if a.tries != 200 {
		t.Logf("%d tries of 200 messages", a.tries)
	}
}

// However long a message is tried again, no more than laneSpan others are delivered past it.
func TestLaneSpanIsBounded(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	held := true
	var mu sync.Mutex
	f.write = func(d *sdk.Delivery) error {
		a.arrive(d.ID, "")
		mu.Lock()
		defer mu.Unlock()
		if held && d.ID == "stuck.1" {
			return errors.New("not yet")
		}
		return nil
	}
	r := orderedRoute("r", contract.OrderPerKey, 1)
	r.Delivery.Attempts = 0
	publishKeyed(t, s, "stuck", 1)
	want := publishKeys(t, s, 40, 1, 40)
	want["stuck"] = 1
	startSink(t, s, f, r)
	total := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		n := 0
		for _, seen := range a.seen {
			n += len(seen)
		}
		return n
	}
	within(t, 60*time.Second, "as much as may be", func() bool { return total() >= laneSpan })
	time.Sleep(500 * time.Millisecond)
	if n := total(); n > laneSpan {
		t.Errorf("%d messages were delivered past one that is not done with", n-1)
	}
	mu.Lock()
	held = false
	mu.Unlock()
	within(t, 60*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
}

// A pod that alone cannot reach the system does not keep the lanes from one that can.
func TestLaneGoesToAPodThatReachesTheSystem(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	a := newArrivals()
	r := orderedRoute("r", contract.OrderPerKey, 2)
	cut := newFakeSink()
	unavailable := sdk.Unavailable(contract.ReasonConnectionFailed, errors.New("no route to host"))
	cut.check = func() error { return unavailable }
	cut.write = func(d *sdk.Delivery) error { a.arrive(d.ID, "cut"); return unavailable }
	o := sinkPod(t, s, cut, 5*time.Second, r)
	o.name = "pod-1"
	first := startPod(t, o)
	want := publishKeys(t, s, 10, 1, 5)
	within(t, 30*time.Second, "the pod that is cut off has both lanes", func() bool {
		return first.metric(`metip_connector_lane_active{destination="d",lane="0",route="r"}`)+first.metric(`metip_connector_lane_active{destination="d",lane="1",route="r"}`) == 2
	})
	well := newFakeSink()
	well.write = func(d *sdk.Delivery) error { a.arrive(d.ID, "well"); return nil }
	o = sinkPod(t, s, well, 5*time.Second, r)
	o.name = "pod-2"
	startPod(t, o)
	within(t, time.Minute, "all delivered", func() bool { return well.count() == 50 && a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
}

// Marks move the floors of all lanes, also of those that have nothing to deliver: trimming waits for the lowest.
func TestLanesAcknowledgeMarks(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	f.write = func(d *sdk.Delivery) error { a.arrive(d.ID, ""); return nil }
	r := orderedRoute("r", contract.OrderPerKey, 4)
	startSink(t, s, f, r)
	want := publishKeys(t, s, 1, 1, 20) // of one key, so that three lanes are idle
	ack, err := s.Admin().Publish(t.Context(), contract.MarkSubject("ns", "in"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want["k0"] = publishKeys(t, s, 1, 21, 25)["k0"]
	within(t, 30*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 30*time.Second, "every floor is at the mark", func() bool {
		for _, durable := range contract.Durables(r.Durable, 4) {
			c, err := s.Admin().Consumer(t.Context(), "ns_in", durable)
			if err != nil || c.CachedInfo().AckFloor.Stream < ack.Sequence {
				return false
			}
		}
		return true
	})
	a.check(t)
}

// A computed key of a large body has its part of the pod's memory too.
func TestKeyOfALargeBody(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f, a := newFakeSink(), newArrivals()
	f.write = func(d *sdk.Delivery) error { a.arrive(d.ID, ""); return nil }
	want := map[string]int{}
	for n := 1; n <= 4; n++ {
		id := "k." + strconv.Itoa(n)
		body := fmt.Appendf(nil, `{"text":%q,"key":"k"}`, strings.Repeat("x", 1<<20))
		if _, err := s.Admin().PublishMsg(t.Context(), keyedMessage(id, id, body)); err != nil {
			t.Fatal(err)
		}
		want["k"] = n
	}
	r := orderedRoute("r", contract.OrderPerKey, 1)
	r.Delivery.Key = "data.key"
	startSink(t, s, f, r)
	within(t, 60*time.Second, "all delivered", func() bool { return a.complete(want) })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledLanes(t, s, r) })
	a.check(t)
}
