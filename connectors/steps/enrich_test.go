package steps

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func enrichOf(t testing.TB, change func(*contract.Enrich)) *Enrich {
	t.Helper()
	spec := &contract.Enrich{Service: "svc", Method: "GET", Path: "/persons/{data.id}", Into: "person"}
	if change != nil {
		change(spec)
	}
	s, err := Compile(contract.Step{Enrich: spec})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Enrich)
}

func jsonMessage(body string) *sdk.Message {
	return &sdk.Message{ID: "1", Format: sdk.FormatJSON, Data: []byte(body), Headers: map[string]string{"court": "NMM"}}
}

func answerOf(format, body string) *sdk.Answer {
	a := &sdk.Answer{Status: 200}
	a.Format, a.Data = format, []byte(body)
	return a
}

func TestEnrichRequest(t *testing.T) {
	e := enrichOf(t, func(s *contract.Enrich) {
		s.Method, s.Path = "POST", "/a{{b/{data.id}/c"
		s.Query, s.Headers = map[string]string{"x y": "{headers.court}&", "e": ""}, map[string]string{"X-A": "{id}", "X-B": ""}
		s.Body = `{"n": data.n}`
	})
	r, err := e.Request(jsonMessage(`{"id":"ä/ ;+?#%","n":1.10}`))
	if err != nil {
		t.Fatal(err)
	}
	got := []any{r.Method, r.Path, r.Query, r.Header, string(r.Data), r.Format}
	want := []any{"POST", "/a{b/%C3%A4%2F%20%3B%2B%3F%23%25/c", "e=&x%20y=NMM%26", map[string][]string{"x-a": {"1"}}, `{"n":1.10}`, "JSON"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for body, want := range map[string]string{
		`{"id":"","n":1}`: "call.path: a value that is inserted is empty", `{"n":1}`: "call.path: {data.id}: no such key: id", `{"id":"x"}`: "call.body: ",
		`{"id":{},"n":1}`: "call.path: {data.id}: is an object",
	} {
		if _, err := e.Request(jsonMessage(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	headers := enrichOf(t, func(s *contract.Enrich) { s.Path, s.Headers = "", map[string]string{"x-a": "{data.id}"} })
	if _, err := headers.Request(jsonMessage(`{"id":"a\r\nAuthorization: x"}`)); err == nil || !strings.Contains(err.Error(), "control characters") {
		t.Error("a header that breaks apart:", err)
	}
	if _, err := enrichOf(t, nil).Request(jsonMessage(`{"id":".."}`)); err == nil || !strings.Contains(err.Error(), "lead elsewhere") {
		t.Error("a path that leads elsewhere:", err)
	}
}

func TestEnrichMerge(t *testing.T) {
	for _, c := range []struct{ into, body, format, answer, want string }{
		{"person", `{"b":1.10,"a":[1]}`, "JSON", `{"x": 1.0}`, `{"a":[1],"b":1.10,"person":{"x": 1.0}}`},
		{"a.b.c", `{"a":{"z":1}}`, "JSON", `1`, `{"a":{"b":{"c":1},"z":1}}`},
		{"a.b", `{"a":null}`, "Text", "x\"y", `{"a":{"b":"x\"y"}}`},
		{"a", `{"a":1}`, "XML", "<x/>", `{"a":"<x/>"}`},
		{"a", `{}`, "Binary", "", `{"a":null}`},
		{"a.b", `{"a":"x"}`, "JSON", "1", "!into: a is there, and no object"},
		{"a", `[]`, "JSON", "1", "!no JSON object"},
		{"a", `{}`, "JSON", "1}", "!is not"},
		{"a", `{}`, "Text", "\xff", "!no UTF-8"},
		{"a", `{}`, "Binary", "x", "!takes JSON, XML and text"},
		{"a", `{}`, "JSON", strings.Repeat("[", sdk.MaxDepth) + strings.Repeat("]", sdk.MaxDepth), "!nested deeper"},
	} {
		m := jsonMessage(c.body)
		before, _ := m.Body()
		err := enrichOf(t, func(s *contract.Enrich) { s.Into = c.into }).Merge(m, answerOf(c.format, c.answer))
		if want, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s into %s: %v, want %s", c.answer, c.into, err, want)
			}
			if after, _ := m.Body(); !cmp.Equal(before, after) || string(m.Data) != c.body {
				t.Errorf("%s: a merge that fails changes the message: %s", c.body, m.Data)
			}
			continue
		}
		if err != nil || string(m.Data) != c.want {
			t.Errorf("%s into %s: %s %v, want %s", c.answer, c.into, m.Data, err, c.want)
		}
	}
}

func TestEnrichCompile(t *testing.T) {
	for field, change := range map[string]func(*contract.Enrich){
		"enrich.call.path":         func(s *contract.Enrich) { s.Path = "/a/{data.}" },
		"enrich.call.query[q]":     func(s *contract.Enrich) { s.Query = map[string]string{"q": "{"} },
		"enrich.call.headers[x-a]": func(s *contract.Enrich) { s.Headers = map[string]string{"x-a": "}"} },
		"enrich.call.body":         func(s *contract.Enrich) { s.Method, s.Body = "POST", "data +" },
		"enrich.call.method":       func(s *contract.Enrich) { s.Body = "1" },
		"enrich.default":           func(s *contract.Enrich) { s.Default = "nothing" },
		"enrich":                   func(s *contract.Enrich) { s.Into = "a..b" },
	} {
		spec := &contract.Enrich{Service: "svc", Method: "GET", Path: "/", Into: "x"}
		change(spec)
		_, err := Compile(contract.Step{Enrich: spec})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, path := range []string{"/a?b=1", "/a b", "/{data.id}#x", "{data.id}", "a"} {
		if _, err := Compile(contract.Step{Enrich: &contract.Enrich{Service: "svc", Method: "GET", Path: path, Into: "x"}}); err == nil {
			t.Errorf("the path %q compiles", path)
		}
	}
	if _, err := enrichOf(t, nil).Apply(t.Context(), jsonMessage("{}")); err == nil {
		t.Error("it applies where nobody can be asked")
	}
}

func BenchmarkEnrich(b *testing.B) {
	e := enrichOf(b, nil)
	body := `{"id":"17","text":"` + strings.Repeat("x", 900) + `"}`
	a := answerOf("JSON", `{"name":"Nobody","born":"1970-01-01"}`)
	b.ReportAllocs()
	for b.Loop() {
		m := jsonMessage(body)
		if _, err := e.Request(m); err != nil {
			b.Fatal(err)
		}
		if err := e.Merge(m, a); err != nil {
			b.Fatal(err)
		}
	}
}
