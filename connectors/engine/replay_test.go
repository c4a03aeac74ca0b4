package engine

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// replay a stored message to ns/in's Route r, destination d, as the operator does, and return the copy's sequence.
func replay(t *testing.T, s *enginetest.Server, sequence uint64) uint64 {
	t.Helper()
	stream, err := s.Admin().Stream(t.Context(), "ns_in")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	slot, _ := contract.EventSlot(m.Subject)
	out := &nats.Msg{Subject: contract.ReplaySubject("ns", "in", "r", "d", slot), Header: nats.Header{}, Data: m.Data}
	for name, values := range m.Header {
		out.Header[name] = values
	}
	for name, value := range map[string]string{
		headerMsgID: contract.ReplayMessageID("u-1", sequence), contract.HeaderReplayName: "again", contract.HeaderReplaySubject: m.Subject,
		contract.HeaderReplaySequence: strconv.FormatUint(sequence, 10), contract.HeaderReplayMessageID: m.Header.Get(headerMsgID), contract.HeaderReplayRedrives: "3",
	} {
		out.Header[name] = []string{value}
	}
	ack, err := s.Admin().PublishMsg(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestReplayedMessageIsTheOriginal(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var mu sync.Mutex
	var ids []string
	f.write = func(d *sdk.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, d.ID+" "+d.MessageID+" "+d.Type+" "+string(d.Data))
		return nil
	}
	r := routeConfig("r", "d")
	r.Steps = []contract.Step{{Name: "filter", Filter: "data.n > 1"}}
	p := startSink(t, s, f, r)
	passes := s.Publish("ns", "in", "src", "custody.arrest", "a", []byte(`{"n":2}`))
	filtered := s.Publish("ns", "in", "src", "custody.arrest", "b", []byte(`{"n":1}`))
	replay(t, s, passes)
	replay(t, s, filtered)
	within(t, 10*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	mu.Lock()
	defer mu.Unlock()
	if want := `a uid-src//a custody.arrest {"n":2}`; len(ids) != 2 || ids[0] != want || ids[1] != want {
		t.Errorf("delivered %q, want %q twice", ids, want)
	}
	if n := len(s.Messages("ns_in_dead")); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	if n := p.metric(`metip_connector_replayed_total{destination="d",route="r"}`); n != 1 {
		t.Errorf("%v replayed messages were counted", n)
	}
	if n := p.metric(`metip_connector_end_to_end_seconds_count{destination="d",route="r"}`); n != 1 {
		t.Errorf("%v latencies: a replayed message has none", n)
	}
}

func TestDeadLetterOfAReplayedMessageIsItsOwn(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	f.write = func(*sdk.Delivery) error { return sdk.Permanentf("no such court") }
	startSink(t, s, f, routeConfig("r", "d"))
	original := s.Publish("ns", "in", "src", "custody.arrest", "a", []byte(`{}`))
	copied := replay(t, s, original)
	within(t, 10*time.Second, "both dead letters", func() bool { return len(s.Messages("ns_in_dead")) == 2 })
	want := map[string]string{
		contract.DeadSubject("ns", "in", "r", "d", original, 0):      "",
		contract.DeadSubject("ns", "in", "r", "d", original, copied): "3",
	}
	for _, m := range s.Messages("ns_in_dead") {
		redrives, ok := want[m.Subject]
		if !ok {
			t.Errorf("dead letter %s", m.Subject)
		}
		delete(want, m.Subject)
		for name, value := range map[string]string{
			contract.HeaderDeadSequence: strconv.FormatUint(original, 10), contract.HeaderDeadMessageID: "uid-src//a", contract.HeaderDeadRedrives: redrives,
			contract.HeaderDeadSubject: contract.EventSubject("ns", "in", "src", contract.Slot("a"), "custody.arrest"),
			contract.HeaderReplayName:  "", contract.HeaderReplaySubject: "", contract.HeaderReplayMessageID: "", contract.HeaderReplaySequence: "",
		} {
			if got := m.Header.Get(name); got != value {
				t.Errorf("%s: header %s is %q, want %q", m.Subject, name, got, value)
			}
		}
	}
}

// TestReplayHeadersOfEventsMeanNothing: a source that writes them itself cannot pass for another, nor plant them in a dead letter.
func TestReplayHeadersOfEventsMeanNothing(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	var mu sync.Mutex
	var got []string
	f.write = func(d *sdk.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, d.MessageID); d.ID == "bad" {
			return sdk.Permanentf("no")
		}
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	for _, id := range []string{"good", "bad"} {
		m := &nats.Msg{Subject: contract.EventSubject("ns", "in", "src", 0, "x"), Data: []byte(`{}`), Header: nats.Header{
			contract.HeaderID: {id}, contract.HeaderSpecVersion: {contract.SpecVersion}, contract.HeaderType: {"x"}, contract.HeaderSource: {contract.SourceURI("ns", "src")},
			contract.HeaderFormat: {"JSON"}, contract.HeaderReplayMessageID: {"another's"}, contract.HeaderReplaySequence: {"1"},
			contract.HeaderReplaySubject: {"evt.ns.in.other.0.x"}, contract.HeaderDeadMessageID: {"another's"}, contract.HeaderDeadRedrives: {"7"},
		}}
		if _, err := s.Admin().PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 2 || got[0] == "another's" || got[1] == "another's" {
		t.Errorf("message ids %q", got)
	}
	dead := s.Messages("ns_in_dead")
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	for _, name := range []string{contract.HeaderDeadMessageID, contract.HeaderDeadRedrives, contract.HeaderReplayMessageID, contract.HeaderReplaySubject} {
		if v := dead[0].Header.Get(name); v != "" {
			t.Errorf("header %s is %q", name, v)
		}
	}
}
