package engine

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// TestClusterFaults: a source and a sink on three servers with TLS, while leaders step down, servers are killed and frozen. What was
// acknowledged is stored once and delivered once: nothing but a pod's death makes duplicates, and what a broker brings again after very many others.
func TestClusterFaults(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 3, Fsync: true})
	c.Streams("ns", "in", 256<<20)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { time.Sleep(time.Millisecond); return nil }
	sink := startPod(t, sinkPod(t, c.Server, f, 5*time.Second, routeConfig("r", "d")))
	source, bus, _ := startSource(t, c.Server, sourceConfig(c.Server))
	var stop atomic.Bool
	var done atomic.Int64
	var mu sync.Mutex
	var acknowledged []string
	var publishers sync.WaitGroup
	for w := range 16 {
		publishers.Go(func() {
			size, pause := 1, 5*time.Millisecond
			if w < 2 { // in bulk: atomic batches
				size, pause = 100, 300*time.Millisecond
			}
			for i := 0; !stop.Load(); i++ {
				var ids []string
				var events []*sdk.Message
				for part := range size {
					ids = append(ids, fmt.Sprintf("%d-%d-%d", w, i, part))
					events = append(events, event(ids[part]))
				}
				for bus.Publish(t.Context(), events...) != nil {
					if t.Context().Err() != nil {
						return
					}
				}
				mu.Lock()
				acknowledged = append(acknowledged, ids...)
				mu.Unlock()
				done.Add(1)
				time.Sleep(pause)
			}
		})
	}
	faults := []struct {
		name string
		do   func()
	}{
		{"the stream's leader steps down", func() { c.StepDown("ns_in", "") }},
		{"the consumer's leader steps down", func() { c.StepDown("ns_in", "ns_r_d") }},
		{"a server is killed", func() { i := r.IntN(3); c.Kill(i); c.Boot(i) }},
		{"the stream's leader is killed", func() {
			if i := c.Leader("ns_in"); i >= 0 {
				c.Kill(i)
				c.Boot(i)
			}
		}},
		{"a server is frozen", func() {
			i := r.IntN(3)
			c.Freeze(i)
			time.Sleep(between(r, time.Second, 3*time.Second))
			c.Thaw(i)
		}},
	}
	for round := range 2 {
		for _, i := range r.Perm(len(faults)) {
			n := done.Load()
			within(t, 60*time.Second, fmt.Sprintf("publishing goes on (round %d, before %s)", round, faults[i].name), func() bool { return done.Load() > n+100 })
			faults[i].do()
		}
	}
	n := done.Load()
	within(t, 60*time.Second, "publishing goes on", func() bool { return done.Load() > n+100 })
	stop.Store(true)
	publishers.Wait()
	within(t, 60*time.Second, "all delivered", func() bool { missing, _ := f.missing(acknowledged); return len(missing) == 0 })
	within(t, 60*time.Second, "all acknowledged", func() bool { return settledAll(t, c.Server, "ns_r_d") })
	stored := storedIDs(c.Server)
	for _, id := range acknowledged {
		if stored[id] != 1 {
			t.Errorf("%s is stored %d times", id, stored[id])
		}
	}
	_, duplicates := f.missing(acknowledged)
	t.Logf("%d acknowledged, %d stored, %d delivered, %d duplicates", len(acknowledged), len(stored), f.count(), duplicates)
	// A broker can forget acknowledgements and bring messages again much later: the pod knows its last ones.
	if _, known := f.missing(acknowledged[max(0, len(acknowledged)-rememberSettled/2):]); known > 0 {
		t.Errorf("%d messages were delivered twice that the pod has to remember", known)
	}
	if n := source.metric("metip_connector_publish_batch_messages_count"); n <= 0 {
		t.Error("nothing was published in batches")
	}
	if n := sink.metric("metip_connector_broker_connected") + source.metric("metip_connector_broker_connected"); n != 2 {
		t.Error("not connected in the end")
	}
}

// TestWrongAuthority: a pod does not talk to servers whose certificate it cannot check, and says so.
func TestWrongAuthority(t *testing.T) {
	t.Parallel()
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	c.Streams("ns", "in", streamSize)
	other := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	config := sourceConfig(c.Server)
	config.Broker.CA = other.Broker().CA
	p, bus, _ := startSource(t, c.Server, config)
	within(t, 10*time.Second, "the certificate is refused", func() bool {
		err, _ := p.engine.conn.state()
		return err != nil && bus.Ready() != nil && containsAny(err.Error(), "certificate", "x509")
	})
	if n := len(c.Messages("ns_in")); n != 0 {
		t.Error(n, "messages")
	}
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
