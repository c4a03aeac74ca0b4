package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestCacheOfAService(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	n := 0
	f := newFakeService(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) {
		n++
		a := text("%d", n)
		switch r.Path {
		case "/error":
			a.Status = 404
		case "/never":
			a.CacheFor = -1
		}
		return a, nil
	})
	p := startService(t, s, "svc-1", f, func(c *contract.Service) {
		c.MaxConcurrent = 1
		c.Cache = &contract.Cache{TTL: contract.Duration(time.Hour), MaxBytes: 1 << 20, Methods: []string{"GET", "POST"}}
	})
	_, k := startCaller(t, s, serviceCall(nil))
	get := func(method, path, query, body string, header map[string][]string) string {
		r := ask(method, path, body)
		r.Query, r.Header = query, header
		return string(answer(t, k, r).Data)
	}
	first := get("GET", "/a", "x=1", "", nil)
	for _, same := range []string{get("GET", "/a", "x=1", "", nil), get("GET", "/a", "x=1", "", map[string][]string{"x-other": {"1"}})} {
		if same != first {
			t.Errorf("%s is not %s", same, first)
		}
	}
	seen := map[string]bool{first: true}
	for i, other := range []string{
		get("GET", "/a", "x=2", "", nil), get("GET", "/b", "x=1", "", nil), get("PUT", "/a", "x=1", "", nil), get("POST", "/a", "x=1", "{}", nil),
		get("POST", "/a", "x=1", "[]", nil), get("GET", "/a", "x=1", "", map[string][]string{"accept": {"text/html"}}),
		get("GET", "/a", "x=1", "", map[string][]string{"cache-control": {"no-cache"}}), get("GET", "/ax=1", "", "", nil),
		get("PUT", "/a", "x=1", "", nil), get("GET", "/error", "", "", nil), get("GET", "/error", "", "", nil), get("GET", "/never", "", "", nil), get("GET", "/never", "", "", nil),
	} {
		if seen[other] {
			t.Errorf("answer %d, %s, is one of before", i, other)
		}
		seen[other] = true
	}
	if get("POST", "/a", "x=1", "{}", nil) == get("POST", "/a", "x=1", "[]", nil) {
		t.Error("the body is not looked at")
	}
	if got := p.metric(`metip_connector_calls_total{outcome="cached"}`); got != 4 {
		t.Errorf("%v answers came from the cache", got)
	}
	// While the system is down, what is fresh is still answered.
	f.set(sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("down")), func(context.Context, *sdk.Request) (*sdk.Answer, error) {
		return nil, sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("down"))
	})
	within(t, 20*time.Second, "the circuit is open", func() bool { return answer(t, k, ask("GET", "/z", "")).Status == 503 })
	if again := get("GET", "/a", "x=1", "", nil); again != first {
		t.Errorf("%s is not %s", again, first)
	}
}

func TestCacheBounds(t *testing.T) {
	t.Parallel()
	c := newCallCache(contract.Cache{TTL: contract.Duration(time.Minute), MaxBytes: 10 * (cacheEntryCost + 1100)})
	now := time.Now()
	key := func(i int) cacheKey { return keyOf(&sdk.Request{Method: "GET", Path: fmt.Sprint("/", i)}) }
	body := func(n int) *sdk.Answer {
		a := text("")
		a.Data = make([]byte, n)
		return a
	}
	for i := range 100 {
		c.put(key(i), body(1024), now)
		if c.get(key(0), now) == nil { // asked for all the time, it stays
			t.Fatalf("after %d answers the one that is asked for is gone", i)
		}
	}
	kept := 0
	for i := range 100 {
		if c.get(key(i), now) != nil {
			kept++
		}
	}
	if kept < 8 || kept > 10 || len(c.entries) != kept || c.recent.Len() != kept || c.size > c.max {
		t.Errorf("%d answers with %d bytes are kept, %d may be", kept, c.size, c.max)
	}
	c.put(key(200), body(1<<20), now)
	if c.get(key(200), now) != nil {
		t.Error("an answer larger than the cache is kept")
	}
	if c.get(key(0), now.Add(time.Minute)) != nil {
		t.Error("an old answer is given")
	}
	short := body(1)
	short.CacheFor = time.Second
	c.put(key(300), short, now)
	if c.get(key(300), now.Add(999*time.Millisecond)) == nil || c.get(key(300), now.Add(time.Second)) != nil {
		t.Error("the system's own limit does not count")
	}
	if a := c.get(key(0), now.Add(-time.Hour)); a != nil && a.Header["age"][0] != "0" {
		t.Error(a.Header)
	}
}
