package bus

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

func TestReplayChooses(t *testing.T) {
	event := func(id, messageID string) stored {
		return stored{header: nats.Header{contract.HeaderID: {id}, headerMsgID: {messageID}}}
	}
	letter := func(id, messageID, reason string) stored {
		return stored{header: nats.Header{contract.HeaderID: {id}, contract.HeaderDeadMessageID: {messageID}, contract.HeaderDeadReason: {reason}}}
	}
	for _, c := range []struct {
		name   string
		replay Replay
		m      stored
		id     string
		want   bool
	}{
		{"everything", Replay{}, event("a", "u//a"), "", true},
		{"the source's id", Replay{IDs: []string{"a"}}, event("a", "u//a"), "a", true},
		{"the id on the bus", Replay{IDs: []string{"u//a"}}, event("a", "u//a"), "u//a", true},
		{"another id", Replay{IDs: []string{"b"}}, event("a", "u//a"), "", false},
		{"an id that headers escape", Replay{IDs: []string{"50 %"}}, event("50%20%25", "u//x"), "50 %", true},
		{"the escaped id itself", Replay{IDs: []string{"50%20%25"}}, event("50%20%25", "u//x"), "50%20%25", true},
		{"a percent sign that is no escape", Replay{IDs: []string{"50%"}}, event("50%", "u//x"), "50%", true},
		{"a message without headers", Replay{IDs: []string{"a"}}, stored{}, "", false},
		{"reasons mean nothing to events", Replay{Reasons: []string{"Rejected"}}, event("a", "u//a"), "", true},
		{"a reason", Replay{Dead: true, Reasons: []string{"StepFailed", "Rejected"}}, letter("a", "u//a", "Rejected"), "", true},
		{"another reason", Replay{Dead: true, Reasons: []string{"StepFailed"}}, letter("a", "u//a", "Rejected"), "", false},
		{"reason and id", Replay{Dead: true, Reasons: []string{"Rejected"}, IDs: []string{"u//a"}}, letter("a", "u//a", "Rejected"), "u//a", true},
		{"reason, and another id", Replay{Dead: true, Reasons: []string{"Rejected"}, IDs: []string{"b"}}, letter("a", "u//a", "Rejected"), "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if id, ok := c.replay.chooser()(c.m); id != c.id || ok != c.want {
				t.Errorf("got %q %v, want %q %v", id, ok, c.id, c.want)
			}
		})
	}
}

func TestCopyOfDropsWhatIsTheBrokersOrForged(t *testing.T) {
	r := Replay{Namespace: "ns", Integration: "in", Route: "r", Destination: "d", Name: "again", UID: "u"}
	out := r.copyOf(stored{subject: "evt.ns.in.src.7.x", sequence: 9, data: []byte("body"), header: nats.Header{
		headerMsgID: {"id"}, "nats-expected-last-sequence": {"4"}, "Nats-TTL": {"1s"}, contract.HeaderDeadReason: {"forged"},
		contract.HeaderReplayRedrives: {"forged"}, contract.HeaderReplayName: {"forged"}, "ce-id": {"9"},
	}})
	want := nats.Header{
		headerMsgID: {"replay/u/9"}, "ce-id": {"9"}, contract.HeaderReplayName: {"again"}, contract.HeaderReplaySubject: {"evt.ns.in.src.7.x"},
		contract.HeaderReplaySequence: {"9"}, contract.HeaderReplayMessageID: {"id"},
	}
	if out.Subject != "rpl.ns.in.r.d.7" || string(out.Data) != "body" || len(out.Header) != len(want) {
		t.Errorf("%s %s %v", out.Subject, out.Data, out.Header)
	}
	for name, v := range want {
		if got := out.Header[name]; len(got) != 1 || got[0] != v[0] {
			t.Errorf("header %s is %q, want %q", name, got, v)
		}
	}
}

func TestCopyOfALetterWithoutItsSubjectKeepsItsKeysLane(t *testing.T) {
	r := Replay{Namespace: "ns", Integration: "in", Route: "r", Destination: "d", Dead: true}
	keyed := r.copyOf(stored{header: nats.Header{contract.HeaderPartitionKey: {"k"}, contract.HeaderID: {"a"}}})
	plain := r.copyOf(stored{header: nats.Header{contract.HeaderID: {"a"}}})
	if want := contract.ReplaySubject("ns", "in", "r", "d", contract.Slot("k")); keyed.Subject != want {
		t.Errorf("%s, want %s", keyed.Subject, want)
	}
	if want := contract.ReplaySubject("ns", "in", "r", "d", contract.Slot("a")); plain.Subject != want {
		t.Errorf("%s, want %s", plain.Subject, want)
	}
}

func TestPaceIsSmooth(t *testing.T) {
	for _, rate := range []int{1, 7, 100, 500, 5000, 100000} {
		var p Pace
		p.SetRate(rate)
		begun := time.Unix(0, 0)
		sent, largest := 0, 0
		for now := begun; now.Sub(begun) < 10*time.Second; {
			n, wait := p.take(now)
			p.used(n)
			sent, largest = sent+n, max(largest, n)
			now = now.Add(max(wait, 100*time.Microsecond)) // what a step takes
		}
		if low, high := 9*rate, 10*rate+rate/4+copyBatch; sent < low-1 || sent > high || largest > max(1, rate/4+1) && largest > copyBatch {
			t.Errorf("%d a second: %d in ten seconds, at most %d at once", rate, sent, largest)
		}
	}
}

func TestPaceMakesLittleUpFor(t *testing.T) {
	var p Pace
	p.SetRate(100)
	now := time.Unix(0, 0)
	n, _ := p.take(now)
	p.used(n)
	if n, _ = p.take(now.Add(time.Hour)); n > 25 {
		t.Errorf("%d at once after an hour's rest", n)
	}
}

func TestPaceWithoutRateNeverWaits(t *testing.T) {
	var p Pace
	for range 3 {
		if n, wait := p.take(time.Unix(0, 0)); n != copyBatch || wait != 0 {
			t.Fatal(n, wait)
		}
		p.used(copyBatch)
	}
}

func TestTrimmerSparesWhatIsHeldUntilLiveMessagesNeedTheRoom(t *testing.T) {
	tr := newTrimmer(nil, nil, 0, logr.Discard())
	info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Name: "s", MaxBytes: 1000}}
	now := time.Unix(1000, 0)
	none := tr.heldFrom(info, now)
	tr.hold("s", "a", 50, now.Add(time.Minute))
	tr.hold("s", "b", 20, now.Add(time.Second))
	tr.hold("other", "c", 1, now.Add(time.Minute))
	if got := tr.heldFrom(info, now); got != 21 {
		t.Errorf("held from %d, want 21", got)
	}
	if got := tr.heldFrom(info, now.Add(2*time.Second)); got != 51 {
		t.Errorf("held from %d after the second's end, want 51", got)
	}
	info.State.Bytes = 950
	if got := tr.heldFrom(info, now); got != none {
		t.Errorf("a stream that is nearly full is held from %d", got)
	}
	info.State.Bytes = 0
	tr.release("s", "a")
	tr.release("s", "a")
	if got := tr.heldFrom(info, now); got != none {
		t.Errorf("held from %d after the release", got)
	}
}
