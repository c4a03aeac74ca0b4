package stub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/sdk"
)

func open(t *testing.T, options string) *service {
	t.Helper()
	s, err := NewService(sdk.Runtime{}, []byte(options))
	if err != nil {
		t.Fatal(err)
	}
	return s.(*service)
}

func request(method, path, query, body string) *sdk.Request {
	r := &sdk.Request{Method: method, Path: path, Query: query, Header: map[string][]string{"x-unit": {"7"}}}
	r.Format, r.ContentType, r.Data = sdk.FormatJSON, "application/json", []byte(body)
	return r
}

const persons = `{"examples":[
	{"name":"one","when":"headers.method == 'GET' && headers.path == '/persons/17'","body":"{\"id\": 17}","headers":{"ETag":"v1","Content-Type":"application/vnd.person+json"}},
	{"name":"search","when":"headers.path == '/persons' && headers['query-name'] == 'a b'","jq":"{found: $message.headers[\"query-name\"], unit: $message.headers[\"http-x-unit\"]}"},
	{"name":"new","when":"headers.method == 'POST' && data.name != ''","status":201,"headers":{"location":"/persons/{data.id}"},"jq":"{made: .name}"},
	{"name":"empty","when":"headers.method == 'DELETE'","status":204},
	{"name":"broken","when":"headers.method == 'PUT'","jq":"error(\"no\")"},
	{"name":"silent","when":"headers.method == 'PATCH'","jq":"empty"}
]}`

func TestExamples(t *testing.T) {
	s := open(t, persons)
	for _, c := range []struct {
		r      *sdk.Request
		status int
		body   string
		header map[string][]string
	}{
		{request("GET", "/persons/17", "", ""), 200, `{"id": 17}`, map[string][]string{"etag": {"v1"}}},
		{request("GET", "/persons", "name=a%20b", ""), 200, `{"found":"a b","unit":"7"}`, nil},
		{request("POST", "/persons", "", `{"name":"x","id":4}`), 201, `{"made":"x"}`, map[string][]string{"location": {"/persons/4"}}},
		{request("DELETE", "/persons/17", "", ""), 204, "", nil},
	} {
		a, err := s.Call(t.Context(), c.r)
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		if a.Status != c.status || string(a.Data) != c.body || a.CacheFor >= 0 {
			t.Errorf("%d %s", a.Status, a.Data)
		}
		if diff := cmp.Diff(c.header, a.Header); diff != "" {
			t.Error(diff)
		}
	}
	a, err := s.Call(t.Context(), request("GET", "/persons/17", "", ""))
	if err != nil || a.ContentType != "application/vnd.person+json" || a.Format != sdk.FormatJSON {
		t.Error(a, err)
	}
	for _, c := range []struct {
		r      *sdk.Request
		status int
		text   string
	}{
		{request("GET", "/persons/18", "", ""), 404, "none of the 6 examples of this stub fits GET /persons/18"},
		// An example that asks for what the call does not have does not fit it.
		{request("POST", "/persons", "", `{}`), 404, "none of"},
		{request("POST", "/persons", "", `{"name":"x"}`), 500, "new: header location"},
		{request("PUT", "/persons", "", ""), 500, "broken: jq"},
		{request("PATCH", "/persons", "", ""), 500, "silent: jq has no result"},
	} {
		_, err := s.Call(t.Context(), c.r)
		var failed *sdk.CallError
		if !errors.As(err, &failed) || failed.Status != c.status || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %d %s", c.r.Method, err, c.status, c.text)
		}
	}
	r := request("GET", "/persons/17", "", "")
	if _, err := s.Call(t.Context(), r); err != nil || r.Headers != nil || len(r.Data) != 0 {
		t.Errorf("the request has been changed: %+v", r)
	}
}

func TestLatency(t *testing.T) {
	s := open(t, `{"latency":{"min":"20ms","max":"40ms"},"examples":[{"when":"headers.path == '/slow'","latency":{"min":"5m"}},{}]}`)
	if diff := cmp.Diff([]latencyRange{{5 * time.Minute, 5 * time.Minute}, {20 * time.Millisecond, 40 * time.Millisecond}},
		[]latencyRange{s.examples[0].latency, s.examples[1].latency}, cmp.AllowUnexported(latencyRange{})); diff != "" {
		t.Error(diff)
	}
	begun := time.Now()
	if _, err := s.Call(t.Context(), request("GET", "/", "", "")); err != nil || time.Since(begun) < 20*time.Millisecond {
		t.Error(err, time.Since(begun))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Call(ctx, request("GET", "/slow", "", "")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	s := open(t, `{"faults":[{"percent":10,"status":503},{"percent":5,"drop":true}],"examples":[{"body":"1"}]}`)
	drawn := 0
	s.percent = func() int { return drawn }
	counts := map[string]int{}
	for drawn = range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if drawn >= 10 && drawn < 15 {
			cancel()
		}
		a, err := s.Call(ctx, request("GET", "/", "", ""))
		cancel()
		switch {
		case errors.Is(err, context.Canceled):
			counts["dropped"]++
		case err != nil:
			t.Fatal(err)
		default:
			counts[fmt.Sprint(a.Status)]++
		}
	}
	if diff := cmp.Diff(map[string]int{"503": 10, "dropped": 5, "200": 85}, counts); diff != "" {
		t.Error(diff)
	}
	if a := faulty(http.StatusTeapot); a.Status != 418 || !strings.Contains(string(a.Data), "told to put in") {
		t.Error(a)
	}
	always := open(t, `{"faults":[{"percent":100,"status":500}],"examples":[{}]}`)
	if a, err := always.Call(t.Context(), request("GET", "/", "", "")); err != nil || a.Status != 500 {
		t.Error(a, err)
	}
}

func TestOptions(t *testing.T) {
	for options, text := range map[string]string{
		`{}`:                                                                                   "1 to 64 examples",
		`{"examples":[{"when":"data."}]}`:                                                      "examples[0]: when",
		`{"examples":[{"jq":"{"}]}`:                                                            "examples[0]: jq",
		`{"examples":[{"jq":".","body":"x"}]}`:                                                 "at most one of body and jq",
		`{"examples":[{"status":99}]}`:                                                         "status must be",
		`{"examples":[{"headers":{"a":"{x"}}]}`:                                                "headers: a",
		`{"examples":[{"latency":{"max":"6m"}}]}`:                                              "latency must be",
		`{"examples":[{"latency":{"min":"2s","max":"1s"}}]}`:                                   "latency must be",
		`{"examples":[{}],"faults":[{"percent":0,"status":500}]}`:                              "percent must be",
		`{"examples":[{}],"faults":[{"percent":1}]}`:                                           "exactly one of status and drop",
		`{"examples":[{}],"faults":[{"percent":1,"status":500,"drop":true}]}`:                  "exactly one of status and drop",
		`{"examples":[{}],"faults":[{"percent":1,"status":99}]}`:                               "status must be",
		`{"examples":[{}],"faults":[{"percent":60,"status":500},{"percent":60,"status":501}]}`: "add up to 120",
		`{"examples":[{"wen":"true"}]}`:                                                        "unknown field",
	} {
		if _, err := NewService(sdk.Runtime{}, []byte(options)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %s", options, err, text)
		}
	}
}
