package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// envOrderTime lengthens TestOrderSurvives: how long each broker is tormented, as 5m.
const envOrderTime = "METIP_TEST_ORDER_TIME"

// orderWorld is a broker, a target, and pods of an ordered destination that come and go.
type orderWorld struct {
	t       testing.TB
	rnd     *rand.Rand
	cluster *enginetest.Cluster
	route   contract.Route
	a       *arrivals
	target  *httptest.Server
	options podOptions
	pods    []*child
	made    int
	frozen  map[*child]bool
	done    map[string]int
}

func newOrderWorld(t testing.TB, servers int, route contract.Route) *orderWorld {
	w := &orderWorld{t: t, rnd: seeded(t), a: newArrivals(), route: route, frozen: map[*child]bool{}, done: map[string]int{}}
	w.cluster = enginetest.StartCluster(t, enginetest.Options{Servers: servers})
	w.cluster.Streams("ns", "in", streamSize)
	var failed sync.Map
	// /<pod>/<id>: one in fifty fails at first, one in two hundred for good.
	w.target = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		pod, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		w.a.arrive(id, pod)
		time.Sleep(time.Millisecond)
		n := hash(id)
		if _, again := failed.LoadOrStore(id, true); n%50 == 1 && !again {
			rw.WriteHeader(http.StatusTooManyRequests)
		} else if n%200 == 2 {
			rw.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	t.Cleanup(w.target.Close)
	w.options = sinkPod(t, w.cluster.Server, newFakeSink(), 3*time.Second, route)
	return w
}

func hash(id string) (h uint32) {
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return h >> 8
}

// scale to a number of pods: more are started, the oldest are told to end.
func (w *orderWorld) scale(n int) {
	w.t.Helper()
	for len(w.pods) < n {
		w.made++
		name := "pod-" + strconv.Itoa(w.made)
		config := *w.options.config
		sink := *config.Sink
		sink.System.Options, _ = json.Marshal(w.target.URL + "/" + name)
		config.Sink = &sink
		c := &child{t: w.t, file: filepath.Join(w.t.TempDir(), "pod.json"), options: childOptions{
			Config: &config, Creds: w.options.creds, Listen: freeAddress(w.t), Health: freeAddress(w.t), Pod: name, Secrets: w.t.TempDir(),
		}}
		raw, err := json.Marshal(c.options)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(c.file, raw, 0o600); err != nil {
			w.t.Fatal(err)
		}
		c.process = enginetest.Spawn(w.t, name, envPod+"="+c.file)
		w.pods = append(w.pods, c)
	}
	for len(w.pods) > n {
		w.signal(w.pods[0], syscall.SIGTERM)
		w.pods = w.pods[1:]
	}
}

func (w *orderWorld) signal(c *child, s syscall.Signal) { _ = syscall.Kill(c.process.Pid(), s) }

// lose a pod, without a word.
func (w *orderWorld) lose(i int) {
	w.pods[i].process.Kill()
	w.pods = append(w.pods[:i], w.pods[i+1:]...)
}

// torment does one thing to the pods or to the broker.
func (w *orderWorld) torment() {
	i := w.rnd.IntN(len(w.pods))
	switch what := w.rnd.IntN(12); {
	case what < 3:
		w.done["kill"]++
		n := len(w.pods)
		w.lose(i)
		w.scale(n)
	case what < 6:
		w.done["scale"]++
		w.scale(1 + w.rnd.IntN(4))
	case what < 8:
		c := w.pods[i]
		if w.frozen[c] {
			break
		}
		w.done["freeze"]++
		w.frozen[c] = true
		c.process.Freeze()
		// For less than a lease, or for longer than a pin.
		time.AfterFunc(between(w.rnd, testPinTime/4, 3*testPinTime), c.process.Thaw)
	case what < 11 && w.cluster.Servers() > 1:
		w.done["step down"]++
		durables := contract.Durables(w.route.Durable, w.route.Delivery.Lanes)
		w.cluster.StepDown("ns_in", durables[w.rnd.IntN(len(durables))])
	case w.cluster.Servers() > 1:
		w.done["stream steps down"]++
		w.cluster.StepDown("ns_in", "")
	default:
		w.done["server killed"]++
		w.cluster.Kill(0)
		time.Sleep(between(w.rnd, 0, time.Second))
		w.cluster.Boot(0)
	}
}

// explain what is missing, and where the lanes stand.
func (w *orderWorld) explain(published map[string]int) {
	w.a.mu.Lock()
	for key, n := range published {
		if len(w.a.seen[key]) < n || w.a.last[key] != n {
			w.t.Logf("%s: %d of %d tried, number %d last", key, len(w.a.seen[key]), n, w.a.last[key])
		}
	}
	w.a.mu.Unlock()
	// The test's own context has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, durable := range contract.Durables(w.route.Durable, w.route.Delivery.Lanes) {
		c, err := w.cluster.Admin().Consumer(ctx, "ns_in", durable)
		if err != nil {
			w.t.Logf("%s: %v", durable, err)
			continue
		}
		info := c.CachedInfo()
		w.t.Logf("%s: delivered %+v, acknowledged to %+v, %d unacknowledged, %d to come, %d pulls wait, groups %+v", durable,
			info.Delivered, info.AckFloor, info.NumAckPending, info.NumPending, info.NumWaiting, info.PriorityGroups)
	}
}

// TestOrderSurvives is the promise of docs/ordering.md under everything that happens to pods and brokers: nothing is lost, and no key's message is
// tried before the one before it. METIP_TEST_SEED repeats a run, METIP_TEST_ORDER_TIME lengthens it.
func TestOrderSurvives(t *testing.T) {
	duration := 20 * time.Second
	if text := os.Getenv(envOrderTime); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		duration = 8 * time.Second
	}
	for _, c := range []struct {
		name    string
		servers int
		route   contract.Route
	}{
		{"one server, four lanes", 1, orderedRoute("r", contract.OrderPerKey, 4)},
		{"three servers, two lanes", 3, orderedRoute("r", contract.OrderPerKey, 2)},
		{"three servers, strict", 3, orderedRoute("r", contract.OrderStrict, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newOrderWorld(t, c.servers, c.route)
			w.scale(2)
			const keys = 24
			var stop atomic.Bool
			var publisher sync.WaitGroup
			published := map[string]int{}
			source := rand.New(rand.NewPCG(w.rnd.Uint64(), 0))
			js := w.cluster.Admin()
			publisher.Go(func() {
				for !stop.Load() {
					key := "k" + strconv.Itoa(source.IntN(keys))
					id := key + "." + strconv.Itoa(published[key]+1)
					// Again, with the same id, until it is known to be stored: it may have been, and then it is delivered too.
					for {
						if _, err := js.PublishMsg(t.Context(), keyedMessage(key, id, []byte(`{}`))); err == nil {
							break
						}
						if t.Context().Err() != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
					published[key]++
					time.Sleep(2 * time.Millisecond)
				}
			})
			for end := time.Now().Add(duration); time.Now().Before(end); {
				time.Sleep(between(w.rnd, 100*time.Millisecond, 2*testPinTime))
				w.torment()
			}
			stop.Store(true)
			publisher.Wait()
			for c := range w.frozen {
				c.process.Thaw()
			}
			if len(w.pods) == 0 {
				w.scale(1)
			}
			total := 0
			for _, n := range published {
				total += n
			}
			t.Cleanup(func() {
				if t.Failed() {
					w.explain(published)
				}
			})
			within(t, 5*time.Minute, fmt.Sprintf("all %d messages delivered", total), func() bool { return w.a.complete(published) })
			within(t, time.Minute, "all acknowledged", func() bool { return settledLanes(t, w.cluster.Server, c.route) })
			t.Logf("%d published; %v", total, w.done)
			w.a.check(t)
		})
	}
}

// TestLaneStopsWithoutAQuorum: a server that is cut off from the others still takes itself for the leader and says who is pinned, while the
// others may have pinned another pod. What the pod behind it holds is not delivered.
func TestLaneStopsWithoutAQuorum(t *testing.T) {
	t.Parallel()
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 3})
	c.Streams("ns", "in", streamSize)
	f, a := newFakeSink(), newArrivals()
	f.write = func(d *sdk.Delivery) error {
		a.arrive(d.ID, "")
		time.Sleep(250 * time.Millisecond)
		return nil
	}
	r := orderedRoute("r", contract.OrderPerKey, 1)
	o := sinkPod(t, c.Server, f, 30*time.Second, r)
	info, err := c.Admin().Consumer(t.Context(), "ns_in", "ns_r_d_p0")
	if err != nil {
		t.Fatal(err)
	}
	leader, err := strconv.Atoi(strings.TrimPrefix(info.CachedInfo().Cluster.Leader, "n"))
	if err != nil {
		t.Fatal(err)
	}
	o.config.Broker.URLs = o.config.Broker.URLs[leader : leader+1]
	want := publishKeys(t, c.Server, 1, 1, 60)
	tries := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.tries
	}
	startPod(t, o)
	within(t, 60*time.Second, "it delivers", func() bool { return tries() >= 4 })
	for i := range 3 {
		if i != leader {
			c.Freeze(i)
			defer c.Thaw(i)
		}
	}
	last, since := tries(), time.Now()
	within(t, 30*time.Second, "it stops", func() bool {
		if n := tries(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	if last >= 60 {
		t.Error("all that it held was delivered")
	}
	t.Logf("it stopped after %d messages", last)
	for i := range 3 {
		c.Thaw(i)
	}
	within(t, 2*time.Minute, "all delivered", func() bool { return a.complete(want) })
	a.check(t)
}
