package steps

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/sdk"
)

const arrest = `{"arrestId":"A-17","count":3,"amount":12.10,"big":123456789012345678901234567890,"u64":18446744073709551615,` +
	`"court":{"code":"B01"},"tags":["a","b"],"none":null,"bound":true,"odd key":"x}y"}`

func message() *sdk.Message {
	return &sdk.Message{
		ID: "17", Type: "custody.arrest", Source: "/metip/met/custody", Subject: "A-17",
		Time: time.Date(2026, 11, 22, 10, 30, 0, 5e8, time.UTC), Headers: map[string]string{"marking": "OFFICIAL"},
		Format: "JSON", Data: []byte(arrest),
	}
}

func TestCompileErrors(t *testing.T) {
	filter := func(s string) error { _, err := CompileFilter(s); return err }
	value := func(s string) error { _, err := CompileValue(s); return err }
	template := func(s string) error { _, err := CompileTemplate(s); return err }
	transform := func(s string) error { _, err := CompileTransform(s); return err }
	for name, c := range map[string]struct {
		compile func(string) error
		text    string
		want    string
	}{
		"CEL syntax":                      {filter, "data.a ==", "line 1, column 10: Syntax error"},
		"CEL unknown variable":            {filter, "data.a == 1 &&\n  date.b == 2", "line 2, column 3: undeclared reference to 'date'"},
		"CEL wide characters":             {filter, "'é😀' == x", "line 1, column 9: undeclared reference to 'x'"},
		"CEL type":                        {filter, "type == 1", "line 1, column 6: found no matching overload"},
		"filter is a string":              {filter, "type", "line 1, column 1: the expression yields string, not a boolean"},
		"empty":                           {value, " ", "line 1, column 1: the expression is empty"},
		"bad regular expression":          {filter, "type.matches('(')", "line 1, column 14:"},
		"huge regular expression":         {filter, "type.matches('(a{1000}){1000}')", "line 1, column 14:"},
		"deep":                            {value, strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300), "line 1, column"},
		"long":                            {value, "'" + strings.Repeat("x", 20000) + "'", "line 1, column 1:"},
		"template brace":                  {template, "/a/{data.id", "line 1, column 4: '{' is never closed"},
		"template stray brace":            {template, "/a\nb}", "line 2, column 2: '}' without '{'"},
		"template expression":             {template, "/é/{data.id}\n/x{ nope }", "line 2, column 5: undeclared reference to 'nope'"},
		"template first line":             {template, "/é/{nope}", "line 1, column 5: undeclared reference to 'nope'"},
		"template 2nd line of expression": {template, "/é/{data.id ==\n nope}", "line 2, column 2: undeclared"},
		"template empty":                  {template, "{}", "line 1, column 2: the expression is empty"},
		"jq syntax":                       {transform, "{a: .b\n c: 2}", "line 2, column 2: unexpected token"},
		"jq end":                          {transform, "{a: .b", "line 1, column 7: unexpected EOF"},
		"jq function":                     {transform, ".a\n | nope(1)", "line 2, column 4: function not defined: nope/1"},
		"jq variable":                     {transform, ".a | $nope", "line 1, column 6: variable not defined: $nope"},
		"jq input":                        {transform, ".a, input", "line 1, column 5: input(s)/0 is not allowed"},
		"jq import":                       {transform, `import "x" as x; .`, "line 1, column 1: "},
		"jq empty":                        {transform, "", "line 1, column 1: the program is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.compile(c.text)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v is no *Error", err)
			}
			if !strings.HasPrefix(err.Error(), c.want) {
				t.Fatalf("got  %q\nwant %q", err, c.want)
			}
		})
	}
}

func TestFilter(t *testing.T) {
	for text, want := range map[string]any{
		"data.count == 3":                          true,
		"data.count > 2.5 && data.amount < 13":     true,
		"data.amount == 12.1":                      true,
		"data.u64 == 18446744073709551615u":        true,
		"data.big > 1e20":                          true,
		"has(data.court.code)":                     true,
		"has(data.court.name)":                     false,
		"data.court.code.startsWith('B')":          true,
		"data.tags.exists(x, x == 'b')":            true,
		"'a' in data.tags":                         true,
		"type == 'custody.arrest'":                 true,
		"headers.marking == 'OFFICIAL'":            true,
		"time > timestamp('2026-11-22T10:00:00Z')": true,
		"time.getHours() == 10":                    true,
		"id == '17' && subject == 'A-17'":          true,
		"data.none == null":                        true,
		"data.bound":                               true,
		"data.arrestId.matches('^A-[0-9]+$')":      true,
		"data.arrestId.lowerAscii() == 'a-17'":     true,
		"data.missing == 1":                        "no such key: missing",
		"data.count":                               "the filter yields int, not a boolean",
		"data.court.code.missing == 1":             "no such",
		"data.tags.all(a, data.tags.all(b, [1,2,3,4,5,6,7,8,9].all(c, a != '')))": true,
	} {
		f, err := CompileFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := f.Match(message())
		switch want := want.(type) {
		case bool:
			if err != nil || got != want {
				t.Errorf("%s: %v, %v", text, got, err)
			}
		case string:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", text, err, want)
			}
		}
	}
}

func TestFilterOfOtherFormats(t *testing.T) {
	f, err := CompileFilter("data.contains('x')")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"Text", "XML"} {
		if ok, err := f.Match(&sdk.Message{Format: format, Data: []byte("<x/>")}); !ok || err != nil {
			t.Error(format, ok, err)
		}
	}
	if _, err := f.Match(&sdk.Message{Format: "JSON", Data: []byte("{")}); err == nil || !strings.Contains(err.Error(), "the body is not JSON") {
		t.Error(err)
	}
	// An expression that does not touch the body does not decode it.
	f, _ = CompileFilter("type == 't'")
	if ok, err := f.Match(&sdk.Message{Format: "JSON", Type: "t", Data: []byte("{")}); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestCostIsBounded(t *testing.T) {
	big := "[" + strings.Repeat("1,", 3000) + "1]"
	f, err := CompileFilter("data.all(a, data.all(b, data.all(c, a + b + c > 0)))")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err = f.Match(&sdk.Message{Format: "JSON", Data: []byte(big)}); err == nil || !strings.Contains(err.Error(), "costs more") {
		t.Fatal(err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Fatal("took", d)
	}
}

func TestValue(t *testing.T) {
	at := message().Time
	for text, want := range map[string]any{
		"data.count": int64(3), "data.count + 1": int64(4), "data.amount": json.Number("12.10"), "data.amount * 2.0": 24.2,
		"data.big": json.Number("123456789012345678901234567890"), "data.u64 + 0u": uint64(18446744073709551615),
		"data.court": map[string]any{"code": "B01"}, "data.tags": []any{"a", "b"}, "data.none": nil, "time": at, "type": "custody.arrest",
		"b'ab'": []byte("ab"), "duration('90s')": 90 * time.Second, "data.bound": true,
		"{'a': data.count, 'b': [1u, 2.5]}": map[string]any{"a": int64(3), "b": []any{uint64(1), 2.5}},
		"data.tags.map(x, x + '!')":         []any{"a!", "b!"}, "has(data.x) ? data.x : null": nil, "data['odd key']": "x}y",
	} {
		v, err := CompileValue(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := v.Eval(message())
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", text, err, d)
		}
	}
	for text, want := range map[string]string{"data.nope": "no such key: nope", "data.court.nope": "no such key: nope", "data.count.x": "no such", "{1: 2}": "key of type int", "1/0": "division by zero"} {
		v, err := CompileValue(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err = v.Eval(message()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		"/plain":                         "/plain",
		"/cases/{data.arrestId}":         "/cases/A-17",
		"{data.count}{id}":               "317",
		"{data.amount}":                  "12.10",
		"{data.amount * 1000000.0}":      "12100000",
		"{data.big}":                     "123456789012345678901234567890",
		"{data.bound}":                   "true",
		"{time}":                         "2026-11-22T10%3A30%3A00.5Z",
		"{{literal}} {id}":               "{literal} 17",
		"{data['odd key']}":              "x%7Dy",
		`{"}" + '{' + r"\" + '''}'''}`:   "%7D%7B%5C%7D",
		"{ {'a': {'b': id}}['a']['b'] }": "17",
		"a b?{'c d'}":                    "a b?c+d",
		`{"\"}"}`:                        "%22%7D",
		"{id // a } comment\n}":          "17",
		"{type}/{source}":                "custody.arrest/%2Fmetip%2Fmet%2Fcustody",
	} {
		tpl, err := CompileTemplate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := tpl.Expand(message(), url.QueryEscape); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"{data.nope}": "{data.nope}: no such key: nope", "{data.none}": "is null", "{data.tags}": "is a list", "{data.court}": "is an object",
		"{b'a'}": "not a string",
	} {
		tpl, err := CompileTemplate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := tpl.Expand(message(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestTransform(t *testing.T) {
	for text, want := range map[string]string{
		".":                              `{"amount":12.10,"arrestId":"A-17","big":123456789012345678901234567890,"bound":true,"count":3,"court":{"code":"B01"},"none":null,"odd key":"x}y","tags":["a","b"],"u64":18446744073709551615}`,
		"{id: .arrestId, n: (.count+1)}": `{"id":"A-17","n":4}`,
		`{h: "<&>\u2028"}`:               "{\"h\":\"<&>\u2028\"}",
		"$message | .id, .time | select(. != \"17\")": `"2026-11-22T10:30:00.5Z"`,
		"$message.headers.marking":                    `"OFFICIAL"`,
		"env":                                         "{}",
		"$ENV.PATH":                                   "null",
		".tags[0]":                                    `"a"`,
	} {
		tr, err := CompileTransform(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, ok, err := tr.Apply(t.Context(), message()); err != nil || !ok || string(got) != want {
			t.Errorf("%s: %s, %v, %v; want %s", text, got, ok, err, want)
		}
	}
	if _, ok, err := must(t, "select(.count > 5)").Apply(t.Context(), message()); ok || err != nil {
		t.Error("no result:", ok, err)
	}
	for text, want := range map[string]string{
		".tags[]": "more than one result", ".count.x": "expected an object", `error("bad")`: "bad", "halt": "halt", "1, error(\"x\")": "x",
		"reduce range(300) as $i (1; [.])": "nested deeper",
	} {
		if _, _, err := must(t, text).Apply(t.Context(), message()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if _, _, err := must(t, ".").Apply(t.Context(), &sdk.Message{Format: "Binary", Data: []byte{0}}); err == nil {
		t.Error("a binary body is transformed")
	}
	if got, _, err := must(t, "{text: .}").Apply(t.Context(), &sdk.Message{Format: "Text", Data: []byte("a")}); err != nil || string(got) != `{"text":"a"}` {
		t.Error(string(got), err)
	}
}

func TestTransformIsBounded(t *testing.T) {
	for _, text := range []string{"def f: f; f", "[range(1e12)]", "last(range(1e12))", `"x" * 1e10`, "reduce range(1e9) as $i (\"x\"; . + .)", "[limit(1e9; repeat(1))]"} {
		begun := time.Now()
		if _, _, err := must(t, text).Apply(t.Context(), message()); err == nil {
			t.Errorf("%s: ends", text)
		} else {
			t.Logf("%s: %v after %s", text, err, time.Since(begun))
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("%s: took %s", text, d)
		}
	}
	_, _, err := must(t, "last(range(1e12))").Apply(t.Context(), message())
	if !errors.Is(err, ErrLimit) {
		t.Error("not ErrLimit:", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := must(t, "last(range(1e12))").Apply(ctx, message()); !errors.Is(err, context.Canceled) {
		t.Error("not cancelled:", err)
	}
}

func must(t testing.TB, text string) *Transform {
	tr, err := CompileTransform(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return tr
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"/a/{data.arrestId}", "{{}}", `{"}"}`, "{r'\\'}", "{'''}'''}", "}", "{id // }\n}", "{ {'a':1}['a'] }"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tpl, err := CompileTemplate(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+1 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		_, _ = tpl.Expand(message(), nil)
		if !strings.ContainsAny(text, "{}") {
			if got, err := tpl.Expand(message(), nil); got != text || err != nil {
				t.Fatalf("%q became %q, %v", text, got, err)
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	for name, text := range map[string]string{"type": "type == 'custody.arrest'", "data": "data.court.code == 'B01' && data.count > 2", "loop": "data.tags.exists(x, x == 'b')"} {
		b.Run(name, func(b *testing.B) {
			f, err := CompileFilter(text)
			if err != nil {
				b.Fatal(err)
			}
			m := message()
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match(m); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkTemplate(b *testing.B) {
	tpl, err := CompileTemplate("/cases/{data.arrestId}?court={data.court.code}")
	if err != nil {
		b.Fatal(err)
	}
	m := message()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Expand(m, url.PathEscape); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransform(b *testing.B) {
	tr := must(b, "{id: .arrestId, court: .court.code, tags: [.tags[] | ascii_upcase], when: $message.time}")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := tr.Apply(b.Context(), message()); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
