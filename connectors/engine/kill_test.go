package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
)

// seeded gives a test its random numbers. The seed is logged; METIP_TEST_SEED repeats it.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("METIP_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("METIP_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// between two durations.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// storedIDs counts how often each id is stored.
func storedIDs(s *enginetest.Server) map[string]int {
	count := map[string]int{}
	for _, m := range s.Messages("ns_in") {
		if id := m.Header.Get(contract.HeaderID); id != "" {
			count[id]++
		}
	}
	return count
}

func sourceChild(t testing.TB, s *enginetest.Server) *child {
	t.Helper()
	return startChild(t, podOptions{config: sourceConfig(s), creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour)})
}

// TestSourcePodDiesAtEachStep: kill -9 of a source's pod before it publishes, before it has read the broker's confirmation, and before it has
// answered its caller. The caller knows nothing and sends the message again: it is stored once.
func TestSourcePodDiesAtEachStep(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			c := enginetest.StartCluster(t, enginetest.Options{Servers: servers, Fsync: true})
			c.Streams("ns", "in", streamSize)
			p := sourceChild(t, c.Server)
			for _, stage := range []struct {
				name   string
				before int
			}{{dieBefore, 0}, {dieSent, 1}, {dieStored, 1}} {
				for i := range 3 {
					id := fmt.Sprintf("%s-%d", stage.name, i)
					url := "http://" + p.options.Listen + "/" + id
					if status, err := postTo(t.Context(), url+"?die="+stage.name); err == nil {
						t.Fatalf("%s: it was answered %d", id, status)
					}
					<-p.process.Ended()
					within(t, 10*time.Second, "what was sent is stored", func() bool { return storedIDs(c.Server)[id] >= stage.before })
					p.restart()
					within(t, 20*time.Second, "it is accepted", func() bool {
						status, err := postTo(t.Context(), url)
						return err == nil && status == http.StatusOK
					})
					if n := storedIDs(c.Server)[id]; n != 1 {
						t.Errorf("%s is stored %d times", id, n)
					}
				}
			}
		})
	}
}

// TestSourcePodDiesAtRandom: a source's pod is killed at random while callers post. What was acknowledged is stored, and nothing twice.
func TestSourcePodDiesAtRandom(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1, Fsync: true})
	c.Streams("ns", "in", streamSize)
	p := sourceChild(t, c.Server)
	var stop atomic.Bool
	var repeated atomic.Int64
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var callers sync.WaitGroup
	for w := range 24 {
		callers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				id := fmt.Sprintf("%d-%d", w, i)
				for t.Context().Err() == nil {
					if status, err := postTo(t.Context(), "http://"+p.options.Listen+"/"+id); err == nil && status == http.StatusOK {
						mu.Lock()
						acknowledged[id] = true
						mu.Unlock()
						break
					}
					repeated.Add(1)
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	const kills = 12
	for range kills {
		n := count()
		within(t, 30*time.Second, "callers are served", func() bool { return count() > n+50 })
		time.Sleep(between(r, 0, 150*time.Millisecond))
		p.restart()
	}
	n := count()
	within(t, 30*time.Second, "callers are served", func() bool { return count() > n+50 })
	stop.Store(true)
	callers.Wait()
	stored := storedIDs(c.Server)
	for id := range acknowledged {
		if stored[id] != 1 {
			t.Errorf("%s was acknowledged and is stored %d times", id, stored[id])
		}
	}
	for id, n := range stored {
		if n > 1 {
			t.Errorf("%s is stored %d times", id, n)
		}
	}
	t.Logf("%d kills, %d acknowledged, %d stored, %d posts repeated", kills, len(acknowledged), len(stored), repeated.Load())
}

// countingTarget counts the ids that it was given. answer decides what is said; nil confirms everything.
type countingTarget struct {
	*httptest.Server
	answer func(id string, times int) (status int)
	mu     sync.Mutex
	got    map[string]int
}

func newCountingTarget(t testing.TB) *countingTarget {
	c := &countingTarget{got: map[string]int{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimPrefix(r.URL.Path, "/")
		c.mu.Lock()
		c.got[id]++
		times := c.got[id]
		c.mu.Unlock()
		if c.answer != nil {
			w.WriteHeader(c.answer(id, times))
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *countingTarget) counts() (ids, duplicates int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.got {
		duplicates += n - 1
	}
	return len(c.got), duplicates
}

// times that the target was given an id.
func (c *countingTarget) times(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[id]
}

// startSinkChild runs a sink that posts to the target, in a process of its own.
func startSinkChild(t testing.TB, s *enginetest.Server, target *countingTarget, routes ...contract.Route) *child {
	t.Helper()
	o := sinkPod(t, s, newFakeSink(), 2*time.Second, routes...)
	url, err := json.Marshal(target.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.config.Sink.System.Options = url
	return startChild(t, o)
}

// TestSinkPodDiesAtEachStep: kill -9 of a sink's pod while the target works on a message, and when it has confirmed it and the broker does not
// know. The message comes again, and once only.
func TestSinkPodDiesAtEachStep(t *testing.T) {
	t.Parallel()
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	c.Streams("ns", "in", streamSize)
	target := newCountingTarget(t)
	working := make(chan struct{})
	dead := make(chan struct{})
	target.answer = func(id string, times int) int {
		switch {
		case id == "working" && times == 1:
			close(working)
			<-dead
		case id == "confirmed" && times == 1:
			return http.StatusResetContent
		}
		return http.StatusOK
	}
	p := startSinkChild(t, c.Server, target, routeConfig("r", "d"))
	c.Publish("ns", "in", "src", "custody.arrest", "working", []byte(`{}`))
	<-working
	p.process.Kill()
	close(dead)
	p.start()
	within(t, 20*time.Second, "it is delivered by the next pod", func() bool { return target.times("working") == 2 && settledAll(t, c.Server, "ns_r_d") })
	c.Publish("ns", "in", "src", "custody.arrest", "confirmed", []byte(`{}`))
	<-p.process.Ended()
	p.restart()
	within(t, 20*time.Second, "it is delivered by the next pod", func() bool { return target.times("confirmed") == 2 && settledAll(t, c.Server, "ns_r_d") })
	p.restart()
	c.Publish("ns", "in", "src", "custody.arrest", "after", []byte(`{}`))
	within(t, 20*time.Second, "all is settled", func() bool { return target.times("after") == 1 && settledAll(t, c.Server, "ns_r_d") })
	if ids, duplicates := target.counts(); ids != 3 || duplicates != 2 {
		t.Errorf("%d messages and %d duplicates, want 3 and 2", ids, duplicates)
	}
}

// TestSinkPodDiesAtRandom: a sink's pod is killed at random while it delivers. Every message arrives, or is a dead letter, once; what
// arrives twice is no more than what the pod was writing when it died, and had written the moment before.
func TestSinkPodDiesAtRandom(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	c.Streams("ns", "in", streamSize)
	target := newCountingTarget(t)
	// Slow enough that every kill hits messages that the target has and that are not confirmed.
	target.answer = func(id string, _ int) int {
		time.Sleep(15 * time.Millisecond)
		if strings.HasSuffix(id, "7") {
			return http.StatusUnprocessableEntity
		}
		return http.StatusOK
	}
	p := startSinkChild(t, c.Server, target, routeConfig("r", "d"))
	const messages, kills = 6000, 8
	published := make(chan struct{})
	go func() {
		defer close(published)
		publishMany(c.Server, 0, messages)
	}()
	for range kills {
		before, _ := target.counts()
		within(t, 30*time.Second, "messages arrive", func() bool {
			n, _ := target.counts()
			return n > min(before+40, messages-1)
		})
		time.Sleep(between(r, 0, 200*time.Millisecond))
		p.restart()
	}
	<-published
	within(t, 60*time.Second, "all have arrived", func() bool { n, _ := target.counts(); return n == messages })
	within(t, 20*time.Second, "all are acknowledged", func() bool { return settledAll(t, c.Server, "ns_r_d") })
	_, duplicates := target.counts()
	t.Logf("%d kills, %d messages, %d duplicates", kills, messages, duplicates)
	letters := map[string]int{}
	for _, m := range c.Messages("ns_in_dead") {
		letters[m.Header.Get(contract.HeaderID)]++
	}
	if len(letters) != messages/10 {
		t.Errorf("%d messages are dead letters, want %d", len(letters), messages/10)
	}
	for id, n := range letters {
		if n != 1 || !strings.HasSuffix(id, "7") {
			t.Errorf("%s: %d dead letters", id, n)
		}
	}
	if duplicates > kills*2*singleWorkers {
		t.Errorf("%d duplicates: a pod writes at most %d messages at a time, and %d pods died", duplicates, singleWorkers, kills)
	}
	if duplicates == 0 {
		t.Error("no duplicates: no pod died while it wrote, so that nothing was tested")
	}
}
