package flow_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/flow"
)

func lines(t *testing.T, n int) []arrests.Line {
	t.Helper()
	var all []arrests.Line
	for _, r := range arrests.Generate(n) {
		all = append(all, arrests.Line{Record: r, Body: []byte("{}")})
	}
	return all
}

func TestPosterRepeatsUntilAccepted(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		seen[key]++
		if seen[key] == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	p := &flow.Poster{HTTP: server.Client(), URL: server.URL, Workers: 8, Stamp: ".x", RepeatEvery: 10}
	sent, err := p.Run(t.Context(), lines(t, 40))
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) != 40 || len(seen) != 40 || p.Retried.Load() != 40 || p.Repeated.Load() != 4 {
		t.Errorf("%d sent, %d keys, %d retried, %d repeated; want 40, 40, 40, 4", len(sent), len(seen), p.Retried.Load(), p.Repeated.Load())
	}
	for key := range seen {
		if !strings.HasSuffix(key, ".x") {
			t.Errorf("key %s lacks the run's stamp", key)
		}
	}
}

func TestPosterStopsAtARefusal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	p := &flow.Poster{HTTP: server.Client(), URL: server.URL, Workers: 2}
	if _, err := p.Run(ctx, lines(t, 5)); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("got %v, want the refusal", err)
	}
}

func TestLedger(t *testing.T) {
	now := time.Now()
	var sent []flow.Sent
	all := lines(t, 200)
	for i := range all {
		sent = append(sent, flow.Sent{Line: &all[i], At: now})
	}
	l := flow.NewLedger("database", sent, func(f arrests.Fate) bool { return f.DatabaseRefuses })
	if len(l.Due)+len(l.Refused)+l.Filtered != 200 || len(l.Refused) != 3 {
		t.Fatalf("%d due, %d refused, %d filtered", len(l.Due), len(l.Refused), l.Filtered)
	}
	if l.Open() != len(l.Due)+3 {
		t.Errorf("%d open before anything arrived", l.Open())
	}
	for id := range l.Due {
		l.Delivered[id], l.Times[id] = now.Add(time.Millisecond), 1
	}
	for id := range l.Refused {
		l.Dead[id] = 1
	}
	if problems := l.Problems(); len(problems) != 0 || l.Open() != 0 {
		t.Errorf("adds up, and yet: %v", problems)
	}
	l.Delivered["C-unknown"] = now
	for id := range l.Refused {
		delete(l.Dead, id)
		l.Dead[id+"x"] = 2
		break
	}
	var what []string
	for _, p := range l.Problems() {
		what = append(what, strings.SplitN(p, ": ", 3)[1])
	}
	want := []string{"1 delivered that should not have been", "1 missing among the dead letters", "1 dead letters that should have been delivered", "1 dead-lettered more than once"}
	if diff := cmp.Diff(want, what); diff != "" {
		t.Error(diff)
	}
}
