package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBody(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for name, c := range map[string]struct {
		format, data string
		want         any
		fails        string
	}{
		"object":          {"JSON", `{"a":1,"b":[true,null,"x"]}`, map[string]any{"a": 1, "b": []any{true, nil, "x"}}, ""},
		"int64 is exact":  {"JSON", `9223372036854775807`, 9223372036854775807, ""},
		"big is exact":    {"JSON", `9223372036854775808`, json.Number("9223372036854775808"), ""},
		"money is exact":  {"JSON", `12345678901234567.890`, json.Number("12345678901234567.890"), ""},
		"exponent":        {"JSON", `-1.5e+3`, json.Number("-1.5e+3"), ""},
		"minus zero":      {"JSON", `-0`, json.Number("-0"), ""},
		"escapes":         {"JSON", `"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, "a\"\\/\b\f\n\r\té😀", ""},
		"lone surrogate":  {"JSON", `"\ud83dx"`, "\ufffdx", ""},
		"invalid UTF-8":   {"JSON", "\"a\xff\"", "a\ufffd", ""},
		"last wins":       {"JSON", `{"a":1,"a":2}`, map[string]any{"a": 2}, ""},
		"default format":  {"", ` {} `, map[string]any{}, ""},
		"XML":             {"XML", "<a/>", "<a/>", ""},
		"text":            {"Text", "héllo", "héllo", ""},
		"binary":          {"Binary", "\x00\xff", []byte{0, 255}, ""},
		"text not UTF-8":  {"Text", "\xff", nil, "the body is not Text: it is not valid UTF-8"},
		"empty":           {"JSON", "", nil, "JSON at byte 0: unexpected end"},
		"trailing":        {"JSON", "{} {}", nil, "JSON at byte 3: unexpected data after the document"},
		"leading zero":    {"JSON", "01", nil, "unexpected data"},
		"no comma":        {"JSON", `{"a":1 "b":2}`, nil, "expected ',' or '}'"},
		"trailing comma":  {"JSON", `[1,]`, nil, "unexpected ']'"},
		"raw newline":     {"JSON", "\"a\nb\"", nil, "control character"},
		"unterminated":    {"JSON", `"abc`, nil, "unterminated string"},
		"half an escape":  {"JSON", `"abc\`, nil, "unterminated string"},
		"too deep":        {"JSON", "[" + deep + "]", nil, "nested deeper than 256"},
		"unknown format":  {"CSV", "", nil, `unknown format "CSV"`},
		"a word too long": {"JSON", "nulll", nil, "unexpected data"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Message{Format: c.format, Data: []byte(c.data)}
			got, err := m.Body()
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("error %v, want %q", err, c.fails)
				}
				if c.format != "CSV" && CheckFormat(c.format, m.Data) == nil {
					t.Fatal("CheckFormat accepts it")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Fatal(d)
			}
			if err := CheckFormat(c.format, m.Data); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := DecodeJSON([]byte(deep)); err != nil {
		t.Fatal("the deepest allowed document:", err)
	}
	if CheckFormat("XML", []byte("{}")) == nil || CheckFormat("XML", []byte("\ufeff\n<a/>")) != nil {
		t.Fatal("CheckFormat of XML")
	}
}

func TestSetDataForgetsTheBody(t *testing.T) {
	m := &Message{Data: []byte(`1`)}
	if v, _ := m.Body(); v != 1 {
		t.Fatal(v)
	}
	m.SetData([]byte(`2`))
	if v, _ := m.Body(); v != 2 {
		t.Fatal(v)
	}
}

func TestUndecoded(t *testing.T) {
	m := &Message{Data: []byte(`{}`)}
	for range maxPeeks {
		if data, ok := m.Undecoded(); !ok || string(data) != "{}" {
			t.Fatal(string(data), ok)
		}
	}
	if _, ok := m.Undecoded(); ok {
		t.Fatal("it was cheaper to decode long ago")
	}
	m.SetData([]byte(`[]`))
	if data, ok := m.Undecoded(); !ok || string(data) != "[]" {
		t.Fatal(string(data), ok)
	}
	if _, err := m.Body(); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Undecoded(); ok {
		t.Fatal("it has been decoded")
	}
	m = &Message{Format: FormatText, Data: []byte(`{}`)}
	if _, ok := m.Undecoded(); ok {
		t.Fatal("Text is no JSON")
	}
}

// FuzzDecodeJSON holds the decoder to encoding/json: what is valid, and what it means.
func FuzzDecodeJSON(f *testing.F) {
	many := strings.Repeat(`"a":[`+strings.Repeat(`{"b":1,"b":2},`, 40)+`3],`, 3)
	for i := range 70 {
		many += fmt.Sprintf(`"m%d":%d,`, i%60, i)
	}
	for _, s := range []string{"{" + many + `"z":[[]]}`, `{"a":[1,2.5e-3,"\u00e9\ud83d\ude00",null,true]}`, `"\ud800"`, `-`, `[[[]]]`, "\"\xff\"", `1e5`, ` 1 `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := DecodeJSON(in)
		if valid := json.Valid(in); valid != (err == nil) && !errors.Is(err, errDepth) {
			t.Fatalf("valid %v, decoder says %v", valid, err)
		}
		if (CheckJSON(in) == nil) != (err == nil) {
			t.Fatalf("CheckJSON differs from %v", err)
		}
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, numbers(got)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// numbers makes every int a json.Number.
func numbers(v any) any {
	switch v := v.(type) {
	case int:
		return json.Number(fmt.Sprint(v))
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

func BenchmarkDecodeJSON(b *testing.B) {
	in := []byte(`{"arrestId":"A-1","custody":{"station":"Fulham","officer":{"number":1234,"name":"J. Doe"}},"offences":[{"code":"TH68001","count":2},{"code":"CJ88159","count":1}],"text":"` + strings.Repeat("x", 700) + `"}`)
	b.Run("DecodeJSON", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeJSON(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("CheckJSON", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		b.ReportAllocs()
		for b.Loop() {
			if err := CheckJSON(in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestBodiesThatBurstAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"as much as is allowed":  {"[" + strings.Repeat("1,", 1_000_000) + "1]", true},
		"text":                   {`"` + strings.Repeat("x", 8<<20) + `"`, true},
		"records":                {"[" + strings.Repeat(`{"station":"Kings Road","offence":"TH68-1","officer":1042,"n":null},`, 100_000) + "0]", true},
		"numbers":                {"[" + strings.Repeat("1,", 3_000_000) + "1]", false},
		"empty objects":          {"[" + strings.Repeat("{},", 2_000_000) + "0]", false},
		"small objects":          {"[" + strings.Repeat(`{"a":1},`, 1_000_000) + "0]", false},
		"empty arrays":           {"[" + strings.Repeat("[],", 2_000_000) + "0]", false},
		"arrays within the last": {strings.Repeat("[", 200) + strings.Repeat("[],", 2_000_000) + "0" + strings.Repeat("]", 200), false},
	} {
		m := &Message{Format: FormatJSON, Data: []byte(c.body)}
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		cost := 0
		m.AfterBody(func(_, n int) { cost = n })
		_, err := m.Body()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		if kept := int(after.HeapAlloc) - int(before.HeapAlloc); c.ok && kept > cost+cost/4 {
			t.Errorf("%s: it takes %d KiB and was taken for %d", name, kept>>10, cost>>10)
		}
		runtime.KeepAlive(m)
		if !c.ok && !strings.Contains(err.Error(), "64 MiB") {
			t.Error(err)
		}
	}
}
