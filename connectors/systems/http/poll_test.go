package http

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// polled is a system that is asked, and what is known of the source that asks it.
type polled struct {
	*target
	file string
	bus  *fakes.Publisher
}

func newPolled(t *testing.T, answer http.HandlerFunc) *polled {
	t.Helper()
	p := &polled{target: newTarget(t), file: filepath.Join(t.TempDir(), "position"), bus: &fakes.Publisher{}}
	p.respond = answer
	return p
}

// pod that asks the system.
func (s *polled) pod(t *testing.T, path, format string, items any) *poll {
	t.Helper()
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthAnonymous}}
	config.Source = &contract.Source{System: contract.System{Type: "httpPoll"}, Format: format, Position: true}
	rt := fakes.Runtime(t, config, &fakes.Secrets{}, nil)
	rt.Position = fakes.NewPosition(s.file)
	options := map[string]any{"url": s.URL + path}
	if items != nil {
		options["items"] = items
	}
	source, err := NewPollSource(rt, fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	p := source.(*poll)
	p.bus = s.bus
	t.Cleanup(func() { _ = p.client.Close() })
	return p
}

// asked are the paths and queries of the requests so far.
func (s *polled) asked() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		out = append(out, r.URL.String())
	}
	return out
}

// stored are the bodies on the bus.
func (s *polled) stored() []string {
	out := []string{}
	for _, m := range s.bus.Stored() {
		out = append(out, string(m.Data))
	}
	return out
}

func (s *polled) wantStored(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), s.stored()); diff != "" {
		t.Errorf("on the bus (-want +got):\n%s", diff)
	}
}

func round(t *testing.T, p *poll) {
	t.Helper()
	if err := p.round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantPollDown(t *testing.T, err error, reason string, words ...string) {
	t.Helper()
	var unavailable *sdk.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Reason != reason {
		t.Errorf("error %v, want reason %s", err, reason)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

// answers by path and query.
func answers(pages map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.String()]
		if !ok {
			http.Error(w, "no such page", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(page))
	}
}

func TestPollCursorOfAnswer(t *testing.T) {
	pages := map[string]string{
		"/feed?limit=2":            `{"list": [{"id": 1}, {"id": 2}], "next": "a"}`,
		"/feed?limit=2&page=a":     `{"list": [{"id": 3}], "next": "b&c"}`,
		"/feed?limit=2&page=b%26c": `{"list": [{"id": 4}], "next": null}`,
	}
	s := newPolled(t, answers(pages))
	items := map[string]any{"list": "data.list", "id": "data.id", "cursor": map[string]any{"answer": "data.next", "parameter": "page"}}
	p := s.pod(t, "/feed?limit=2", sdk.FormatJSON, items)
	round(t, p)
	s.wantStored(t, `{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":4}`)
	if diff := cmp.Diff([]string{"/feed?limit=2", "/feed?limit=2&page=a", "/feed?limit=2&page=b%26c"}, s.asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	// The last page is asked again, by this pod and by another; what it listed before is known, changed or not.
	s.mu.Lock()
	pages["/feed?limit=2&page=b%26c"] = `{"list": [{"id": 4}, {"id": 5}, {"id": 1}], "next": ""}`
	s.mu.Unlock()
	round(t, p)
	s.wantStored(t, `{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":4}`, `{"id":5}`)
	second := s.pod(t, "/feed?limit=2", sdk.FormatJSON, items)
	s.mu.Lock()
	pages["/feed?limit=2&page=b%26c"] = `{"list": [{"id": 4, "v": 2}], "next": "d"}`
	pages["/feed?limit=2&page=d"] = `{"list": []}`
	s.mu.Unlock()
	repeats := s.bus.Repeats()
	round(t, second)
	round(t, second)
	s.wantStored(t, `{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":4}`, `{"id":5}`, `{"id":4,"v":2}`)
	if n := s.bus.Repeats() - repeats; n != 0 {
		t.Errorf("%d items came again", n)
	}
}

func TestPollCursorIsAnAddress(t *testing.T) {
	s := newPolled(t, answers(map[string]string{
		"/delta":         `{"value": [{"id": "a"}], "nextLink": "/delta?skip=1"}`,
		"/delta?skip=1":  `{"value": [{"id": "b"}], "deltaLink": "/delta?token=1"}`,
		"/delta?token=1": `{"value": [], "deltaLink": "/delta?token=1"}`,
	}))
	items := map[string]any{"list": "data.value", "id": "data.id", "nextPage": "data.nextLink", "cursor": map[string]any{"answer": "data.deltaLink"}}
	round(t, s.pod(t, "/delta", sdk.FormatJSON, items))
	round(t, s.pod(t, "/delta", sdk.FormatJSON, items))
	s.wantStored(t, `{"id":"a"}`, `{"id":"b"}`)
	if diff := cmp.Diff([]string{"/delta", "/delta?skip=1", "/delta?token=1", "/delta?token=1"}, s.asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestPollCursorOfItems(t *testing.T) {
	var mu sync.Mutex
	list := `[{"id": "a", "at": 9}, {"id": "b", "at": 10}, {"id": "c", "at": 10}]`
	s := newPolled(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(list))
	})
	items := map[string]any{"list": "data", "id": "data.id", "cursor": map[string]any{"item": "data.at", "parameter": "since", "start": "8"}}
	round(t, s.pod(t, "/", sdk.FormatJSON, items))
	mu.Lock()
	list = `[{"id": "b", "at": 10}, {"id": "c", "at": 10}, {"id": "d", "at": 10}, {"id": "b", "at": 11}]`
	mu.Unlock()
	p := s.pod(t, "/", sdk.FormatJSON, items)
	round(t, p)
	s.wantStored(t, `{"at":9,"id":"a"}`, `{"at":10,"id":"b"}`, `{"at":10,"id":"c"}`, `{"at":10,"id":"d"}`, `{"at":11,"id":"b"}`)
	if n := s.bus.Repeats(); n != 0 {
		t.Errorf("%d items came again", n)
	}
	if got := s.asked(); got[0] != "/?since=8" || got[len(got)-1] != "/?since=11" {
		t.Errorf("asked %q", got)
	}
	mu.Lock()
	list = `[{"id": "y", "at": 12}, {"id": "z", "at": 14}, {"id": "x", "at": 13}]`
	mu.Unlock()
	wantPollDown(t, p.round(t.Context()), contract.ReasonSystemError, "ascending order", "cursor 13", "cursor 14")
	mu.Lock()
	list = `[{"id": "y", "at": 12}, {"id": "z"}]`
	mu.Unlock()
	wantPollDown(t, p.round(t.Context()), contract.ReasonSystemError, "items.cursor.item of z", "no such key: at")
	s.wantStored(t, `{"at":9,"id":"a"}`, `{"at":10,"id":"b"}`, `{"at":10,"id":"c"}`, `{"at":10,"id":"d"}`, `{"at":11,"id":"b"}`, `{"at":12,"id":"y"}`)
}

// A list that descends is seen to before the position is beyond what was not read, over pages too.
func TestPollDescending(t *testing.T) {
	s := newPolled(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "":
			w.Header().Set("Link", `</?page=2>; rel=next`)
			_, _ = w.Write([]byte(`[{"id": 1, "at": "2026-01-02T00:00:00Z"}, {"id": 2, "at": "2026-01-03T00:00:00.5Z"}]`))
		default:
			_, _ = w.Write([]byte(`[{"id": 3, "at": "2026-01-03T00:00:00.25Z"}]`))
		}
	})
	p := s.pod(t, "/", sdk.FormatJSON, map[string]any{"list": "data", "id": "data.id", "cursor": map[string]any{"item": "data.at", "parameter": "since"}})
	wantPollDown(t, p.round(t.Context()), contract.ReasonSystemError, "item 3", "ascending order")
	s.wantStored(t, `{"at":"2026-01-02T00:00:00Z","id":1}`, `{"at":"2026-01-03T00:00:00.5Z","id":2}`)
}

// Where more items have one cursor than can be remembered, it waits rather than sends them again and again.
func TestPollCursorTooCoarse(t *testing.T) {
	s := newPolled(t, func(w http.ResponseWriter, _ *http.Request) {
		var list []string
		for i := range 200 {
			list = append(list, fmt.Sprintf(`{"id": %d, "day": "2026-01-01"}`, i))
		}
		_, _ = w.Write([]byte("[" + strings.Join(list, ",") + "]"))
	})
	p := s.pod(t, "/", sdk.FormatJSON, map[string]any{"list": "data", "id": "data.id", "cursor": map[string]any{"item": "data.day", "parameter": "since"}})
	wantPollDown(t, p.round(t.Context()), contract.ReasonSystemError, "more than 180 items have the cursor", "2026-01-01", "finer")
}

func TestPollWhole(t *testing.T) {
	var mu sync.Mutex
	body, etags := "A", 0
	become := func(text string) { mu.Lock(); body = text; mu.Unlock() }
	s := newPolled(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("ETag", `"`+body+`"`)
		if r.Header.Get("If-None-Match") == `"`+body+`"` {
			etags++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(body))
	})
	p := s.pod(t, "/state", sdk.FormatText, nil)
	round(t, p)
	round(t, p)
	if etags != 1 {
		t.Errorf("%d answers said that nothing has changed, want 1", etags)
	}
	round(t, s.pod(t, "/state", sdk.FormatText, nil))
	s.wantStored(t, "A")
	// The bus has B, and the pod dies before it knows; then it is A again, which is news.
	become("B")
	p = s.pod(t, "/state", sdk.FormatText, nil)
	s.bus.Lose(errors.New("the broker breaks off"))
	if err := p.round(t.Context()); !errors.Is(err, errNotTaken) {
		t.Fatal(err)
	}
	s.bus.Lose(nil)
	s.wantStored(t, "A", "B")
	become("A")
	round(t, s.pod(t, "/state", sdk.FormatText, nil))
	s.wantStored(t, "A", "B", "A")
	// The same without the change in between: B is on the bus once.
	become("C")
	p = s.pod(t, "/state", sdk.FormatText, nil)
	s.bus.Lose(errors.New("the broker breaks off"))
	if err := p.round(t.Context()); !errors.Is(err, errNotTaken) {
		t.Fatal(err)
	}
	s.bus.Lose(nil)
	round(t, s.pod(t, "/state", sdk.FormatText, nil))
	s.wantStored(t, "A", "B", "A", "C")
	m := s.bus.Stored()[0]
	if m.Subject != "/state" || m.PartitionKey != "/state" || m.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("subject %q, partition key %q, content type %q", m.Subject, m.PartitionKey, m.ContentType)
	}
}

func TestPollRefuses(t *testing.T) {
	feed := map[string]any{"list": "data.items", "id": "data.id", "cursor": map[string]any{"answer": "data.next", "parameter": "page"}}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		reason string
		words  []string
	}{
		"not JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, contract.ReasonSystemError, []string{"not JSON"}},
		"no list":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"items": {}}`)) }, contract.ReasonSystemError, []string{"items.list", "no list"}},
		"no id":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"items": [{}]}`)) }, contract.ReasonSystemError, []string{"items.id", "item 0"}},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		}, contract.ReasonSystemError, []string{"302", "not followed"}},
		"gone":        {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "never heard of it", http.StatusNotFound) }, contract.ReasonSystemError, []string{"404", "never heard of it"}},
		"who are you": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, contract.ReasonAuthenticationFailed, []string{"403"}},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{`))
		}, contract.ReasonConnectionFailed, []string{"broke off"}},
		"other host": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<https://elsewhere.example/>; rel=next`)
			_, _ = w.Write([]byte(`{"items": []}`))
		}, contract.ReasonSystemError, []string{"elsewhere.example", "same scheme, host and port"}},
		"itself": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+r.URL.String()+">; rel=next")
			_, _ = w.Write([]byte(`{"items": []}`))
		}, contract.ReasonSystemError, []string{"names itself"}},
		"too large":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxPage+1)) }, contract.ReasonSystemError, []string{"larger than", "limit"}},
		"cursor a list": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"items": [], "next": [1]}`)) }, contract.ReasonSystemError, []string{"items.cursor.answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPolled(t, c.answer)
			wantPollDown(t, s.pod(t, "/feed", sdk.FormatJSON, feed).round(t.Context()), c.reason, c.words...)
			s.wantStored(t)
		})
	}
	s := newPolled(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	var after *sdk.RetryAfterError
	if err := s.pod(t, "/feed", sdk.FormatJSON, feed).round(t.Context()); !errors.As(err, &after) || after.After != 7*time.Second {
		t.Errorf("429: %v", err)
	}
}

func TestNextLink(t *testing.T) {
	for value, want := range map[string]string{
		"":                             "",
		`<a>; rel="next"`:              "a",
		`<a>; rel=prev, <b>; rel=next`: "b",
		`<a>; title="x, <y>; rel=next"; rel=last, <b?c,d>; rel="last next"`: "b?c,d",
		`<a>; rel=prev; rel=next`:       "",
		`<a>; title="\", "; rel="NEXT"`: "a",
		`<a`:                            "",
		`rel=next`:                      "",
	} {
		if got := nextLink([]string{value}); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}
