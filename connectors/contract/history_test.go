package contract

import (
	"strings"
	"testing"
	"time"
)

func TestAppendHistory(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 5000, time.FixedZone("", 3600))
	h := AppendHistory("", "custody", at)
	h = AppendHistory(h, "arrests-to-court/database", at.Add(time.Second))
	if want := "custody;2026-11-23T09:00:00.000005Z, arrests-to-court/database;2026-11-23T09:00:01.000005Z"; h != want {
		t.Errorf("%s, want %s", h, want)
	}
	for range 1000 {
		h = AppendHistory(h, strings.Repeat("x", 127), at)
	}
	if len(h) > maxHistory || !strings.HasPrefix(h, "custody;") {
		t.Errorf("%d bytes: %.100s", len(h), h)
	}
}
