package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// publishAged publishes an event that was accepted some time ago, with further headers in pairs.
func publishAged(t testing.TB, s *enginetest.Server, id string, age time.Duration, headers ...string) {
	t.Helper()
	m := &nats.Msg{
		Subject: contract.EventSubject("ns", "in", "src", contract.Slot(id), "custody.arrest"), Data: []byte(`{"id":"` + id + `"}`),
		Header: nats.Header{
			"Nats-Msg-Id": {contract.MessageID("uid-src", "", id)}, contract.HeaderSpecVersion: {contract.SpecVersion}, contract.HeaderID: {id},
			contract.HeaderType: {"custody.arrest"}, contract.HeaderSource: {contract.SourceURI("ns", "src")}, contract.HeaderFormat: {"JSON"},
			contract.HeaderAccepted: {time.Now().Add(-age).UTC().Format(time.RFC3339Nano)},
		},
	}
	for i := 0; i < len(headers); i += 2 {
		m.Header[headers[i]] = []string{headers[i+1]}
	}
	if s := m.Header[contract.HeaderReplaySubject]; s != nil {
		m.Subject = contract.ReplaySubject("ns", "in", "r", "d", 0)
		m.Header[contract.HeaderReplaySubject] = []string{contract.EventSubject("ns", "in", "src", 0, "custody.arrest")}
	}
	if _, err := s.Admin().PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// deadReasons of all dead letters, by the id of the message.
func deadReasons(s *enginetest.Server) map[string]string {
	reasons := map[string]string{}
	for _, m := range s.Messages("ns_in_dead") {
		reasons[m.Header.Get(contract.HeaderID)] = m.Header.Get(contract.HeaderDeadReason)
	}
	return reasons
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	const extension = contract.HeaderExtensionPrefix + contract.ExtensionExpiryTime
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for _, limit := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprintf("expiry %s", limit), func(t *testing.T) {
			s := startBroker(t)
			f := newFakeSink()
			r := routeConfig("r", "d")
			r.Delivery.Expiry = contract.Duration(limit)
			r.Steps = []contract.Step{{Name: "filter", Filter: `data.id != "filtered"`}}
			p := startSink(t, s, f, r)
			publishAged(t, s, "fresh", 0)
			publishAged(t, s, "old", 2*time.Hour)
			publishAged(t, s, "filtered", 2*time.Hour, extension, at(-time.Hour))
			publishAged(t, s, "past", 0, extension, at(-time.Hour))
			publishAged(t, s, "future", 0, extension, at(30*time.Minute))
			publishAged(t, s, "far", 0, extension, "9999-12-31T23:59:59Z")
			publishAged(t, s, "ancient", 0, extension, "0001-01-01T00:00:00Z")
			publishAged(t, s, "nonsense", 0, extension, "tomorrow")
			publishAged(t, s, "replayed", 2*time.Hour, extension, at(-time.Hour), contract.HeaderReplaySubject, "", contract.HeaderReplaySequence, "1")
			within(t, 15*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
			dead := map[string]string{"past": "Expired", "ancient": "Expired", "nonsense": "Malformed"}
			if limit > 0 {
				dead["old"] = "Expired"
			}
			got := deadReasons(s)
			for _, id := range []string{"fresh", "old", "past", "future", "far", "ancient", "nonsense", "replayed", "filtered"} {
				if got[id] != dead[id] {
					t.Errorf("%s: dead letter %q, want %q", id, got[id], dead[id])
				}
				if want := dead[id] == "" && id != "filtered"; f.has(id) != want {
					t.Errorf("%s: delivered %t, want %t", id, !want, want)
				}
			}
			if n := p.metric(`metip_connector_dead_lettered_total{destination="d",reason="Expired",route="r"}`); int(n) != len(dead)-1 {
				t.Error("counted as expired:", n)
			}
		})
	}
}

// TestExpiryDuringAnOutage: what expires while the system is down is accounted for, does not hammer the system, and does not keep what is
// still worth delivering from it.
func TestExpiryDuringAnOutage(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var down atomic.Bool
	down.Store(true)
	f.write = func(*sdk.Delivery) error {
		if down.Load() {
			return sdk.Unavailable(contract.ReasonSystemError, errors.New("503"))
		}
		return nil
	}
	r := routeConfig("r", "d")
	r.Delivery.Expiry = contract.Duration(time.Second)
	p := startSink(t, s, f, r)
	const old = 400
	for i := range old {
		publishAged(t, s, fmt.Sprintf("old-%d", i), 0)
	}
	within(t, 10*time.Second, "the circuit is open", func() bool {
		return p.metric(`metip_connector_circuit_open{destination="d",route="r"}`) == 1
	})
	// The last of them expires.
	publishAged(t, s, "last", -10*time.Minute)
	within(t, 10*time.Second, "all have expired", func() bool {
		last := s.Messages("ns_in")[old-1]
		return time.Since(last.Time) > 1500*time.Millisecond
	})
	down.Store(false)
	within(t, 30*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	if !f.has("last") {
		t.Error("what had not expired was not delivered")
	}
	reasons := deadReasons(s)
	for i := range old {
		if id := fmt.Sprintf("old-%d", i); reasons[id] != contract.DeadReasonExpired {
			t.Fatalf("%s: %q", id, reasons[id])
		}
	}
	if n := p.metric(`metip_connector_circuit_open{destination="d",route="r"}`); n != 0 {
		t.Error("circuit_open is", n)
	}
}

func TestOnTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy, reason string
		tries, max     int
	}{
		{contract.OnTimeoutRetry, contract.DeadReasonAttemptsExhausted, 4, 1},
		{contract.OnTimeoutRetry, contract.DeadReasonAttemptsExhausted, 5, 40},
		{contract.OnTimeoutDeadLetter, contract.DeadReasonTimedOut, 1, 1},
		{contract.OnTimeoutDeadLetter, contract.DeadReasonTimedOut, 2, 40},
	} {
		t.Run(fmt.Sprintf("%s in batches of %d", c.policy, c.max), func(t *testing.T) {
			s := startBroker(t)
			f := newFakeSink()
			f.max = c.max
			f.write = func(d *sdk.Delivery) error {
				if d.ID == "m7" {
					return context.DeadlineExceeded
				}
				return nil
			}
			r := routeConfig("r", "d")
			r.Delivery.OnTimeout = c.policy
			o := sinkPod(t, s, f, 10*time.Second, r)
			// They wait for the pod, so that it takes them in batches.
			ids := publishMany(s, 0, 40)
			p := startPod(t, o)
			within(t, 15*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
			if missing, _ := f.missing(ids); len(missing) != 1 || missing[0] != "m7" {
				t.Error("missing", missing)
			}
			dead := s.Messages("ns_in_dead")
			if len(dead) != 1 || dead[0].Header.Get(contract.HeaderDeadReason) != c.reason || !strings.Contains(dead[0].Header.Get(contract.HeaderDeadError), "no answer within 5s") {
				t.Fatalf("%d dead letters: %v", len(dead), deadReasons(s))
			}
			// A message that was in a batch is not blamed for it: it is tried once more, alone.
			if n := f.triesOf("m7"); n != c.tries && n != c.tries-1 {
				t.Errorf("tried %d times, want %d", n, c.tries)
			}
			if n := p.metric("metip_connector_system_connected"); n != 1 {
				t.Error("one slow message makes the system unavailable")
			}
		})
	}
}

func TestExpiryTimeIsCheckedAtTheDoor(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	_, bus, _ := startSource(t, s, sourceConfig(s))
	m := event("a")
	m.Headers = map[string]string{contract.ExtensionExpiryTime: "in an hour"}
	if err := bus.Publish(t.Context(), m); !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), "RFC 3339") {
		t.Error(err)
	}
	m.Headers[contract.ExtensionExpiryTime] = "2026-11-22T10:00:00+01:00"
	if err := bus.Publish(t.Context(), m); err != nil {
		t.Error(err)
	}
}
