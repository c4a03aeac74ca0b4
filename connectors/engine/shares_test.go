package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestSharesAreBounded(t *testing.T) {
	t.Parallel()
	const users, total, base = 8, 1000, 10
	p := newShares(total, base, users)
	var shares []*share
	for range users {
		shares = append(shares, p.join(func() {}))
	}
	// One takes all that it gets; each further one still gets something.
	var got [users]int64
	for i, s := range shares {
		for s.take(1) {
			got[i]++
		}
		if i < 5 && got[i] <= base {
			t.Errorf("share %d got %d", i, got[i])
		}
		if got[i] < base {
			t.Errorf("share %d got %d, less than what everybody may have", i, got[i])
		}
	}
	if p.used > total {
		t.Errorf("%d of %d", p.used, total)
	}
	for i, s := range shares {
		s.give(got[i])
	}
	if p.used != 0 {
		t.Errorf("%d are left", p.used)
	}
	if !shares[3].take(total) {
		t.Error("the largest message does not fit an empty pool")
	}
	shares[3].give(total)
	shares[3].give(-5 * total) // what came unasked
	if shares[2].take(base + 1) {
		t.Error("taken from what is overdrawn")
	}
	if !shares[2].take(base) {
		t.Error("base is always to be had")
	}
}

func TestSharesUnderLoad(t *testing.T) {
	t.Parallel()
	const users, total = 6, 100
	p := newShares(total, 0, users)
	var wg sync.WaitGroup
	var inUse, turns atomic.Int64
	for range users {
		s := p.join(func() {})
		for range 4 {
			wg.Go(func() {
				for range 500 {
					n := 1 + rand.Int64N(total)
					if !s.await(t.Context(), n) {
						t.Error("given up")
						return
					}
					if inUse.Add(n) > total {
						t.Error("more than there is")
					}
					turns.Add(1)
					inUse.Add(-n)
					s.give(n)
				}
			})
		}
	}
	wg.Wait()
	if turns.Load() != users*4*500 || p.used != 0 {
		t.Error(turns.Load(), "turns,", p.used, "left")
	}
	s, other := p.join(func() {}), p.join(func() {})
	other.take(total)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if s.await(ctx, 1) {
		t.Error("taken")
	}
}

// heldBytes of all destinations of a pod.
func heldBytes(p *pod) (held, largestOfOne int64) {
	for _, d := range p.engine.sink.destinations {
		d.mu.Lock()
		var sum int64
		for _, h := range d.held {
			sum += h.size
		}
		d.mu.Unlock()
		held += sum
		largestOfOne = max(largestOfOne, sum)
	}
	return held, largestOfOne
}

// TestLargeMessagesAreBounded: two destinations hang with large messages. The pod holds no more than it may, small messages of a third one
// flow, and everything arrives in the end.
func TestLargeMessagesAreBounded(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Streams("ns", "in", 1<<30)
	f := newFakeSink()
	var delivered atomic.Int64
	release := make(chan struct{})
	f.write = func(d *sdk.Delivery) error {
		if strings.Contains(d.Durable, "slow") {
			<-release
		}
		delivered.Add(1)
		return nil
	}
	quick := routeConfig("quick", "d")
	quick.Steps = []contract.Step{{Name: "filter", Filter: "id.startsWith('s')"}}
	o := sinkPod(t, s, f, 30*time.Second, routeConfig("slow1", "d"), routeConfig("slow2", "d"), quick)
	for i := range o.config.Sink.Routes {
		o.config.Sink.Routes[i].Delivery.Timeout = contract.Duration(5 * time.Minute)
	}
	const large, small = 60, 200
	body := fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", 2<<20))
	for i := range large {
		s.Publish("ns", "in", "src", "custody.arrest", fmt.Sprintf("large-%d", i), body)
	}
	s.Publish("ns", "in", "src", "custody.arrest", "largest", append([]byte(`{}`), make([]byte, contract.MaxMessageSize-2)...))
	for i := range small {
		s.Publish("ns", "in", "src", "custody.arrest", fmt.Sprintf("s%d", i), []byte(`{}`))
	}
	p := startPod(t, o)
	within(t, 30*time.Second, "the quick one is done", func() bool { return settledAll(t, s, "ns_quick_d") })
	if n := delivered.Load(); n != small {
		t.Errorf("%d messages were delivered while two destinations hang, want %d", n, small)
	}
	held, most := heldBytes(p)
	t.Logf("held: %d MiB of %d, at most %d by one", held>>20, p.engine.sink.memory.total>>20, most>>20)
	if limit := p.engine.sink.memory.total + 3*smallPull; held > limit || held < 16<<20 {
		t.Errorf("%d MiB are held", held>>20)
	}
	if most > p.engine.sink.memory.total*3/4 {
		t.Errorf("one destination holds %d MiB and leaves too little to the others", most>>20)
	}
	close(release)
	within(t, 60*time.Second, "all delivered", func() bool {
		return settledAll(t, s, "ns_slow1_d") && settledAll(t, s, "ns_slow2_d")
	})
	if n := delivered.Load(); n != 3*small+2*(large+1) {
		t.Errorf("%d messages were delivered, want %d", n, 3*small+2*(large+1))
	}
	within(t, 10*time.Second, "nothing is held", func() bool { held, _ := heldBytes(p); return held == 0 })
	p.drain()
	if used := p.engine.sink.memory.used; used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
	if used := p.engine.sink.bodies.used; used != 0 {
		t.Errorf("%d bytes are still taken for bodies", used)
	}
}

// TestSizesMayVary: whatever sizes follow each other, pulls find the right one, and nothing is taken for a broker that does not answer.
func TestSizesMayVary(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Streams("ns", "in", 1<<30)
	f := newFakeSink()
	sizes := []int{10, 300 << 10, 1000, 8<<20 - 2, 100, 256 << 10, 5 << 20, 1, 1, 600 << 10}
	var ids []string
	for i := range 60 {
		id := fmt.Sprintf("m%d", i)
		ids = append(ids, id)
		s.Publish("ns", "in", "src", "custody.arrest", id, append([]byte(`{}`), make([]byte, sizes[i%len(sizes)])...))
	}
	p := startSink(t, s, f, routeConfig("r", "d"))
	within(t, 30*time.Second, "all delivered", func() bool { m, _ := f.missing(ids); return len(m) == 0 })
	within(t, 10*time.Second, "all acknowledged", func() bool { return settledAll(t, s, "ns_r_d") })
	if _, duplicates := f.missing(ids); duplicates > 0 {
		t.Error(duplicates, "duplicates")
	}
	d := p.engine.sink.destinations[0]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.consumer.err != nil {
		t.Error(d.consumer.err)
	}
}
