package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

const streamSize = 64 << 20

func startBroker(t testing.TB) *enginetest.Server {
	t.Helper()
	s := enginetest.Start(t, enginetest.Options{})
	s.Streams("ns", "in", streamSize)
	return s
}

func publishMany(s *enginetest.Server, from, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("m%d", from+i)
		s.Publish("ns", "in", "src", "custody.arrest", ids[i], fmt.Appendf(nil, `{"n":%d}`, from+i))
	}
	return ids
}

// settledAll: the durable owes nothing.
func settledAll(t testing.TB, s *enginetest.Server, durable string) bool {
	c, err := s.Admin().Consumer(t.Context(), "ns_in", durable)
	if err != nil {
		return false
	}
	i, err := c.Info(t.Context())
	return err == nil && i.NumPending == 0 && i.NumAckPending == 0
}

func TestSinkDelivers(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	for _, max := range []int{1, 100} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			f := newFakeSink()
			f.max = max
			name := fmt.Sprintf("r%d", max)
			p := startSink(t, s, f, routeConfig(name, "d"))
			ids := publishMany(s, max*10000, 2000)
			within(t, 20*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
			if _, duplicates := f.missing(ids); duplicates > 0 {
				t.Errorf("%d duplicates", duplicates)
			}
			within(t, 5*time.Second, "all acknowledged", func() bool { return settledAll(t, s, "ns_"+name+"_d") })
			if code, _ := p.get("/readyz"); code != 200 {
				t.Error("not ready:", code)
			}
			if n := p.metric(`metip_connector_delivered_total{destination="d",route="` + name + `"}`); n < 2000 {
				t.Error("delivered_total is", n)
			}
			r := report(t, s, "snk", "pod-1", "all is well", 5*time.Second, func(r contract.Report) bool { return r.System.OK && r.Bus.OK && len(r.Routes) == 0 })
			if r.ConfigHash != "h1" {
				t.Error("config hash", r.ConfigHash)
			}
			p.drain()
			report(t, s, "snk", "pod-1", "draining", time.Second, func(r contract.Report) bool { return r.Draining })
		})
	}
}

func TestSinkMediates(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var mu sync.Mutex
	bodies := map[string]string{}
	f.write = func(d *sdk.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		bodies[d.ID] = string(d.Data) + " " + d.Headers["x"] + " " + d.MessageID
		return nil
	}
	r := routeConfig("r", "d")
	r.Steps = []contract.Step{
		{Name: "filter", Filter: "data.n >= 2"}, {Name: "steps[0]", JQ: "select(.n < 5) | {m: (.n * 2), t: $message.type}"}, {Name: "to[d].filter", Filter: "data.m != 6"},
	}
	p := startSink(t, s, f, r)
	publishMany(s, 0, 6)
	within(t, 10*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	want := map[string]string{"m2": `{"m":4,"t":"custody.arrest"}  uid-src//m2`, "m4": `{"m":8,"t":"custody.arrest"}  uid-src//m4`}
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) != len(want) || bodies["m2"] != want["m2"] || bodies["m4"] != want["m4"] {
		t.Errorf("got %v", bodies)
	}
	if n := p.metric(`metip_connector_filtered_total{destination="d",route="r"}`); n != 4 {
		t.Error("filtered", n)
	}
}

func TestMarksAreAcknowledged(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	startSink(t, s, f, routeConfig("r", "d"))
	if _, err := s.Admin().Publish(t.Context(), contract.MarkSubject("ns", "in"), nil); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the mark acknowledged", func() bool { return settledAll(t, s, "ns_r_d") })
	if f.count() != 0 {
		t.Error("a mark was delivered")
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(d *sdk.Delivery) error {
		switch d.ID {
		case "rejected":
			return sdk.Permanentf("court %q is not known", "B99")
		case "transient":
			return errors.New("deadlock")
		case "panics":
			panic("boom")
		}
		return nil
	}
	r := routeConfig("r", "d")
	r.Steps = []contract.Step{{Name: "filter", Filter: "data.ok"}}
	p := startSink(t, s, f, r)
	good := []byte(`{"ok":true}`)
	for _, id := range []string{"rejected", "transient", "panics", "fine"} {
		s.Publish("ns", "in", "src", "custody.arrest", id, good)
	}
	s.Publish("ns", "in", "src", "custody.arrest", "step", []byte(`{"ok":1}`))
	s.Publish("ns", "in", "src", "custody.arrest", "malformed", []byte(`{"ok":`))
	if _, err := s.Admin().PublishMsg(t.Context(), &nats.Msg{Subject: "evt.ns.in.src.0.custody.arrest", Data: good}); err != nil {
		t.Fatal(err)
	}
	forged := &nats.Msg{Subject: "evt.ns.in.src.0.custody.arrest", Data: good, Header: nats.Header{
		"ce-id": {"forged"}, "ce-specversion": {"1.0"}, "ce-type": {"custody.arrest"}, "ce-source": {"/metip/ns/other"},
	}}
	if _, err := s.Admin().PublishMsg(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	if !f.has("fine") || f.count() != 1 {
		t.Error("delivered", f.got)
	}
	want := map[string]string{
		"rejected": "Rejected/1", "transient": "AttemptsExhausted/4", "panics": "Rejected/", "step": "StepFailed/filter", "malformed": "Malformed/filter", "": "Malformed/", "forged": "Malformed/",
	}
	dead := s.Messages("ns_in_dead")
	if len(dead) != len(want) {
		t.Errorf("%d dead letters, want %d", len(dead), len(want))
	}
	for _, m := range dead {
		h := m.Header
		id := h.Get("ce-id")
		reason, detail, _ := strings.Cut(want[id], "/")
		if h.Get(contract.HeaderDeadReason) != reason || h.Get(contract.HeaderDeadRoute) != "r" || h.Get(contract.HeaderDeadError) == "" || h.Get(contract.HeaderDeadStream) != "ns_in" {
			t.Errorf("%s: headers %v", id, h)
		}
		switch reason {
		case "StepFailed", "Malformed":
			if h.Get(contract.HeaderDeadStep) != detail {
				t.Errorf("%s: step %q", id, h.Get(contract.HeaderDeadStep))
			}
		case "AttemptsExhausted":
			if h.Get(contract.HeaderDeadAttempts) != detail || f.triesOf(id) != 4 {
				t.Errorf("%s: attempts %q, tried %d times", id, h.Get(contract.HeaderDeadAttempts), f.triesOf(id))
			}
		}
		if id == "rejected" && (string(m.Data) != string(good) || h.Get(contract.HeaderDeadMessageID) != "uid-src//rejected" || h.Get("ce-type") != "custody.arrest") {
			t.Errorf("the original is not kept: %s %v", m.Data, h)
		}
	}
	if n := p.metric(`metip_connector_dead_lettered_total{destination="d",reason="Malformed",route="r"}`); n != 3 {
		t.Error("malformed", n)
	}
}

// TestDeadLetterIsWrittenOnce: a dead letter that is there already is no error, and no second one is made.
func TestDeadLetterIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	if _, err := s.Admin().Publish(t.Context(), contract.DeadSubject("ns", "in", "r", "d", 1, 0), []byte("before the crash")); err != nil {
		t.Fatal(err)
	}
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { return sdk.Permanentf("no") }
	startSink(t, s, f, routeConfig("r", "d"))
	s.Publish("ns", "in", "src", "custody.arrest", "a", []byte(`{}`))
	within(t, 5*time.Second, "settled", func() bool { return settledAll(t, s, "ns_r_d") })
	if dead := s.Messages("ns_in_dead"); len(dead) != 1 || string(dead[0].Data) != "before the crash" {
		t.Error(len(dead), "dead letters")
	}
}

func TestDeadLettersFull(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	ctx := t.Context()
	st, err := s.Admin().Stream(ctx, "ns_in_dead")
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	c.MaxBytes = 64
	if _, err := s.Admin().UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
	f := newFakeSink()
	f.write = func(d *sdk.Delivery) error {
		if d.ID == "bad" {
			return sdk.Permanentf("no")
		}
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	s.Publish("ns", "in", "src", "custody.arrest", "bad", []byte(`{}`))
	s.Publish("ns", "in", "src", "custody.arrest", "good", []byte(`{}`))
	within(t, 5*time.Second, "the good one delivered", func() bool { return f.has("good") })
	report(t, s, "snk", "pod-1", "DeadLetterFull", 5*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonDeadLetterFull && r.Routes[0].Route == "r"
	})
	if settledAll(t, s, "ns_r_d") {
		t.Fatal("the message that has no dead letter is gone")
	}
	c.MaxBytes = 1 << 20
	if _, err := s.Admin().UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
	within(t, 15*time.Second, "settled", func() bool { return settledAll(t, s, "ns_r_d") })
	if n := len(s.Messages("ns_in_dead")); n != 1 {
		t.Error(n, "dead letters")
	}
	report(t, s, "snk", "pod-1", "no problem", 5*time.Second, func(r contract.Report) bool { return len(r.Routes) == 0 })
}

func TestUnavailableThenBack(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	p := startSink(t, s, f, routeConfig("r", "d"))
	report(t, s, "snk", "pod-1", "connected", 5*time.Second, func(r contract.Report) bool { return r.System.OK })
	var down atomic.Bool
	down.Store(true)
	refused := sdk.Unavailable(contract.ReasonConnectionFailed, errors.New("dial tcp db:5432: connection refused"))
	f.set(func() error {
		if down.Load() {
			return refused
		}
		return nil
	}, func(*sdk.Delivery) error {
		if down.Load() {
			return refused
		}
		return nil
	})
	ids := publishMany(s, 0, 300)
	begun := time.Now()
	report(t, s, "snk", "pod-1", "ConnectionFailed", 5*time.Second, func(r contract.Report) bool {
		return !r.System.OK && r.System.Reason == contract.ReasonConnectionFailed && strings.Contains(r.System.Message, "db:5432")
	})
	t.Log("reported after", time.Since(begun))
	if code, _ := p.get("/readyz"); code != 200 {
		t.Error("a target that is down makes the pod unready")
	}
	// Longer than all attempts would have taken.
	time.Sleep(1500 * time.Millisecond)
	down.Store(false)
	within(t, 15*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	within(t, 5*time.Second, "all acknowledged", func() bool { return settledAll(t, s, "ns_r_d") })
	if n := len(s.Messages("ns_in_dead")); n != 0 {
		t.Error(n, "dead letters")
	}
	if _, duplicates := f.missing(ids); duplicates > 0 {
		t.Error(duplicates, "duplicates")
	}
	report(t, s, "snk", "pod-1", "connected", 5*time.Second, func(r contract.Report) bool { return r.System.OK && len(r.Routes) == 0 })
}

// TestIdleSystemIsChecked: a system that goes while nothing flows is reported, and so is its return.
func TestIdleSystemIsChecked(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	startSink(t, s, f, routeConfig("r", "d"))
	report(t, s, "snk", "pod-1", "connected", 5*time.Second, func(r contract.Report) bool { return r.System.OK })
	f.set(func() error { return sdk.Unavailable(contract.ReasonCertificateInvalid, errors.New("x509: expired")) }, nil)
	report(t, s, "snk", "pod-1", "CertificateInvalid", 8*time.Second, func(r contract.Report) bool { return r.System.Reason == contract.ReasonCertificateInvalid })
	f.set(func() error { return nil }, nil)
	report(t, s, "snk", "pod-1", "connected", 8*time.Second, func(r contract.Report) bool { return r.System.OK })
}

// TestPoisonDoesNotBlock: one message makes the whole system look unavailable; the others get through all the same, and it
// ends in the dead letters once it has used up its attempts.
func TestPoisonDoesNotBlock(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(d *sdk.Delivery) error {
		if d.ID == "poison" {
			return sdk.Unavailable(contract.ReasonSystemError, errors.New("503 Service Unavailable"))
		}
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	s.Publish("ns", "in", "src", "custody.arrest", "poison", []byte(`{}`))
	ids := publishMany(s, 0, 50)
	within(t, 15*time.Second, "the others delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	for i := 0; len(s.Messages("ns_in_dead")) == 0; i++ {
		if i == 100 {
			t.Fatalf("no dead letter after %d tries", f.triesOf("poison"))
		}
		// Only a success in between counts a failure against the message.
		publishMany(s, 1000+i, 1)
		time.Sleep(200 * time.Millisecond)
	}
	if n := f.triesOf("poison"); n < 5 || n > 10 {
		t.Errorf("tried %d times: the first does not count, nor do those without a success in between, then 4 attempts", n)
	}
	within(t, 15*time.Second, "settled", func() bool { return settledAll(t, s, "ns_r_d") })
}

// TestSlowDestinationIsAlone: two destinations of one pod, one of which hangs.
func TestSlowDestinationIsAlone(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	release := make(chan struct{})
	defer close(release)
	f.write = func(d *sdk.Delivery) error {
		if strings.Contains(d.Durable, "slow") {
			<-release
		}
		return nil
	}
	startSink(t, s, f, routeConfig("slow", "d"), routeConfig("quick", "d"))
	ids := publishMany(s, 0, 500)
	within(t, 10*time.Second, "the quick one done", func() bool { m, _ := f.missing(ids); return len(m) == 0 && settledAll(t, s, "ns_quick_d") })
}

// TestLongDeliveryIsNotRepeated: a delivery that takes longer than AckWait is kept alive.
func TestLongDeliveryIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { time.Sleep(5 * time.Second); return nil }
	o := sinkPod(t, s, f, 3*time.Second, routeConfig("r", "d"))
	o.config.Sink.Routes[0].Delivery.Timeout = contract.Duration(20 * time.Second)
	startPod(t, o)
	ids := publishMany(s, 0, 40)
	within(t, 20*time.Second, "delivered", func() bool { return settledAll(t, s, "ns_r_d") && f.count() == 40 })
	if _, duplicates := f.missing(ids); duplicates > 0 {
		t.Error(duplicates, "duplicates")
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var first, second atomic.Int64
	f.write = func(*sdk.Delivery) error {
		if first.CompareAndSwap(0, time.Now().UnixNano()) {
			return &sdk.RetryAfterError{Err: errors.New("429"), After: 1500 * time.Millisecond}
		}
		second.Store(time.Now().UnixNano())
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	publishMany(s, 0, 1)
	within(t, 10*time.Second, "delivered", func() bool { return f.count() == 1 })
	if d := time.Duration(second.Load() - first.Load()); d < 1400*time.Millisecond {
		t.Error("tried again after", d)
	}
}

// TestDrainLosesNothing: one pod is drained while it delivers, another goes on. Every id arrives, none twice.
func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { time.Sleep(2 * time.Millisecond); return nil }
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	p1 := startPod(t, o)
	ids := publishMany(s, 0, 3000)
	within(t, 10*time.Second, "some delivered", func() bool { return f.count() > 100 })
	o.name = "pod-2"
	begun := time.Now()
	p1.drain()
	t.Log("drained in", time.Since(begun), "with", f.count(), "delivered")
	startPod(t, o)
	within(t, 20*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	within(t, 5*time.Second, "all acknowledged", func() bool { return settledAll(t, s, "ns_r_d") })
	if _, duplicates := f.missing(ids); duplicates > 0 {
		t.Error(duplicates, "duplicates")
	}
}

// TestDrainIsBounded: a write that hangs does not hold up the end, and its message is not lost.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	release := make(chan struct{})
	f.write = func(*sdk.Delivery) error {
		select {
		case <-release:
		case <-time.After(3 * time.Second):
		}
		return errors.New("too late")
	}
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	o.grace = 500 * time.Millisecond
	p := startPod(t, o)
	publishMany(s, 0, 1)
	within(t, 5*time.Second, "tried", func() bool { return f.triesOf("m0") == 1 })
	begun := time.Now()
	p.drain()
	close(release)
	if d := time.Since(begun); d > 5*time.Second {
		t.Error("took", d)
	}
	f.set(nil, func(*sdk.Delivery) error { return nil })
	o.name = "pod-2"
	startPod(t, o)
	within(t, 15*time.Second, "delivered by the next", func() bool { return f.has("m0") })
}

// TestBrokerRestart: the server is killed and comes back while messages flow. Every id arrives.
func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { time.Sleep(time.Millisecond); return nil }
	p := startPod(t, sinkPod(t, s, f, 3*time.Second, routeConfig("r", "d")))
	ids := publishMany(s, 0, 3000)
	within(t, 10*time.Second, "some delivered", func() bool { return f.count() > 200 })
	s.Kill()
	within(t, 10*time.Second, "the break noticed", func() bool { return !p.engine.conn.isUp() })
	s.Boot()
	within(t, 30*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledAll(t, s, "ns_r_d") })
	_, duplicates := f.missing(ids)
	t.Log(duplicates, "duplicates")
	if duplicates > 0 {
		t.Error("what was delivered before the break is remembered: no duplicates were expected")
	}
}

// TestMissingDurable: a Route whose durable is not there is reported, and delivers once it is.
func TestMissingDurable(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	if err := s.Admin().DeleteConsumer(t.Context(), "ns_in", "ns_r_d"); err != nil {
		t.Fatal(err)
	}
	startPod(t, o)
	report(t, s, "snk", "pod-1", "the durable is missing", 10*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && strings.Contains(r.Routes[0].Message, "ns_r_d")
	})
	publishMany(s, 0, 1)
	s.Durable("ns", "in", "r", "d", 10*time.Second)
	within(t, 10*time.Second, "delivered", func() bool { return f.count() == 1 })
	report(t, s, "snk", "pod-1", "no problem", 5*time.Second, func(r contract.Report) bool { return len(r.Routes) == 0 })
}

// TestBadRoute: a Route that cannot run does not keep the others from running.
func TestBadRoute(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	bad, worse := routeConfig("bad", "d"), routeConfig("worse", "d")
	bad.Operation = []byte(`"bad"`)
	worse.Steps = []contract.Step{{Name: "filter", Filter: "nope =="}}
	startSink(t, s, f, bad, worse, routeConfig("good", "d"))
	publishMany(s, 0, 1)
	within(t, 5*time.Second, "delivered", func() bool { return f.count() == 1 })
	r := report(t, s, "snk", "pod-1", "two bad routes", 5*time.Second, func(r contract.Report) bool { return len(r.Routes) == 2 && r.System.OK })
	if !strings.Contains(r.Routes[0].Message, "no such table") || !strings.Contains(r.Routes[1].Message, "line 1, column") {
		t.Error(r.Routes)
	}
}

// TestPanicInABatch: the message that makes a batch panic is found, the others are delivered.
func TestPanicInABatch(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.max = 50
	var block atomic.Bool
	block.Store(true)
	f.write = func(d *sdk.Delivery) error {
		for block.Load() {
			time.Sleep(time.Millisecond)
		}
		if d.ID == "m30" {
			panic("boom")
		}
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	ids := publishMany(s, 0, 60)
	block.Store(false)
	within(t, 10*time.Second, "settled", func() bool { return settledAll(t, s, "ns_r_d") })
	missing, _ := f.missing(ids)
	if len(missing) != 1 || missing[0] != "m30" {
		t.Error("missing", missing)
	}
	if n := len(s.Messages("ns_in_dead")); n != 1 {
		t.Error(n, "dead letters")
	}
}

// TestAttemptsAreNotDeliveries: deliveries that were no attempts do not count as such.
func TestAttemptsAreNotDeliveries(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := s.Durable("ns", "in", "r", "d", 10*time.Second)
	s.Publish("ns", "in", "src", "custody.arrest", "a", []byte(`{}`))
	// Three deliveries that ended without a try, as when pods are drained.
	for range 3 {
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Nak(); err != nil {
			t.Fatal(err)
		}
	}
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { return errors.New("no") }
	startSink(t, s, f, routeConfig("r", "d"))
	within(t, 10*time.Second, "the dead letter", func() bool { return len(s.Messages("ns_in_dead")) == 1 })
	if n := f.triesOf("a"); n != 4 {
		t.Errorf("tried %d times, not 4", n)
	}
}

// TestReplicas share the work of one durable.
func TestReplicas(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { time.Sleep(time.Millisecond); return nil }
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	p1 := startPod(t, o)
	o.name = "pod-2"
	p2 := startPod(t, o)
	ids := publishMany(s, 0, 2000)
	within(t, 20*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	if _, duplicates := f.missing(ids); duplicates > 0 {
		t.Error(duplicates, "duplicates")
	}
	const name = `metip_connector_delivered_total{destination="d",route="r"}`
	if a, b := p1.metric(name), p2.metric(name); a == 0 || b == 0 {
		t.Error("one pod did it all:", a, b)
	}
}

// TestTimeoutIsUnavailable: a system that hangs costs no attempt, and its messages wait.
func TestTimeoutIsUnavailable(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var hang atomic.Bool
	hang.Store(true)
	f.write = func(*sdk.Delivery) error {
		if hang.Load() {
			time.Sleep(300 * time.Millisecond)
			return context.DeadlineExceeded
		}
		return nil
	}
	r := routeConfig("r", "d")
	r.Delivery.Attempts = 1
	startSink(t, s, f, r)
	publishMany(s, 0, 3)
	report(t, s, "snk", "pod-1", "no answer", 8*time.Second, func(r contract.Report) bool {
		return !r.System.OK && strings.Contains(r.System.Message, "no answer within")
	})
	hang.Store(false)
	within(t, 10*time.Second, "delivered", func() bool { return f.count() == 3 })
	if n := len(s.Messages("ns_in_dead")); n != 0 {
		t.Error(n, "dead letters")
	}
}

// TestSecretsChange: a refused password is reported, costs nothing, and the right one makes messages flow soon after it is mounted.
func TestSecretsChange(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	dir := t.TempDir()
	kubeletWrite(t, dir, "1", map[string]string{contract.FilePassword: "old"})
	f.write = func(*sdk.Delivery) error {
		if password, err := readSecret(filepath.Join(dir, contract.FilePassword)); err != nil || string(password) != "new" {
			return sdk.Unavailable(contract.ReasonAuthenticationFailed, errors.New("db:5432 refuses the password"))
		}
		return nil
	}
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	o.secrets = dir
	startPod(t, o)
	ids := publishMany(s, 0, 100)
	report(t, s, "snk", "pod-1", "AuthenticationFailed", 5*time.Second, func(r contract.Report) bool {
		return !r.System.OK && r.System.Reason == contract.ReasonAuthenticationFailed
	})
	// Long enough for the probes to be far apart.
	time.Sleep(2 * time.Second)
	kubeletWrite(t, dir, "2", map[string]string{contract.FilePassword: "new"})
	within(t, 3*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	report(t, s, "snk", "pod-1", "connected", 3*time.Second, func(r contract.Report) bool { return r.System.OK && len(r.Routes) == 0 })
	if n := len(s.Messages("ns_in_dead")); n != 0 {
		t.Error(n, "dead letters")
	}
}
