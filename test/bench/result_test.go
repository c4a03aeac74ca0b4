package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFiguresAsWritten(t *testing.T) {
	var r results
	r.add("ref", "delivered", 2000, "msg/s", higher)
	r.add("metip", "delivered", 1500, "msg/s", higher).against("ref", 2000).aim(0.8)
	r.add("metip", "rss", 20, "MiB", lower).aim(32)
	path := filepath.Join(t.TempDir(), "out", "bench.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"flow": "ref", "metric": "delivered", "value": 2000.0, "unit": "msg/s", "better": "higher"},
		{"flow": "metip", "metric": "delivered", "value": 1500.0, "unit": "msg/s", "better": "higher", "ratioTo": "ref", "ratio": 0.75, "target": 0.8},
		{"flow": "metip", "metric": "rss", "value": 20.0, "unit": "MiB", "better": "lower", "target": 32.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var table bytes.Buffer
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"0.75 of 2000", "at least 0.8: MISSED", "at most 32: met"} {
		if !strings.Contains(table.String(), text) {
			t.Errorf("the table lacks %q:\n%s", text, table.String())
		}
	}
}

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(all, p); got != want {
			t.Errorf("percentile %v is %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("percentile of nothing is %v", got)
	}
}

func TestRunAccountsForEveryMessage(t *testing.T) {
	r := newRun(100, 4)
	for range 3 {
		i, ok := r.take()
		if !ok {
			t.Fatal("no room")
		}
		r.sent[i].Store(int64(time.Duration(i+1) * time.Second))
		r.accepted[i].Store(int64(time.Duration(i+2) * time.Second))
		r.confirmed.Add(1)
	}
	r.arrive(0)
	r.arrive(0)
	r.arrive(2)
	if r.arrived.Load() != 2 || r.repeats.Load() != 1 {
		t.Errorf("arrived %d, repeated %d; want 2 and 1", r.arrived.Load(), r.repeats.Load())
	}
	s := r.sample(false)
	if s.messages != 3 || s.accepted != 3.0/4 || s.ack50 != time.Second {
		t.Errorf("sample %+v", s)
	}
}

func TestAuditCountsWritesByWhatTheyWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	line := func(verb, resource, subresource string, code int) string {
		raw, err := json.Marshal(map[string]any{
			"stage": "ResponseComplete", "verb": verb,
			"objectRef":      map[string]string{"resource": resource, "subresource": subresource},
			"responseStatus": map[string]int{"code": code},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw) + "\n"
	}
	text := line("list", "connectors", "", 200) + line("patch", "connectors", "status", 200) + line("patch", "connectors", "status", 409) +
		line("create", "events", "", 201) + line("update", "leases", "", 200) + line("create", "tokenreviews", "", 201)
	if err := os.WriteFile(path, []byte(text+`{"unfinished`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &audit{path: path}
	got, err := a.since()
	if err != nil {
		t.Fatal(err)
	}
	want := requests{writes: map[string]int{"patch connectors/status": 2}, leases: 1, events: 1, reads: 2, refused: 1}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(requests{})); diff != "" {
		t.Error(diff)
	}
	if again, err := a.since(); err != nil || again.total() != 0 || again.reads != 0 {
		t.Errorf("read again: %v, %v", again, err)
	}
}

func TestReadBenchmarks(t *testing.T) {
	out := "goos: linux\nBenchmarkFilter1KiB/one \t 1000\t 1100 ns/op\t 900000 ops/core-s\t 320 B/op\t 1 allocs/op\n" +
		"BenchmarkFilter1KiB/one \t 1000\t 1200 ns/op\t 800000 ops/core-s\t 320 B/op\t 1 allocs/op\nPASS\nok  \tpkg\t1.2s\n"
	want := map[string]map[string][]float64{"BenchmarkFilter1KiB/one": {
		"ns/op": {1100, 1200}, "ops/core-s": {900000, 800000}, "B/op": {320, 320}, "allocs/op": {1, 1},
	}}
	if diff := cmp.Diff(want, readBenchmarks([]byte(out))); diff != "" {
		t.Error(diff)
	}
}
