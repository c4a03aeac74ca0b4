package steps

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/internal/rawjson"
	"github.com/metip/metip/connectors/sdk"
)

func TestRedact(t *testing.T) {
	mask := "***"
	for _, c := range []struct {
		name, paths string
		mask        *string
		in, want    string
		fails       string
	}{
		{"drop", "a", nil, `{"a":1,"b":2}`, `{"b":2}`, ""},
		{"drop the last", "b", nil, `{"a":1,"b":2}`, `{"a":1}`, ""},
		{"drop one in between", "b", nil, `{ "a" : 1 , "b" : 2 , "c" : 3 }`, `{ "a" : 1  , "c" : 3 }`, ""},
		{"drop the only one", "a", nil, `{ "a" : 1 }`, `{  }`, ""},
		{"drop all", "a | b | c", nil, `{"a":1,"b":2,"c":3}`, `{}`, ""},
		{"drop the first two", "a | b", nil, `{ "a":1, "b":2, "c":3 }`, `{ "c":3 }`, ""},
		{"drop all but the second", "a | c", nil, `{"a":1,"b":2,"c":3}`, `{"b":2}`, ""},
		{"mask", "a | c", &mask, `{"a":1,"b":2,"c":{"d":[1]}}`, `{"a":"***","b":2,"c":"***"}`, ""},
		{"mask null", "a", &mask, `{"a":null}`, `{"a":"***"}`, ""},
		{"nothing there", "x.y | a.b.c", nil, `{"a":{"x":1}}`, `{"a":{"x":1}}`, ""},
		{"null on the way", "a.b", nil, `{"a":null}`, `{"a":null}`, ""},
		{"exact", "x", nil, `{"n": 12.10, "x":0, "big":123456789012345678901234567890,"e":1E5,"s":"\u00e9é\/"}`, `{"n": 12.10, "big":123456789012345678901234567890,"e":1E5,"s":"\u00e9é\/"}`, ""},
		{"deep", "p.q.r", nil, `{"p":{"q":{"r":1,"s":2}}}`, `{"p":{"q":{"s":2}}}`, ""},
		{"every element", "o[*].v", nil, `{"o":[{"v":1,"w":2},{"w":3},{"v":4}]}`, `{"o":[{"w":2},{"w":3},{}]}`, ""},
		{"elements themselves", "o[*]", nil, `{"o":[1,[2],{"a":3}],"p":[4]}`, `{"o":[],"p":[4]}`, ""},
		{"elements masked", "o[*]", &mask, `{"o":[1,2]}`, `{"o":["***","***"]}`, ""},
		{"array in array", "o[*][*].v", nil, `{"o":[[{"v":1}],[]]}`, `{"o":[[{}],[]]}`, ""},
		{"a root that is an array", "[*].v", nil, ` [{"v":1},{"w":2}] `, ` [{},{"w":2}] `, ""},
		{"every member", "*.v", nil, `{"a":{"v":1,"w":2},"b":{"v":3},"c":"v","d":[{"v":4}]}`, `{"a":{"w":2},"b":{},"c":"v","d":[{"v":4}]}`, ""},
		{"a name and every member", "a.x | *.y", nil, `{"a":{"x":1,"y":2,"z":3},"b":{"x":4,"y":5}}`, `{"a":{"z":3},"b":{"x":4}}`, ""},
		{"anywhere", "..v", nil, `{"v":1,"a":{"v":2,"b":[{"v":{"v":3}},[{"v":4,"w":5}]]}}`, `{"a":{"b":[{},[{"w":5}]]}}`, ""},
		{"anywhere below", "a..v", nil, `{"v":1,"a":{"v":2,"b":[{"v":3}]}}`, `{"v":1,"a":{"b":[{}]}}`, ""},
		{"anywhere, and on", "..p.v", nil, `{"p":{"v":1,"p":{"v":2,"w":3}}}`, `{"p":{"p":{"w":3}}}`, ""},
		{"anywhere, and every element", "..p[*].v", nil, `{"a":{"p":[{"v":1}],"q":[{"v":2}]}}`, `{"a":{"p":[{}],"q":[{"v":2}]}}`, ""},
		{"dollar", "$.a | $['b c']", nil, `{"a":1,"b c":2,"d":3}`, `{"d":3}`, ""},
		{"odd names", `['it\'s'] | ['a\\b'] | ['']`, nil, `{"it's":1,"a\\b":2,"":3,"z":4}`, `{"z":4}`, ""},
		{"quoted further down", "a['b.c']", nil, `{"a":{"b.c":1,"b":{"c":2}}}`, `{"a":{"b":{"c":2}}}`, ""},
		{"escaped names", "dob", nil, `{"d\u006fb":1,"dob":2,"x":3}`, `{"x":3}`, ""},
		{"every one of a name", "a", nil, `{"a":1,"a":2,"b":3,"a":4}`, `{"b":3}`, ""},
		{"every one of a name on the way", "a.b", nil, `{"a":{"b":1},"a":{"b":2,"c":3}}`, `{"a":{},"a":{"c":3}}`, ""},
		{"case matters", "A", nil, `{"a":1}`, `{"a":1}`, ""},
		{"beyond ASCII", "é", nil, `{"é":1,"\u00e9":2,"e":3}`, `{"e":3}`, ""},
		{"the outer wins", "a | a.b", nil, `{"a":{"b":1},"c":2}`, `{"c":2}`, ""},
		{"an array where an object was", "person.dob", nil, `{"person":[{"dob":1}]}`, ``, `"person" is an array, and no path of redact says where in it the fields are`},
		{"both shapes", "person.dob | person[*].dob", nil, `{"person":[{"dob":1}]}`, `{"person":[{}]}`, ""},
		{"an object where an array was", "o[*].v", nil, `{"a":{},"o":{"v":1}}`, ``, `"o" is an object`},
		{"a text where an object was", "a.o[*].v", nil, `{"a":{"o":["born 1999"]}}`, ``, `"a.o[*]" is neither object nor array`},
		{"the root", "a", nil, `[{"a":1}]`, ``, `the body is an array`},
		{"not JSON", "a", nil, `{"a":1,"b":tru}`, ``, `the body is not JSON`},
		{"not JSON at the end", "a", nil, `{"a":1} x`, ``, `the body is not JSON`},
		{"not JSON in what is dropped", "a", nil, `{"a":[1,]}`, ``, `the body is not JSON`},
		{"not JSON in a name", "a", nil, "{\"a\\x\":1}", ``, `the body is not JSON`},
		{"nothing", "a", nil, ``, ``, `the body is not JSON`},
		{"cut off", "a.b", nil, `{"a":{"b":1`, ``, `the body is not JSON`},
		{"too deep", "..a", nil, strings.Repeat(`[`, sdk.MaxDepth+1) + strings.Repeat(`]`, sdk.MaxDepth+1), ``, `nested deeper`},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := mustStep(t, contract.Step{Redact: &contract.Redact{Paths: strings.Split(c.paths, " | "), Mask: c.mask}})
			m := &sdk.Message{Data: []byte(c.in)}
			pass, err := step.Apply(t.Context(), m)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("error %v, want %q", err, c.fails)
				}
				return
			}
			if !pass || err != nil || string(m.Data) != c.want {
				t.Fatalf("%s, %v, %v; want %s", m.Data, pass, err, c.want)
			}
		})
	}
}

func TestRedactPaths(t *testing.T) {
	for text, want := range map[string][]segment{
		"a":             {{named, "a"}},
		"$.a.b":         {{named, "a"}, {named, "b"}},
		".a":            {{named, "a"}},
		"a[*].b":        {{named, "a"}, {element, ""}, {named, "b"}},
		"*.x":           {{anyMember, ""}, {named, "x"}},
		"..x":           {{anywhere, "x"}},
		"a..x-y_z.*":    {{named, "a"}, {anywhere, "x-y_z"}, {anyMember, ""}},
		`['a b']['\'']`: {{named, "a b"}, {named, "'"}},
		"$['*'][*]":     {{named, "*"}, {element, ""}},
		"naïve.straße":  {{named, "naïve"}, {named, "straße"}},
	} {
		if got, err := parsePath(text); err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(segment{})) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                             "line 1, column 1: the path names no field",
		"$":                            "line 1, column 1: the path names no field",
		"a.":                           "line 1, column 3: expected a name",
		"a b":                          "line 1, column 2: expected . or [",
		"a[0]":                         "line 1, column 2: after '[' stands *]",
		"a['b":                         "line 1, column 2: [' is never closed",
		"a['b'x":                       "line 1, column 5: expected ']",
		`['\n']`:                       `line 1, column 3: a backslash stands before`,
		"a..*":                         "line 1, column 4: after .. stands a name",
		"..a..b":                       "line 1, column 4: a path has one ..",
		"a$b":                          "line 1, column 2: expected . or [",
		strings.Repeat("a.", 16) + "a": "line 1, column 1: the path has more than 16 steps",
		strings.Repeat("a", 257):       "line 1, column 1: the path is longer than 256 bytes",
		"\xff":                         "line 1, column 1: the path is not UTF-8",
	} {
		if _, err := parsePath(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	long := strings.Repeat("*", maxMask+1)
	for field, r := range map[string]contract.Redact{
		"redact.paths":    {},
		"redact.paths[1]": {Paths: []string{"a", "a["}},
		"redact.mask":     {Paths: []string{"a"}, Mask: &long},
	} {
		_, err := Compile(contract.Step{Redact: &r})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, format := range []string{"Text", "XML", "Binary"} {
		m := &sdk.Message{Format: format, Data: []byte(`{"a":1}`)}
		if _, err := mustStep(t, contract.Step{Redact: &contract.Redact{Paths: []string{"a"}}}).Apply(t.Context(), m); err == nil || !strings.Contains(err.Error(), format) {
			t.Error(format, err)
		}
	}
}

func TestRedactionIsBounded(t *testing.T) {
	mask := strings.Repeat("*", maxMask)
	step := mustStep(t, contract.Step{Redact: &contract.Redact{Paths: []string{"[*]"}, Mask: &mask}})
	m := &sdk.Message{Data: []byte("[" + strings.Repeat("1,", 1<<20) + "1]")}
	if _, err := step.Apply(t.Context(), m); !errors.Is(err, errResult) {
		t.Error(err)
	}
}

// slowRedact is what Redact means, on decoded documents of which no name comes twice.
func slowRedact(v any, targets []*target, mask *string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, x := range v {
			var next []*target
			here := false
			for _, t := range targets {
				for _, n := range []*target{t.members[name], t.any, t.anywhere[name], t.onward} {
					if n != nil {
						next, here = append(next, n), here || n.here
					}
				}
			}
			switch {
			case !here:
				out[name] = slowRedact(x, next, mask)
			case mask != nil:
				out[name] = *mask
			}
		}
		return out
	case []any:
		out := []any{}
		for _, x := range v {
			var next []*target
			here := false
			for _, t := range targets {
				for _, n := range []*target{t.elements, t.onward} {
					if n != nil {
						next, here = append(next, n), here || n.here
					}
				}
			}
			switch {
			case !here:
				out = append(out, slowRedact(x, next, mask))
			case mask != nil:
				out = append(out, *mask)
			}
		}
		return out
	default:
		return v
	}
}

// twice tells whether a name comes twice in an object: how many colons follow names, and how many members there are.
func twice(doc []byte) bool {
	names := 0
	for at := 0; at < len(doc); {
		if doc[at] != '"' {
			at++
			continue
		}
		at, _ = rawjson.String(doc, at)
		if next := rawjson.Space(doc, at); next < len(doc) && doc[next] == ':' {
			names++
		}
	}
	v, err := sdk.DecodeJSON(doc)
	return err != nil || names != members(v)
}

func members(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, x := range v {
			n += members(x)
		}
	case []any:
		for _, x := range v {
			n += members(x)
		}
	}
	return n
}

func FuzzRedact(f *testing.F) {
	f.Add("a b.c", `{"a":1,"b":{"c":2,"d":[{}]}}`, true)
	f.Add("..a *[*].b $['c']", `{"a":1,"b":{"a":2,"d":[{"b":1}]},"c":[]}`, false)
	f.Add("[*] [*].a", `[1,{"a":"\u0061"}]`, false)
	f.Fuzz(func(t *testing.T, paths, doc string, masked bool) {
		var mask *string
		if masked {
			mask = new(string)
		}
		r, err := CompileRedaction(&contract.Redact{Paths: strings.Fields(paths), Mask: mask})
		if err != nil {
			return
		}
		out, err := r.Redact([]byte(doc))
		in, invalid := sdk.DecodeJSON([]byte(doc))
		if invalid != nil {
			if err == nil {
				t.Fatalf("%s of %q passes", paths, doc)
			}
			return
		}
		if errors.Is(err, errNotJSON) {
			t.Fatalf("%q: %v", doc, err)
		}
		if err != nil {
			return
		}
		if out == nil {
			out = []byte(doc)
		}
		got, err := sdk.DecodeJSON(out)
		if err != nil {
			t.Fatalf("%s of %q makes %q: %v", paths, doc, out, err)
		}
		if twice([]byte(doc)) {
			return // what is left of the last member of a name is not what is left of all
		}
		if d := cmp.Diff(slowRedact(in, []*target{&r.root}, mask), got); d != "" {
			t.Fatalf("%s of %q makes %q: %s", paths, doc, out, d)
		}
		if again, err := r.Redact(out); !masked && (err != nil || again != nil) {
			t.Fatalf("%s of %q: not all at once: %q, then %q, %v", paths, doc, out, again, err)
		}
	})
}

func BenchmarkRedact1KiB(b *testing.B) {
	for name, paths := range map[string][]string{
		"paths":    {"detainee.dateOfBirth", "detainee.address", "officers[*].name"},
		"anywhere": {"..name", "..dateOfBirth"},
		"nothing":  {"detainee.medical"},
	} {
		b.Run(name, func(b *testing.B) {
			step := mustStep(b, contract.Step{Redact: &contract.Redact{Paths: paths}})
			data := []byte(record)
			done := perCore(b)
			for b.Loop() {
				m := sdk.Message{Data: data}
				if pass, err := step.Apply(b.Context(), &m); !pass || err != nil {
					b.Fatal(pass, err)
				}
			}
			done()
		})
	}
}
