package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// startSource runs a source and returns what it publishes with.
func startSource(t testing.TB, s *enginetest.Server, c *contract.Config) (*pod, sdk.Publisher, *fakeSource) {
	t.Helper()
	f := newFakeSource()
	p := startPod(t, podOptions{
		config: c, system: f.system(), creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour),
	})
	select {
	case bus := <-f.bus:
		return p, bus, f
	case <-time.After(10 * time.Second):
		t.Fatal("the source does not run")
		return nil, nil, nil
	}
}

func event(id string) *sdk.Message {
	return &sdk.Message{ID: id, ContentType: "application/json", Data: []byte(`{"a":1}`)}
}

func TestSourcePublishes(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Connector.Marking = "OFFICIAL-SENSITIVE"
	p, bus, _ := startSource(t, s, c)
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	m := &sdk.Message{
		ID: "A 17/é", Endpoint: "/arrests", Type: "custody.arrest.made", Subject: "person \"x\"", Time: at, ContentType: "application/json; charset=utf-8",
		PartitionKey: "K-1", Data: []byte(`{"a": 1}`),
		Headers: map[string]string{"marking": "NONE", "custom": "50% ü", "Nats-Rollup": "all", "nats-ttl": "1s", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"},
	}
	if err := bus.Publish(t.Context(), m, event("plain")); err != nil {
		t.Fatal(err)
	}
	all := s.Messages("ns_in")
	if len(all) != 2 {
		t.Fatal(len(all), "messages")
	}
	got := all[0]
	if want := fmt.Sprintf("evt.ns.in.src.%d.custody.arrest.made", contract.Slot("K-1")); got.Subject != want || string(got.Data) != `{"a": 1}` {
		t.Errorf("%s %s, want %s", got.Subject, got.Data, want)
	}
	for name, want := range map[string]string{
		"Nats-Msg-Id": "uid-src/arrests/A%2017/%C3%A9", "ce-specversion": "1.0", "ce-id": "A%2017/%C3%A9", "ce-type": "custody.arrest.made", "ce-source": "/metip/ns/src",
		"ce-time": "2026-11-22T10:00:00Z", "ce-subject": "person%20%22x%22", "content-type": "application/json; charset=utf-8", "ce-partitionkey": "K-1",
		"ce-marking": "OFFICIAL-SENSITIVE", "ce-custom": "50%25%20%C3%BC", "traceparent": m.Headers["traceparent"], "tracestate": "a=b", "metip-format": "JSON",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	for name := range got.Header {
		if isBroker(name) && name != "Nats-Msg-Id" {
			t.Error("the message brought along", name)
		}
	}
	if plain := all[1].Header; !validTraceParent(plain.Get("traceparent")) || plain.Get("metip-accepted") == "" || plain.Get("ce-type") != "custody.arrest" {
		t.Error(plain)
	}
	// What was encoded is what a sink decodes.
	var back sdk.Message
	if err := decode(&nats.Msg{Subject: got.Subject, Header: got.Header, Data: got.Data}, &back); err != nil {
		t.Fatal(err)
	}
	if back.ID != m.ID || back.Subject != m.Subject || back.Headers["custom"] != "50% ü" || back.Headers["marking"] != "OFFICIAL-SENSITIVE" || !back.Time.Equal(at) || back.PartitionKey != "K-1" {
		t.Errorf("%+v", back)
	}
	report(t, s, "src", "pod-1", "all is well", 5*time.Second, func(r contract.Report) bool { return r.System.OK && r.Bus.OK })
	within(t, 2*time.Second, "ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
}

func TestInvalidMessages(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	_, bus, _ := startSource(t, s, sourceConfig(s))
	with := func(f func(*sdk.Message)) *sdk.Message { m := event("x"); f(m); return m }
	for name, m := range map[string]*sdk.Message{
		"no id":           with(func(m *sdk.Message) { m.ID = "" }),
		"long id":         with(func(m *sdk.Message) { m.ID = strings.Repeat("x", 2000) }),
		"foreign type":    with(func(m *sdk.Message) { m.Type = "other" }),
		"type's prefix":   with(func(m *sdk.Message) { m.Type = "custody.arrestee" }),
		"type's wildcard": with(func(m *sdk.Message) { m.Type = "custody.arrest.>" }),
		"type's dots":     with(func(m *sdk.Message) { m.Type = "custody.arrest..x" }),
		"type's end":      with(func(m *sdk.Message) { m.Type = "custody.arrest." }),
		"type with space": with(func(m *sdk.Message) { m.Type = "custody.arrest.a b" }),
		"foreign source":  with(func(m *sdk.Message) { m.Source = "/metip/ns/other" }),
		"content type":    with(func(m *sdk.Message) { m.ContentType = "a\r\nNats-Rollup: all" }),
		"extension":       with(func(m *sdk.Message) { m.Headers = map[string]string{"a\r\nb": "c"} }),
		"own attribute":   with(func(m *sdk.Message) { m.Headers = map[string]string{"id": "c"} }),
		"tracestate":      with(func(m *sdk.Message) { m.Headers = map[string]string{"tracestate": "a\nb"} }),
		"large body":      with(func(m *sdk.Message) { m.Data = make([]byte, contract.MaxMessageSize+1) }),
		"large headers":   with(func(m *sdk.Message) { m.Headers = map[string]string{"a": strings.Repeat("x", 70000)} }),
	} {
		if err := bus.Publish(t.Context(), event("good-"+name), m); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// CRLF in a value that may hold anything is escaped.
	if err := bus.Publish(t.Context(), with(func(m *sdk.Message) { m.Subject = "a\r\nNats-Rollup: all" })); err != nil {
		t.Error(err)
	}
	largest := event("largest")
	largest.Data = make([]byte, contract.MaxMessageSize)
	if err := bus.Publish(t.Context(), largest); err != nil {
		t.Error("the largest message:", err)
	}
	if n := len(s.Messages("ns_in")); n != 2 {
		t.Error(n, "messages stored")
	}
}

// publishAll from many goroutines and check that each id is stored exactly once.
func publishAll(t *testing.T, s *enginetest.Server, bus sdk.Publisher, publishers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	var failed atomic.Int64
	for w := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := bus.Publish(t.Context(), event(fmt.Sprintf("%d-%d", w, i))); err != nil {
					failed.Add(1)
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkStored(t, s, publishers*each)
}

func checkStored(t *testing.T, s *enginetest.Server, want int) {
	t.Helper()
	count := map[string]int{}
	for _, m := range s.Messages("ns_in") {
		count[m.Header.Get("ce-id")]++
		if m.Header.Get("Nats-Batch-Id") != "" && m.Header.Get("Nats-Batch-Sequence") == "" {
			t.Error("half a batch header")
		}
	}
	for id, n := range count {
		if n != 1 {
			t.Errorf("%s stored %d times", id, n)
		}
	}
	if len(count) != want {
		t.Errorf("%d ids stored, want %d", len(count), want)
	}
}

func TestPublishingAdapts(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", streamSize)
			p, bus, _ := startSource(t, s, sourceConfig(s))
			publishAll(t, s, bus, 64, 30)
			batches := p.metric("metip_connector_publish_batch_messages_count")
			t.Log(batches, "batches")
			if (batches > 0) != fsync {
				t.Errorf("%v batches with fsync %v", batches, fsync)
			}
		})
	}
}

// TestDuplicates: ids that are stored already are confirmed, and a batch that holds one is published all the same.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	s := enginetest.Start(t, enginetest.Options{Fsync: true})
	s.Streams("ns", "in", streamSize)
	p, bus, _ := startSource(t, s, sourceConfig(s))
	many := func(from, n int) []*sdk.Message {
		out := make([]*sdk.Message, n)
		for i := range out {
			out[i] = event(fmt.Sprint(from + i))
		}
		return out
	}
	if err := bus.Publish(t.Context(), many(0, 200)...); err != nil {
		t.Fatal(err)
	}
	if err := bus.Publish(t.Context(), many(100, 200)...); err != nil {
		t.Fatal(err)
	}
	// The same id twice in one batch.
	if err := bus.Publish(t.Context(), append(many(300, 50), many(320, 50)...)...); err != nil {
		t.Fatal(err)
	}
	checkStored(t, s, 370)
	if n := p.metric("metip_connector_duplicates_total"); n != 130 {
		t.Error(n, "duplicates")
	}
}

// TestPublishOverRestart: the server is killed and comes back while messages are published. Nothing that was confirmed is lost, nothing
// is stored twice, and callers with patience see no error.
func TestPublishOverRestart(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", streamSize)
			_, bus, _ := startSource(t, s, sourceConfig(s))
			var wg sync.WaitGroup
			var done atomic.Int64
			restarted := make(chan struct{})
			confirmed := make([]int, 48)
			for w := range confirmed {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-restarted:
							return
						default:
						}
						for bus.Publish(t.Context(), event(fmt.Sprintf("%d-%d", w, i))) != nil {
						}
						confirmed[w]++
						done.Add(1)
					}
				})
			}
			within(t, 10*time.Second, "some published", func() bool { return done.Load() > 300 })
			for range 2 {
				s.Kill()
				s.Boot()
				n := done.Load()
				within(t, 20*time.Second, "publishing goes on", func() bool { return done.Load() > n+300 })
			}
			close(restarted)
			wg.Wait()
			total := 0
			for _, n := range confirmed {
				total += n
			}
			checkStored(t, s, total)
		})
	}
}

func TestFullStream(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", 100<<10)
			_, bus, _ := startSource(t, s, sourceConfig(s))
			full, i := 0, 0
			stored := map[string]bool{}
			for ; full == 0 && i < 1000; i++ {
				m := event(fmt.Sprint(i))
				m.Data = make([]byte, 1000)
				switch err := bus.Publish(t.Context(), m); {
				case err == nil:
					stored[m.ID] = true
				case errors.Is(err, sdk.ErrFull):
					full++
				default:
					t.Fatal(err)
				}
			}
			if full == 0 {
				t.Fatal("never full")
			}
			if err := bus.Ready(); !errors.Is(err, sdk.ErrFull) {
				t.Error("Ready says", err)
			}
			report(t, s, "src", "pod-1", "StreamFull", 5*time.Second, func(r contract.Report) bool { return !r.Bus.OK && r.Bus.Reason == contract.ReasonStreamFull })
			// A whole batch is pushed back too.
			var wg sync.WaitGroup
			for w := range 64 {
				wg.Go(func() {
					m := event(fmt.Sprintf("late-%d", w))
					m.Data = make([]byte, 5000)
					if err := bus.Publish(t.Context(), m); !errors.Is(err, sdk.ErrFull) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// One message a second is let through to try.
			within(t, 3*time.Second, "Ready lets one try", func() bool { return bus.Ready() == nil })
			for range 2 {
				m := event("late")
				m.Data = make([]byte, 5000)
				if err := bus.Publish(t.Context(), m); !errors.Is(err, sdk.ErrFull) {
					t.Error(err)
				}
			}
			if err := bus.Ready(); !errors.Is(err, sdk.ErrFull) {
				t.Error("Ready lets two try")
			}
			st, err := s.Admin().Stream(t.Context(), "ns_in")
			if err != nil {
				t.Fatal(err)
			}
			before := len(s.Messages("ns_in"))
			if before != len(stored) {
				t.Errorf("%d stored, %d confirmed", before, len(stored))
			}
			if err := st.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
			// After a full bus sources come back slowly, so that the relay comes first.
			purged, got := time.Now(), 0
			within(t, 30*time.Second, "everybody is let through", func() bool {
				before := bus.Ready() == nil
				if err := bus.Publish(t.Context(), event(fmt.Sprint("again-", got))); err == nil {
					got++
				}
				return before && bus.Ready() == nil
			})
			if limit := int(time.Since(purged)/fullProbe) + 2; got > limit || time.Since(purged) < fullSettle {
				t.Errorf("%d messages got through in the %s after the bus was full, %d may", got, time.Since(purged), limit)
			}
			report(t, s, "src", "pod-1", "the bus is well", 5*time.Second, func(r contract.Report) bool { return r.Bus.OK })
		})
	}
}

// TestDenied: what the broker refuses fails at once and is reported, rather than timing out.
func TestDenied(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Connector.Integration = "other"
	_, bus, _ := startSource(t, s, c)
	begun := time.Now()
	err := bus.Publish(t.Context(), event("a"))
	if !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatal(err)
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Error("took", d)
	}
	report(t, s, "src", "pod-1", "a refusal", 5*time.Second, func(r contract.Report) bool {
		return !r.Bus.OK && strings.Contains(r.Bus.Message, "Permissions Violation")
	})
}

// TestNoStream: a stream that is not there yet is waited for.
func TestNoStream(t *testing.T) {
	t.Parallel()
	s := enginetest.Start(t, enginetest.Options{})
	_, bus, _ := startSource(t, s, sourceConfig(s))
	time.AfterFunc(500*time.Millisecond, func() { s.Streams("ns", "in", streamSize) })
	if err := bus.Publish(t.Context(), event("a")); err != nil {
		t.Fatal(err)
	}
	checkStored(t, s, 1)
}

// TestBrokerAway: a pod that starts without a broker is ready, says no, and works once there is one.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Kill()
	p, bus, _ := startSource(t, s, sourceConfig(s))
	within(t, 2*time.Second, "ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	if bus.Ready() == nil {
		t.Error("Ready without a broker")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := bus.Publish(ctx, event("a")); err == nil || errors.Is(err, sdk.ErrFull) || errors.Is(err, sdk.ErrInvalid) {
		t.Error(err)
	}
	s.Boot()
	within(t, 10*time.Second, "connected", func() bool { return bus.Ready() == nil })
	if err := bus.Publish(t.Context(), event("a")); err != nil {
		t.Error(err)
	}
	checkStored(t, s, 1)
}

func TestSuspendedSource(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Source.Suspended = true
	_, bus, _ := startSource(t, s, c)
	if err := bus.Publish(t.Context(), event("a")); !errors.Is(err, sdk.ErrSuspended) {
		t.Error(err)
	}
	if err := bus.Ready(); !errors.Is(err, sdk.ErrSuspended) {
		t.Error(err)
	}
}

// TestSourceDrains: what is in flight is confirmed before the pod ends.
func TestSourceDrains(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	p, bus, f := startSource(t, s, sourceConfig(s))
	var confirmed atomic.Int64
	stop := make(chan struct{})
	for w := range 8 {
		f.settle.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if bus.Publish(t.Context(), event(fmt.Sprintf("%d-%d", w, i))) == nil {
					confirmed.Add(1)
				}
			}
		})
	}
	within(t, 5*time.Second, "some published", func() bool { return confirmed.Load() > 100 })
	time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	p.drain()
	checkStored(t, s, int(confirmed.Load()))
	report(t, s, "src", "pod-1", "draining", time.Second, func(r contract.Report) bool { return r.Draining })
	if err := bus.Publish(context.Background(), event("late")); !errors.Is(err, sdk.ErrSuspended) {
		t.Error(err)
	}
}

// TestRenewal: credentials are read again when their file changes, and at two thirds of their life, without losing anything.
func TestRenewal(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	p, bus, _ := startSource(t, s, sourceConfig(s))
	first := p.engine.conn.nc.Stats().Reconnects
	raw := s.Creds("src", contract.SourcePermissions("ns", "in", "src"), time.Hour)
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.creds), "user.creds"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	within(t, 15*time.Second, "reconnected", func() bool {
		n++
		if err := bus.Publish(t.Context(), event(fmt.Sprint(n))); err != nil {
			t.Error(err)
		}
		return p.engine.conn.nc.Stats().Reconnects > first
	})
	checkStored(t, s, n)
	token, err := p.engine.conn.userJWT()
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(renewal(token)); in < 39*time.Minute || in > 41*time.Minute {
		t.Error("renewal of an hour's life is due in", in)
	}
}
