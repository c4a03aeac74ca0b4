package contract

import "testing"

func TestReplayMessageIDIsParsedForItsOwnReplayOnly(t *testing.T) {
	id := ReplayMessageID("u-1", 4711)
	if id != "replay/u-1/4711" {
		t.Error(id)
	}
	if seq, ok := ParseReplayMessageID("u-1", id); seq != 4711 || !ok {
		t.Error(seq, ok)
	}
	for _, other := range []string{ReplayMessageID("u-12", 4711), "u-1/4711", "replay/u-1/x", "replay/u-1/", ""} {
		if seq, ok := ParseReplayMessageID("u-1", other); ok {
			t.Errorf("%q is taken for %d", other, seq)
		}
	}
}

func TestEventSlot(t *testing.T) {
	if slot, ok := EventSlot(EventSubject("ns", "in", "src", 13, "custody.arrest.made")); slot != 13 || !ok {
		t.Error(slot, ok)
	}
	for _, s := range []string{"", "mark.ns.in", "evt.ns.in.src.16.x", "evt.ns.in.src.-1.x", "evt.ns.in.src.a.x", "evt.ns.in.src.1", "rpl.ns.in.route.db.3"} {
		if slot, ok := EventSlot(s); ok {
			t.Errorf("%q has slot %d", s, slot)
		}
	}
}

func FuzzEventSlot(f *testing.F) {
	f.Add("evt.ns.in.src.7.x.y")
	f.Add("evt.....")
	f.Fuzz(func(t *testing.T, subject string) {
		if slot, ok := EventSlot(subject); ok && (slot < 0 || slot >= Slots) {
			t.Errorf("%q has slot %d", subject, slot)
		}
	})
}

func FuzzParseReplayMessageID(f *testing.F) {
	f.Add("u", uint64(1), "replay/u/1")
	f.Add("", ^uint64(0), "replay//18446744073709551616")
	f.Fuzz(func(t *testing.T, uid string, sequence uint64, other string) {
		if got, ok := ParseReplayMessageID(uid, ReplayMessageID(uid, sequence)); !ok || got != sequence {
			t.Errorf("%d of %q is %d, %v", sequence, uid, got, ok)
		}
		_, _ = ParseReplayMessageID(uid, other)
	})
}
