package engine

import (
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// TestHistoryOfAMessage: from the source over two events to a sink, and into the dead letters; and none where nobody asked for it.
func TestHistoryOfAMessage(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Streams("ns", "in", streamSize)
	first := eventRoute(t, s, "first", "police.arrest", 10*time.Second, "src.custody.arrest")
	second := eventRoute(t, s, "second", "police.arrest.v2", 10*time.Second, "_relay.police.arrest")
	startPod(t, relayPod(s, first, second))
	var mu sync.Mutex
	got := map[string]string{}
	f := newFakeSink()
	f.write = func(d *sdk.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got[d.ID+" "+d.Type] = d.History
		if d.Type == "police.arrest.v2" {
			return sdk.Permanent(errHopLimit)
		}
		return nil
	}
	startPod(t, sinkPod(t, s, f, 10*time.Second, routeConfig("to-court", "d")))
	for id, history := range map[string]bool{"with": true, "without": false} {
		c := sourceConfig(s)
		c.Source.History = history
		p, _ := startPublisher(t, s, c)
		if err := p.Publish(t.Context(), event(id)); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 20*time.Second, "both messages, and both their events", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 6
	})
	at := `;\d{4}-\d\d-\d\dT[0-9:.]+Z`
	mu.Lock()
	defer mu.Unlock()
	for key, want := range map[string]string{
		"with custody.arrest":      "src" + at + ", to-court/d" + at,
		"with police.arrest":       "src" + at + ", first/d" + at + ", to-court/d" + at,
		"with police.arrest.v2":    "src" + at + ", first/d" + at + ", second/d" + at + ", to-court/d" + at,
		"without custody.arrest":   "",
		"without police.arrest":    "",
		"without police.arrest.v2": "",
	} {
		if !regexp.MustCompile("^" + want + "$").MatchString(got[key]) {
			t.Errorf("%s: %q, want %s", key, got[key], want)
		}
	}
	within(t, 20*time.Second, "dead letters with and without", func() bool {
		letters := map[string]bool{}
		for _, m := range s.Messages("ns_in_dead") {
			letters[m.Header.Get(contract.HeaderID)] = m.Header.Get(contract.HeaderHistory) != ""
		}
		with, has := letters["with"]
		without, hasNot := letters["without"]
		return has && hasNot && with && !without
	})
}
