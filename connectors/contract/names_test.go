package contract

import (
	"hash/fnv"
	"testing"
)

func TestSlotIsFNV1a(t *testing.T) {
	for _, key := range []string{"", "a", "A-17", "custody/é", "0123456789012345678901234567890123456789"} {
		h := fnv.New32a()
		_, _ = h.Write([]byte(key))
		if want := int(h.Sum32() % Slots); Slot(key) != want {
			t.Errorf("slot of %q is %d, want %d", key, Slot(key), want)
		}
	}
}

func TestParseStatusSubject(t *testing.T) {
	ns, connector, pod, ok := ParseStatusSubject(StatusSubject("met", "custody", "custody-7d4f-abc"))
	if ns != "met" || connector != "custody" || pod != "custody-7d4f-abc" || !ok {
		t.Fatal(ns, connector, pod, ok)
	}
	if _, _, _, ok := ParseStatusSubject("status.a.b"); ok {
		t.Fatal("three tokens")
	}
}
