package steps

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestBody(t *testing.T) {
	for text, want := range map[string]string{
		`{'id': data.arrestId, 'n': data.count + 1}`: `{"id":"A-17","n":4}`,
		`data`: `{"amount":12.10,"arrestId":"A-17","big":123456789012345678901234567890,"bound":true,"count":3,"court":{"code":"B01"},"none":null,"odd key":"x}y","tags":["a","b"],"u64":18446744073709551615}`,
		`{'a': data.amount, 'b': [data.big, {'c': data.big}], 'd': data.court}`:   `{"a":12.10,"b":[123456789012345678901234567890,{"c":123456789012345678901234567890}],"d":{"code":"B01"}}`,
		`{'a': data.bound ? data.amount : 0.0, 'b': has(data.x) ? data.x : null}`: `{"a":12.10,"b":null}`,
		`data.bound && type == 'custody.arrest' ? {'big': data.big} : {}`:         `{"big":123456789012345678901234567890}`,
		`data.tags`: `["a","b"]`,
		`data.tags.map(x, {'tag': x.upperAscii()})`:          `[{"tag":"A"},{"tag":"B"}]`,
		`data.tags.filter(x, x != 'a')`:                      `["b"]`,
		`{'x': data.tags.exists(x, x == 'b') && id == '17'}`: `{"x":true}`,
		`data.amount * 2.0`:                                  `24.2`,
		`'text'`:                                             `"text"`,
		`null`:                                               `null`,
		`[]`:                                                 `[]`,
		`{}`:                                                 `{}`,
		`{'t': time, 'd': duration('90s'), 'b': b'ab', 'u': data.u64, 'i': -9223372036854775808, 'h': headers}`: `{"b":"YWI=","d":"90s","h":{"marking":"OFFICIAL"},"i":-9223372036854775808,"t":"2026-11-22T10:30:00.5Z","u":18446744073709551615}`,
		`{headers.marking: 1}`:              `{"OFFICIAL":1}`,
		`{'é"\n': 'é"\n'}`:                  "{\"é\\\"\\n\":\"é\\\"\\n\"}",
		`{'a': {'b': {'c': [1, [2, []]]}}}`: `{"a":{"b":{"c":[1,[2,[]]]}}}`,
	} {
		step, err := Compile(contract.Step{CEL: text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		m := message()
		m.Format, m.ContentType = "", "application/vnd.custody+json"
		if pass, err := step.Apply(t.Context(), m); !pass || err != nil || string(m.Data) != want {
			t.Errorf("%s: %s, %v, %v; want %s", text, m.Data, pass, err, want)
		}
		if m.Format != sdk.FormatJSON || m.ContentType != "application/json" {
			t.Error(m.Format, m.ContentType)
		}
	}
	for text, want := range map[string]string{
		`{'a': data.nope}`:     "no such key: nope",
		`{'a': [data.nope.x]}`: "no such key: nope",
		`data.count ? 1 : 2`:   "the condition before ? yields no boolean",
		`data.nope ? 1 : 2`:    "no such key: nope",
		`{'a': 1.0 / 0.0}`:     "infinite",
		`{1: 2}`:               "key of type int",
		`data.tags.map(x, data.tags.map(y, data.tags.map(z, 1)))`: "",
		`type(data)`: "which is no value",
	} {
		b, err := CompileBody(text)
		if err == nil {
			_, err = b.Make(message())
		}
		if fmt.Sprint(err) != "<nil>" && want == "" || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	_, err := Compile(contract.Step{CEL: "{'a': date.b}"})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "transform.cel" || !strings.HasPrefix(f.Err.Error(), "line 1, column 7: undeclared reference to 'date'") {
		t.Error(err)
	}
	if pass, err := mustStep(t, contract.Step{CEL: "{'text': data}"}).Apply(t.Context(), &sdk.Message{Format: "Binary", Data: []byte("ab")}); !pass || err != nil {
		t.Error(pass, err)
	}
	if _, err := mustStep(t, contract.Step{CEL: "data.a"}).Apply(t.Context(), &sdk.Message{Data: []byte("{")}); err == nil || !strings.Contains(err.Error(), "the body is not JSON") {
		t.Error(err)
	}
}

func mustStep(t testing.TB, s contract.Step) Step {
	t.Helper()
	step, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return step
}

// A body that is taken apart is what CEL itself says it is, but for the text of numbers.
func TestBodyIsTheValue(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := maker{rand.New(rand.NewPCG(seed, 2))} //nolint:gosec // a test's documents are no secret
	var value func(depth int) string
	value = func(depth int) string {
		switch n := r.IntN(8); {
		case depth == 0 || n < 3:
			return r.of(r.path(), r.literal(), "("+r.condition(1)+")", "["+r.path()+"].map(x, {'n': x})")
		case n == 3:
			return "[" + value(depth-1) + ", " + value(depth-1) + "]"
		case n == 4:
			return "(" + r.condition(1) + " ? " + value(depth-1) + " : " + value(depth-1) + ")"
		default:
			return "{'a': " + value(depth-1) + ", 'b': " + value(depth-1) + "}"
		}
	}
	made := 0
	for range 1500 {
		text := value(3)
		b, err := CompileBody(text)
		if err != nil {
			continue
		}
		v, err := CompileValue(text)
		if err != nil {
			t.Fatal(text, err)
		}
		doc := r.document()
		message := func() *sdk.Message {
			return &sdk.Message{ID: "17", Type: "a", Headers: map[string]string{"h": "x", "b": "1"}, Data: doc}
		}
		got, err := b.Make(message())
		plainValue, wantErr := (&Value{decoded(v.program)}).Eval(message())
		if wantErr == nil {
			_, wantErr = encodeJSON(plainValue, true)
		}
		if wantErr != nil && strings.Contains(wantErr.Error(), "beyond what an expression can hold") {
			continue // it is passed on as it stands
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s of %s: %s, %v; want %v", text, doc, got, err, wantErr)
		}
		if err != nil {
			continue
		}
		made++
		want, _ := encodeJSON(plainValue, true)
		if d := cmp.Diff(rounded(t, want), rounded(t, got)); d != "" {
			t.Fatalf("%s of %s: %s", text, doc, d)
		}
	}
	if made < 150 {
		t.Errorf("only %d bodies were made", made)
	}
}

// rounded is a document with its numbers as double.
func rounded(t *testing.T, doc []byte) any {
	t.Helper()
	v, err := sdk.DecodeJSON(doc)
	if err != nil {
		t.Fatal(string(doc), err)
	}
	return doubles(v)
}

func doubles(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case json.Number:
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = doubles(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = doubles(v[k])
		}
	}
	return v
}

func BenchmarkBody1KiB(b *testing.B) {
	step := mustStep(b, contract.Step{CEL: `{'caseId': data.arrestId, 'surname': data.detainee.surname, 'born': data.detainee.dateOfBirth, 'court': data.court.code,
		'charges': data.offences.map(o, {'code': o.code, 'title': o.title})}`})
	data := []byte(record)
	done := perCore(b)
	for b.Loop() {
		m := sdk.Message{Data: data}
		if pass, err := step.Apply(b.Context(), &m); !pass || err != nil {
			b.Fatal(pass, err)
		}
	}
	done()
}
