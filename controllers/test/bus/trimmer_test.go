package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

func quickTrim(p *bus.Params) { p.TrimInterval = 200 * time.Millisecond }

// shortLived keeps nothing that was delivered, and remembers ids for a moment only.
func shortLived() bus.Streams {
	s := streams("ns", "intg")
	s.Retention, s.DeduplicationWindow = 0, 200*time.Millisecond
	return s
}

// consume a durable until the test ends; every message is acknowledged unless skip says otherwise. It returns what was seen.
func consume(t *testing.T, f *flow, name string, skip func(jetstream.Msg) bool) func() map[string]int {
	t.Helper()
	consumer, err := f.admin.Consumer(t.Context(), "ns_intg", name)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	cc, err := consumer.Consume(func(m jetstream.Msg) {
		if skip != nil && skip(m) {
			return
		}
		mu.Lock()
		if !strings.HasPrefix(m.Subject(), "mark.") {
			seen[m.Headers().Get("Nats-Msg-Id")]++
		}
		mu.Unlock()
		_ = m.Ack()
	}, jetstream.PullMaxMessages(200), jetstream.PullExpiry(2*time.Second), jetstream.PullHeartbeat(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cc.Stop)
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[string]int{}
		for k, v := range seen {
			out[k] = v
		}
		return out
	}
}

func (f *flow) stream(t *testing.T) *jetstream.StreamInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	stream, err := f.admin.Stream(ctx, "ns_intg")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo()
}

func TestMarksMoveIdleFloorsAndTrimmingFollows(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, quickTrim, shortLived())
	idle := durable("ns", "intg", "idle", "db", "nobody")
	idle.RouteUID = "r-2"
	f.ensureDurable(t, idle)
	consume(t, f, "ns_route_db", nil)
	consume(t, f, "ns_idle_db", nil)
	publish(t, f.source, contract.EventSubject("ns", "intg", "src", 0, "x"), 500)
	eventually(t, 10*time.Second, func() string {
		if s := f.stream(t).State; s.FirstSeq <= 500 {
			return fmt.Sprintf("first sequence %d of %d", s.FirstSeq, s.LastSeq)
		}
		return ""
	})
	// Nothing changes any more, so that no more marks come.
	last := f.stream(t).State.LastSeq
	time.Sleep(1500 * time.Millisecond)
	if now := f.stream(t).State.LastSeq; now > last+1 {
		t.Errorf("marks go on in an idle stream: sequence %d, then %d", last, now)
	}
}

func TestTrimmingStopsAtTheDeduplicationWindow(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	s.DeduplicationWindow, s.MaxBytes = time.Hour, 1<<20
	f := newFlow(t, b, quickTrim, s)
	consume(t, f, "ns_route_db", nil)
	js := edgeJetStream(t, f.source)
	for i := range 90 { // above 70 %
		if _, err := js.Publish(t.Context(), contract.EventSubject("ns", "intg", "src", 0, "x"), make([]byte, 10<<10), jetstream.WithMsgID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second) // some rounds of the trimmer
	if s := f.stream(t).State; s.FirstSeq != 1 {
		t.Errorf("trimmed up to %d inside the window", s.FirstSeq)
	}
}

func TestStreamWithoutConsumersIsTrimmedByRetention(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	s.Retention = time.Second
	f := newFlow(t, b, quickTrim, s)
	if err := f.session.DeleteDurable(t.Context(), "ns_intg", "ns_route_db"); err != nil {
		t.Fatal(err)
	}
	publish(t, f.source, contract.EventSubject("ns", "intg", "src", 0, "x"), 100)
	published := time.Now()
	eventually(t, 10*time.Second, func() string {
		if s := f.stream(t).State; s.Msgs > 0 {
			return fmt.Sprintf("%d messages are left", s.Msgs)
		}
		return ""
	})
	if took := time.Since(published); took < 900*time.Millisecond {
		t.Errorf("trimmed after %s, before the retention was over", took)
	}
}

func TestFullStreamRecovers(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	s.Retention, s.MaxBytes = time.Hour, 2<<20
	f := newFlow(t, b, func(p *bus.Params) { p.TrimInterval = 500 * time.Millisecond }, s)
	idle := durable("ns", "intg", "idle", "db", "nobody")
	idle.RouteUID = "r-2"
	f.ensureDurable(t, idle)
	js := edgeJetStream(t, f.source)
	subject := contract.EventSubject("ns", "intg", "src", 0, "x")
	n := 0
	var api *jetstream.APIError
	for ; n < 10000; n++ {
		if _, err := js.Publish(t.Context(), subject, make([]byte, 1000), jetstream.WithMsgID(fmt.Sprint(n))); errors.As(err, &api) && api.ErrorCode == 10077 {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// Only now the sinks come up: everything was owed, and the idle one needs a mark that the stream has no room for.
	seen := consume(t, f, "ns_route_db", nil)
	consume(t, f, "ns_idle_db", nil)
	eventually(t, 20*time.Second, func() string {
		_, err := js.Publish(t.Context(), subject, make([]byte, 1000), jetstream.WithMsgID(fmt.Sprint(n)))
		if err != nil {
			return err.Error()
		}
		return ""
	})
	eventually(t, 10*time.Second, func() string {
		if got := len(seen()); got != n+1 {
			return fmt.Sprintf("%d of %d messages were delivered", got, n+1)
		}
		if info := f.stream(t); info.Config.MaxBytes != s.MaxBytes {
			return fmt.Sprintf("max_bytes is %d, want %d", info.Config.MaxBytes, s.MaxBytes)
		}
		return ""
	})
	if changed, err := f.session.EnsureStreams(t.Context(), s); err != nil || changed {
		t.Errorf("EnsureStreams afterwards: changed %v, err %v", changed, err)
	}
}

func TestTrimmingNeverTakesWhatADurableOwes(t *testing.T) {
	b := bustest.Start(t, bustest.Options{Servers: 3})
	f := newFlow(t, b, quickTrim, shortLived())
	slow := durable("ns", "intg", "slow", "db", "rare")
	slow.RouteUID, slow.AckWait = "r-2", time.Second
	f.ensureDurable(t, slow)
	quick := durable("ns", "intg", "route", "db", "src")
	quick.AckWait = time.Second
	f.ensureDurable(t, quick)
	fast := consume(t, f, "ns_route_db", nil)
	late := consume(t, f, "ns_slow_db", func(m jetstream.Msg) bool {
		time.Sleep(2 * time.Millisecond)
		meta, err := m.Metadata()
		return err != nil || (meta.NumDelivered == 1 && meta.Sequence.Stream%5 == 0)
	})
	rare := f.user(t, "rare", contract.SourcePermissions("ns", "intg", "rare"))
	var published atomic.Int64
	var rarely atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for worker := range 3 {
		work.Go(func() {
			often, seldom := edgeJetStream(t, f.source), edgeJetStream(t, rare)
			for i := 0; ctx.Err() == nil; i++ {
				js, subject, count := often, contract.EventSubject("ns", "intg", "src", 0, "x"), &published
				if i%10 == 0 {
					js, subject, count = seldom, contract.EventSubject("ns", "intg", "rare", 0, "x"), &rarely
				}
				id := fmt.Sprintf("%d-%d", worker, i)
				for {
					attempt, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					_, err := js.Publish(attempt, subject, make([]byte, 200), jetstream.WithMsgID(id))
					cancel()
					if err == nil {
						count.Add(1)
						break
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	nc, _ := b.Admin()
	for i := range 20 { // leaders change, and a server restarts, while the trimmer works
		time.Sleep(300 * time.Millisecond)
		for _, call := range []string{"STREAM.LEADER.STEPDOWN.ns_intg", "CONSUMER.LEADER.STEPDOWN.ns_intg.ns_slow_db", "CONSUMER.LEADER.STEPDOWN.ns_intg.ns_route_db"} {
			_ = nc.Publish("$JS.API."+call, nil)
		}
		if i == 10 {
			b.Restart(1)
		}
	}
	stop()
	work.Wait()
	eventually(t, 30*time.Second, func() string {
		if a, b := len(fast()), len(late()); int64(a) != published.Load() || int64(b) != rarely.Load() {
			return fmt.Sprintf("delivered %d of %d and %d of %d", a, published.Load(), b, rarely.Load())
		}
		return ""
	})
	eventually(t, 20*time.Second, func() string {
		if s := f.stream(t).State; s.FirstSeq < uint64(published.Load()) {
			return fmt.Sprintf("trimmed only up to %d of %d", s.FirstSeq, s.LastSeq)
		}
		return ""
	})
	t.Logf("published %d and %d, trimmed up to %d", published.Load(), rarely.Load(), f.stream(t).State.FirstSeq)
}
