package steps

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

// agreeJQ holds a program that is given a part of the body to what it makes of the whole, errors included.
func agreeJQ(t *testing.T, text string, doc []byte) (partly bool) {
	t.Helper()
	part, err := CompileTransform(text)
	if err != nil {
		return false
	}
	whole := *part
	whole.fields = nil
	message := func() *sdk.Message { return &sdk.Message{ID: "17", Headers: map[string]string{"a": "1"}, Data: doc} }
	want, wantOK, wantErr := whole.Apply(t.Context(), message())
	got, ok, err := part.Apply(t.Context(), message())
	if string(got) != string(want) || ok != wantOK || fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%s of %q\n got %s, %v, %v\nwant %s, %v, %v", text, doc, got, ok, err, want, wantOK, wantErr)
	}
	return part.fields != nil
}

func (r maker) jq(depth int) string {
	if depth > 0 && r.IntN(3) > 0 {
		one, two := r.jq(depth-1), r.jq(depth-1)
		switch r.IntN(20) {
		case 0:
			return "{a: " + one + ", b, \"x y\", c: " + two + "}"
		case 1:
			return "{(" + one + " | tostring): " + two + ", $message}"
		case 2:
			return "[" + one + ", " + two + "]"
		case 3:
			return "(if " + one + " then " + two + " else .b end)"
		case 4:
			return "(if " + one + " then " + two + " end)"
		case 5:
			return "(" + one + " as $x | [$x, " + two + "])"
		case 6:
			return "(" + one + " as {a: $x} | [$x, " + two + "])"
		case 7:
			return "(try " + one + " catch .)"
		case 8:
			return "(" + one + " | select(" + two + "))"
		case 9:
			return "first(" + one + ", " + two + ")"
		case 10:
			return "(" + one + r.of(" == ", " + ", " // ", " and ", " or ", " * ", " |= ", " = ", " += ") + two + ")"
		case 11:
			return "[" + one + " | " + r.of(".[]?", "..", "keys?", "to_entries?", "map(.a)?", "paths", "has(\"a\")?", "length?", "tojson", "del(.a)?", "getpath([\"a\"])?") + "]"
		case 12:
			return "\"\\(" + one + ") and \\(" + two + ")\""
		case 13:
			return "@json \"\\(" + one + ")\""
		case 14:
			return "(reduce " + one + " as $x (.a; [$x, " + two + "]))"
		case 15:
			return "(" + one + ")[" + two + "]?"
		case 16:
			return "([" + one + "][0] | " + two + ")"
		case 17:
			return "(label $out | " + one + ", break $out)"
		case 18:
			return "(def f(x): x; f(" + one + "))"
		default:
			return "(" + one + " | " + two + ")"
		}
	}
	return r.of(".a", ".b", ".c", ".a.b", ".a.b.c", ".b[\"x y\"]", ".\"x y\"", ".a?", ".a[0]", ".b.a", ".é", ".[\"a\"]", ".a.b?", "1", "null", "\"x\"", "$message.id", ".c.a.b", ".", "empty", "-.a", "error")
}

func TestJQOfAPartIsJQOfTheWhole(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := maker{rand.New(rand.NewPCG(seed, 3))} //nolint:gosec // a test's documents are no secret
	partly := 0
	for range 1500 {
		text := r.jq(3)
		for range 4 {
			if agreeJQ(t, text, r.document()) {
				partly++
			}
		}
	}
	if partly < 500 {
		t.Errorf("only %d programs were given a part", partly)
	}
	for _, text := range []string{".c, (.a.b | empty)", ".c, (.a.b | 1)", ".c, (.a.b.c | $message.id)", "[.c, (.a.b | first(empty))]", ".c, (.a.b | select(null))"} {
		for _, body := range []string{`{"a": "text"}`, `{"a": {"b": 1}}`, `{"a": null}`, `{"a": [1]}`, `{"a": {"b": {"c": 2}}}`} {
			agreeJQ(t, text, []byte(body))
		}
	}
	for _, text := range []string{reshape, pick} {
		if !agreeJQ(t, text, []byte(record)) {
			t.Error("is given the whole:", text)
		}
	}
}

func TestJQFields(t *testing.T) {
	for text, want := range map[string]string{
		".a": "a!", ".a.b, .a.c": "a(b! c!)", "{a, b: .b.c}": "a! b(c!)", ".a | {b, c: .d.e}": "a(b! d(e!))", ".a[] | .b": "a!", ".a | map(.b)": "a!", "[.a[].b]": "a!",
		"select(.t == 1) | {x: .a}": "t! a!", "first(.a, .b)": "a! b!", ".a as $x | {$x, y: .b}": "a! b!", ".a as {b: $x} | $x": "", ".": "", "keys": "", ".a |= 1": "",
		"{a: .a, b: length}": "", "if .a then .b end": "", "if .a then .b else .c end": "a! b! c!", "def f: .a; f": "", ".a[.b]": "a! b!", "\"\\(.a) \\(.b.c)\"": "a! b(c!)",
		".[\"a\"].b": "a(b!)", ".a[\"b\"][\"c\"]": "a(b(c!))", ".[\"a\" + \"b\"]": "", ".[\"a\":]": "", ".\"a b\".c": "a b(c!)", "$message.id": "", "{\"a b\", \"c\\(.d)\": .e}": "a b! d! e!", "try .a catch .b": "", ".a // .b": "a! b!", ".c, (.a.b | empty)": "c! a(b!)",
		".c, (.a.b | 1)": "c! a(b!)", ".c, (.a.b | {d: .d.e})": "c! a(b(d(e!)))", ".c, (.a.b | select(1))": "c! a(b!)",
	} {
		tr, err := CompileTransform(text)
		if err != nil {
			t.Fatal(text, err)
		}
		got := ""
		if tr.fields != nil {
			got = tr.fields.root.show()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// show the fields below: those that are read as a whole with a mark.
func (f *field) show() string {
	var list []string
	for i := range f.below {
		b := &f.below[i]
		text := b.name
		if b.whole {
			text += "!"
		}
		if len(b.below) > 0 {
			text += "(" + b.show() + ")"
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func FuzzJQOfAPart(f *testing.F) {
	r := maker{rand.New(rand.NewPCG(1, 1))} //nolint:gosec // a test's documents are no secret
	for range 200 {
		f.Add(r.jq(2), r.document())
	}
	f.Fuzz(func(t *testing.T, text string, doc []byte) {
		if strings.Contains(text, "now") || strings.Contains(text, "range") || strings.Contains(text, "repeat") || strings.Contains(text, "def") || strings.Contains(text, "time") {
			return // what does not end, or is not the same twice
		}
		agreeJQ(t, text, doc)
	})
}
