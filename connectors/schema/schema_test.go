package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/metip/metip/connectors/sdk"
)

const arrest = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["arrestId", "when", "person"],
  "properties": {
    "arrestId": {"type": "string", "pattern": "^A-[0-9]+$"},
    "when": {"type": "string", "format": "date-time"},
    "person": {"$ref": "#/$defs/person"},
    "offences": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {
      "type": "object", "required": ["code"], "additionalProperties": false,
      "properties": {"code": {"enum": ["TH68001", "CJ88159"]}, "count": {"type": "integer", "minimum": 1, "maximum": 99}}
    }},
    "note": {"type": "string", "maxLength": 2000}
  },
  "$defs": {"person": {"type": "object", "required": ["surname"], "properties": {"surname": {"type": "string", "minLength": 1}, "age": {"type": "integer", "exclusiveMinimum": 9}}}}
}`

func TestViolationsNamePathAndRuleAndNoValue(t *testing.T) {
	s, err := Compile(arrest)
	if err != nil {
		t.Fatal(err)
	}
	good := `{"arrestId":"A-1","when":"2026-11-22T23:59:00Z","person":{"surname":"Doe","age":30},"offences":[{"code":"TH68001","count":2}]}`
	for name, c := range map[string]struct{ old, new, want string }{
		"good":           {"", "", ""},
		"no JSON":        {`{"arrestId"`, `{arrestId`, "the body is not JSON: JSON at byte 1"},
		"required":       {`"when":"2026-11-22T23:59:00Z",`, ``, `the document breaks the rule required: "when"`},
		"pattern":        {`"A-1"`, `"SECRET"`, `/arrestId breaks the rule pattern: "^A-[0-9]+$"`},
		"type":           {`"A-1"`, `7`, `/arrestId breaks the rule type: string`},
		"format":         {`2026-11-22T23:59:00Z`, `SECRET`, `/when breaks the rule format: date-time`},
		"in a reference": {`"Doe"`, `""`, `/person/surname breaks the rule minLength: 1`},
		"exclusive":      {`"age":30`, `"age":9`, `/person/age breaks the rule exclusiveMinimum: 9`},
		"not an integer": {`"age":30`, `"age":30.5`, `/person/age breaks the rule type: integer`},
		"item":           {`"count":2`, `"count":100`, `/offences/0/count breaks the rule maximum: 99`},
		"enum":           {`TH68001`, `SECRET`, `/offences/0/code breaks the rule enum`},
		"too many":       {`"count":2`, `"x/y":2`, `/offences/0/x~1y breaks the rule additionalProperties: false`},
		"none":           {`[{"code":"TH68001","count":2}]`, `[]`, `/offences breaks the rule minItems: 1`},
		"equal":          {`"count":2}]`, `"count":2},{"count":2e0,"code":"TH68001"}]`, `/offences/1 breaks the rule uniqueItems`},
		"long name":      {`"count":2`, `"` + strings.Repeat("n", 1000) + `":2`, `/offences/0/` + strings.Repeat("n", 64) + `... breaks the rule additionalProperties: false`},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.CheckBody(t.Context(), []byte(strings.Replace(good, c.old, c.new, 1)))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, c.want) || got != "" && c.want == "" || strings.Contains(got, "SECRET") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestSchemasThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, at, want string }{
		"syntax":              {"{\n \"type\": }", "}", "unexpected"},
		"unknown type":        {`{"properties": {"a": {"type": "text"}}}`, `"text"`, "value must be one of"},
		"bad keyword":         {`{"minLength": -1}`, `-1`, "minimum"},
		"look-ahead":          {`{"properties": {"a": {"pattern": "(?=x)"}}}`, `"(?=x)"`, "RE2"},
		"large pattern":       {`{"pattern": "(abcdefgh){900}"}`, `"(abc`, "too large"},
		"remote reference":    {`{"$ref": "https://example.com/s.json"}`, `{`, "nothing is ever loaded"},
		"file":                {`{"$ref": "file:///etc/passwd"}`, `{`, "nothing is ever loaded"},
		"relative":            {`{"$ref": "other.json"}`, `{`, "nothing is ever loaded"},
		"no such place":       {`{"properties": {"a": {"$ref": "#/$defs/b"}}}`, `{`, "not found"},
		"no such anchor":      {`{"$ref": "#b"}`, `{`, "not found"},
		"cycle":               {`{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}`, `{`, "never end"},
		"foreign metaschema":  {`{"$schema": "https://example.com/meta"}`, `{`, "nothing is ever loaded"},
		"ambiguous reference": {`{"$id":"metip:///a","$dynamicAnchor":"x","properties":{"a":{"$id":"metip:///b","$dynamicAnchor":"x","$dynamicRef":"#x"}}}`, `{"$id":"metip:///b"`, "not supported"},
		"long number":         {`{"maximum": 1e1000000}`, `1e1000000`, "exponent"},
		"large count":         {`{"maxLength": 1e30}`, `1e30`, "too large"},
		"deep":                {strings.Repeat(`{"not":`, 300) + "true" + strings.Repeat("}", 300), `{`, "nested deeper"},
		"too large":           {`{"description": "` + strings.Repeat("x", MaxSize) + `"}`, `{`, "256 KiB"},
		"too many":            {`{"enum": [` + strings.Repeat("{},", maxObjects) + `1]}`, `{`, "objects"},
		"no schema":           {`[]`, `[`, "got array"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.text)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if !strings.HasPrefix(c.text[e.Offset:], c.at) {
				t.Errorf("%v at %d: %.40q, want %q", err, e.Offset, c.text[e.Offset:], c.at)
			}
			if strings.Contains(e.Error(), home) {
				t.Errorf("names an address that nobody knows: %v", e)
			}
		})
	}
}

// TestJudgingIsBounded: documents that are made to cost.
func TestJudgingIsBounded(t *testing.T) {
	many := func(n int, x string) string { return "[" + strings.Repeat(x+",", n-1) + x + "]" }
	distinct := func(n int, form string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ","+form, i)
		}
		return "[" + b.String()[1:] + "]"
	}
	for name, c := range map[string]struct {
		schema, doc string
		limited     bool
	}{
		"two ways down at every level": {`{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/n"},"minItems":0},{"type":"array","items":{"$ref":"#/$defs/n"},"maxItems":99}]}}}`,
			strings.Repeat("[", 200) + `"x"` + strings.Repeat("]", 200), true},
		"unevaluated at every level": {`{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"items":{"$ref":"#/$defs/n"}},{"items":{"$ref":"#/$defs/n"}}],"unevaluatedItems":false}}}`,
			strings.Repeat("[", 200) + `"x"` + strings.Repeat("]", 200), true},
		"a million wrong items": {`{"items":{"type":"string"}}`, many(1_000_000, "1"), false},
		"unique numbers":        {`{"uniqueItems":true}`, distinct(300_000, "%d"), false},
		"unique long exponents": {`{"uniqueItems":true,"items":{"minimum":1e-9,"multipleOf":0.5,"type":"integer"}}`, distinct(100_000, "1e99999%d"), false},
		"one long number":       {`{"multipleOf":3,"minimum":1,"enum":[1,2]}`, strings.Repeat("9", 4<<20), false},
		"impossible exponent":   {`{"minimum":1}`, "1e99999999999999999999999", false},
		"a long text, matched":  {`{"pattern":"(x+x+){9}y"}`, `"` + strings.Repeat("x", 8<<20) + `"`, true},
		"a long regex":          {`{"format":"regex"}`, `"` + strings.Repeat("(", 8<<20) + `"`, false},
		"many names":            {`{"patternProperties":{"^(a|b)*c$":{"type":"string"}},"additionalProperties":true}`, `{"` + strings.Repeat("a", 1<<20) + `":1}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Compile(c.schema)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := sdk.DecodeJSON([]byte(c.doc))
			if err != nil {
				t.Fatal(err)
			}
			budget := maxSteps
			if c.limited {
				budget /= 10 // it would take any number
			}
			e := evaluation{ctx: t.Context(), budget: budget, check: lookEvery}
			err = e.judge(s.root, doc)
			if c.limited != errors.Is(err, ErrLimit) {
				t.Error(err)
			}
			// What is counted is in proportion to the document, or it is too much.
			if spent := budget - e.budget; !c.limited && spent > 20*len(c.doc) {
				t.Errorf("%d steps for %d bytes", spent, len(c.doc))
			}
		})
	}
	s, err := Compile(`{"uniqueItems":true}`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.CheckBody(ctx, []byte(distinct(100_000, "%d"))); !errors.Is(err, context.Canceled) {
		t.Error("goes on for nobody:", err)
	}
}

func TestDecimals(t *testing.T) {
	sorted := []string{"-1e99999999999999999999", "-10.5", "-1.05e1", "-10", "-0.5", "0", "-0e5", "0.000", "1e-7", "0.1", "0.10", "9", "10", "1e1", "10.01", "99", "1e2", "123456789012345678901234567890", "1e300"}
	for i, a := range sorted {
		for j, b := range sorted {
			want := compareInts(i, j)
			x, y := parseDecimal(a), parseDecimal(b)
			got := x.compare(y)
			if x == y {
				want = 0
			}
			if got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	if parseDecimal("1.50e3").isInteger() != true || parseDecimal("1.5").isInteger() || !parseDecimal("-0").isInteger() {
		t.Error("integers")
	}
}

// FuzzCheck holds the judge to the library's own, which computes with numbers of any length and collects every error.
func FuzzCheck(f *testing.F) {
	for _, c := range differential {
		f.Add(c[0], c[1])
	}
	f.Add(arrest, `{"arrestId":"A-1"}`)
	f.Fuzz(func(t *testing.T, text, doc string) {
		if len(text) > 2000 || len(doc) > 2000 {
			return
		}
		compare(t, text, doc)
	})
}

func TestDifferential(t *testing.T) {
	for _, c := range differential {
		for _, doc := range documents {
			compare(t, c[0], doc)
		}
		for _, other := range differential {
			compare(t, c[0], other[1])
		}
	}
}

func compare(t *testing.T, text, doc string) {
	t.Helper()
	s, err := Compile(text)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
			t.Fatalf("%q: %#v", text, err)
		}
		return
	}
	value, err := sdk.DecodeJSON([]byte(doc))
	if err != nil {
		return
	}
	if hasLongNumber(value) {
		_ = s.Check(t.Context(), value)
		return
	}
	got := s.Check(t.Context(), value)
	if errors.Is(got, ErrLimit) {
		return
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	var raw any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&raw); err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource(home, raw); err != nil {
		t.Fatal(err)
	}
	reference, err := c.Compile(home)
	if err != nil {
		t.Fatalf("%s: compiles here only: %v", text, err)
	}
	if want := reference.Validate(value); (want == nil) != (got == nil) {
		t.Fatalf("schema %s\ndocument %s\ngives %v\nwant %v", text, doc, got, want)
	}
	if again := s.Check(t.Context(), value); fmt.Sprint(again) != fmt.Sprint(got) {
		t.Fatalf("schema %s\ndocument %s\ngives %v and %v", text, doc, got, again)
	}
}

func hasLongNumber(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if hasLongNumber(x) {
				return true
			}
		}
	case map[string]any:
		for _, x := range v {
			if hasLongNumber(x) {
				return true
			}
		}
	case json.Number:
		d := parseDecimal(string(v))
		return len(d.digits) > 300 || d.exponent > 300 || d.exponent < -300
	}
	return false
}
