package steps

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// decoded gives the same programs without what reads a body's bytes: they decode it, and ask the interpreter for everything.
func decoded(p program) program {
	p.fields, p.quick = nil, nil
	return p
}

// agree holds an expression that reads a body's bytes to what the interpreter says of the decoded body, errors included.
func agree(t *testing.T, text string, format string, doc []byte) {
	t.Helper()
	message := func() *sdk.Message {
		return &sdk.Message{ID: "17", Type: "a", Subject: "é", Headers: map[string]string{"h": "x", "b": "1"}, Format: format, Data: doc}
	}
	v, err := CompileValue(text)
	if err != nil {
		return
	}
	full := &Value{decoded(v.program)}
	want, wantErr := full.Eval(message())
	if got, err := v.Eval(message()); fmt.Sprint(err) != fmt.Sprint(wantErr) || !cmp.Equal(got, want) {
		t.Fatalf("%s of %q\n got %#v, %v\nwant %#v, %v", text, doc, got, err, want, wantErr)
	}
	f, err := CompileFilter(text)
	if err != nil {
		return
	}
	fullFilter := &Filter{decoded(f.program)}
	pass, wantErr := fullFilter.Match(message())
	if wantErr != nil && strings.Contains(wantErr.Error(), "internal error") {
		return // CEL's interpreter panics on bytes `in` a list of literals: only the rest of the expression may decide
	}
	if got, err := f.Match(message()); got != pass || fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("filter %s of %q\n got %v, %v\nwant %v, %v", text, doc, got, err, pass, wantErr)
	}
}

// maker of expressions and documents that have the same few names in them.
type maker struct{ *rand.Rand }

func (r maker) of(list ...string) string { return list[r.IntN(len(list))] }

func (r maker) path() string {
	return r.of("data.a", "data.b", "data.c", "data.a.b", "data.a.c", "data['a']", "data.b['x y']", "data.a.b.c", "data.b.b", "data['é']", "data['\ufffd'].a",
		"headers.h", "headers.nope", "type", "id", "subject", "data[headers.b]", "data.a[0]", "data")
}

func (r maker) literal() string {
	return r.of("'x'", "''", "'é'", "'abc'", "'a\"b'", "'\ufffd'", "1", "0", "-1", "2u", "0u", "1.5", "12.1", "-0.0", "1.0", "true", "false", "null", "9223372036854775807",
		"9007199254740993", "9007199254740992.0", "18446744073709551615u", "18446744073709551616.0", "1e300", "[1, 'x']", "{'a': 1}", "b'x'", "1 + 1", "timestamp('2026-11-22T10:00:00Z')")
}

func (r maker) literals() string {
	list := make([]string, r.IntN(4))
	for i := range list {
		list[i] = r.literal()
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func (r maker) condition(depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		return "(" + r.condition(depth-1) + r.of(" && ", " || ") + r.condition(depth-1) + ")"
	}
	op := r.of(" == ", " != ", " < ", " <= ", " > ", " >= ")
	switch r.IntN(16) {
	case 0:
		return "!" + r.condition(max(0, depth-1))
	case 1:
		return "has(" + r.of("data.a", "data.b", "data.a.b", "data.a.b.c", "data.c.a", "headers.h", "headers.nope", "data['a'].b") + ")"
	case 2:
		return r.path() + r.of(".startsWith(", ".endsWith(", ".contains(") + r.literal() + ")"
	case 3:
		return r.path() + " in " + r.literals()
	case 4:
		return r.path()
	case 5:
		return r.literal() + op + r.path()
	case 6:
		return r.of("size("+r.path()+") > 1", r.path()+".exists(x, x == "+r.literal()+")", r.path()+".all(data, data == 1)", r.path()+".matches('^a')",
			r.literal()+" in "+r.path(), r.path()+op+r.path(), r.path()+" + 1 > 2", "("+r.condition(0)+" ? "+r.path()+" : "+r.literal()+") == "+r.literal(),
			"[1, 2].exists(data, data == 1)", "string("+r.path()+") == '1'", r.path()+"[0] == 1", "type("+r.path()+") == int", "{'a': "+r.path()+"}.a == 1")
	default:
		return r.path() + op + r.literal()
	}
}

func (r maker) value(depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		if r.IntN(4) == 0 {
			return r.of("[]", "["+r.value(depth-1)+"]", "[ "+r.value(depth-1)+" , "+r.value(depth-1)+" ]")
		}
		var members []string
		for range r.IntN(6) {
			members = append(members, r.of(`"a"`, `"b"`, `"c"`, `"a"`, `"b"`, `"x y"`, `"\u0061"`, `"é"`, `"\u00e9"`, "\"\xff\"", `"z"`)+r.of(":", " : ")+r.value(depth-1))
		}
		return "{" + r.of("", " ", "\n") + strings.Join(members, r.of(",", " , ")) + "}"
	}
	return r.of("1", "0", "-1", "-0", "2", "1.5", "12.10", "1.0", "1e2", "1e400", "-1E-400", "9223372036854775807", "9223372036854775808", "9007199254740993", "18446744073709551615",
		"18446744073709551616", "123456789012345678901234567890", "true", "false", "null", `"x"`, `""`, `"é"`, `"\u00e9"`, `"abc"`, `"a\"b"`, `"1"`, "\"\xff\"", `"\ud800"`)
}

func (r maker) document() []byte {
	doc := []byte(r.of("", " ") + r.value(4) + r.of("", "\n"))
	switch r.IntN(12) {
	case 0: // damaged
		doc[r.IntN(len(doc))] = byte(r.IntN(256))
	case 1: // cut off
		doc = doc[:r.IntN(len(doc))]
	}
	return doc
}

func TestReadingBytesIsDecoding(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := maker{rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a test's documents are no secret
	quick := 0
	for range 1500 {
		text := r.condition(2)
		if f, err := CompileFilter(text); err == nil && f.quick != nil {
			quick++
		}
		for range 8 {
			agree(t, text, "JSON", r.document())
		}
		agree(t, text, r.of("Text", "Binary", "XML", ""), r.document())
	}
	if quick < 500 {
		t.Errorf("only %d expressions were answered without the interpreter", quick)
	}
}

// What must not be taken for granted: the fast way is taken at all, and asks for no more than it needs.
func TestQuick(t *testing.T) {
	for text, want := range map[string][2]bool{ // quick, fields
		`data.a == 1`:                       {true, true},
		`data.a.exists(x, x == 1)`:          {false, true},
		`data.a == 1 && data.b.all(x, x>1)`: {true, true},
		`type == 'x'`:                       {true, false},
		`size(data) > 1`:                    {false, false},
		`data.a == 1 && size(data) > 1`:     {false, false},
		`[1].exists(data, data == 1)`:       {false, false},
		`data[headers.x] == 1`:              {false, false},
	} {
		f, err := CompileFilter(text)
		if err != nil {
			t.Fatal(text, err)
		}
		if got := [2]bool{f.quick != nil, f.fields != nil}; got != want {
			t.Errorf("%s: quick, fields %v, want %v", text, got, want)
		}
	}
	f, err := CompileFilter(`data.court.code == "NMM03" && data.detainee.surname.startsWith("D") && data.disposal in ["court", "x"] && has(data.court)`)
	if err != nil {
		t.Fatal(err)
	}
	m := &sdk.Message{Data: []byte(record)}
	if n := testing.AllocsPerRun(100, func() {
		m.SetData(m.Data)
		if ok, err := f.Match(m); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The engine bounds what is decoded at the same time: whoever decodes a field or edits a body tells it, whoever answers from the bytes does not.
func TestWorkOnTheBodyIsTold(t *testing.T) {
	for text, want := range map[string]int{`data.disposal == "court"`: 0, `has(data.court)`: 0, `type == ""`: 0, `size(data.offences) > 0`: 1, `size(data) > 0`: 1} {
		f, err := CompileFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		m := &sdk.Message{Data: []byte(record)}
		m.BeforeBody(func() { told++ })
		if pass, err := f.Match(m); !pass || err != nil || told != want {
			t.Errorf("%s: %v, %v, told %d times", text, pass, err, told)
		}
	}
	told := 0
	m := &sdk.Message{Data: []byte(record)}
	m.BeforeBody(func() { told++ })
	if pass, err := mustStep(t, contract.Step{Redact: &contract.Redact{Paths: []string{"court"}}}).Apply(t.Context(), m); !pass || err != nil || told != 1 {
		t.Error(pass, err, told)
	}
}

func TestManyFields(t *testing.T) {
	var terms []string
	for i := range maxFields + 10 {
		terms = append(terms, fmt.Sprintf("data.f%d == %d", i, i))
		agree(t, strings.Join(terms, " && "), "JSON", []byte(`{"f0":0,"f1":1,"f2":2}`))
	}
	// Reading twice is enough: whoever reads the same body often decodes it.
	v, err := CompileValue("data.a")
	if err != nil {
		t.Fatal(err)
	}
	m := &sdk.Message{Data: []byte(`{"a":1}`)}
	for range 4 {
		if x, err := v.Eval(m); x != int64(1) || err != nil {
			t.Fatal(x, err)
		}
	}
	if _, ok := m.Undecoded(); ok {
		t.Error("it was never decoded")
	}
}

func TestDepthIsThatOfTheDocument(t *testing.T) {
	for depth := sdk.MaxDepth - 3; depth < sdk.MaxDepth+3; depth++ {
		for _, text := range []string{"has(data.a)", "data.b == 1", "has(data.a.a.a)", "size(data.a) == 1"} {
			agree(t, text, "JSON", []byte(strings.Repeat(`{"a":`, depth)+`1`+strings.Repeat("}", depth)))
			agree(t, text, "JSON", []byte(`{"b":1,"a":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+"}"))
		}
	}
}

func FuzzReadingBytesIsDecoding(f *testing.F) {
	r := maker{rand.New(rand.NewPCG(1, 1))} //nolint:gosec // a test's documents are no secret
	for range 200 {
		f.Add(r.condition(2), r.document())
	}
	f.Add(`data.disposal == "court" && data.detainee.sex in ["M", "F"]`, []byte(record))
	f.Fuzz(func(t *testing.T, text string, doc []byte) { agree(t, text, "JSON", doc) })
}
