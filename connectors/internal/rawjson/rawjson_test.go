package rawjson

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
	for text, want := range map[string]struct {
		end   int
		plain bool
	}{
		`""`: {2, true}, `"a"x`: {3, true}, `"abcdefgh"`: {10, true}, `"abcdefghi",1,2,3`: {11, true}, `"abc`: {Invalid, false}, `"`: {Invalid, false},
		`"é"`: {4, false}, `"a","é"        `: {3, true}, `"é2345678" `: {11, false}, `"\n"`: {4, false}, `"abcdefgh\u00e9"`: {16, false}, `"\u00g9"`: {Invalid, false},
		"\"\t\"": {Invalid, false}, "\"abcdefgh\x1f\"": {Invalid, false}, `"\`: {Invalid, false}, `"\x"`: {Invalid, false}, "\"\x7f\"": {3, true}, "\"\xff\"      ": {3, false},
		`"\u12`: {Invalid, false},
	} {
		if end, plain := String([]byte(text), 0); end != want.end || plain != want.plain {
			t.Errorf("%q: %d, %v; want %v", text, end, plain, want)
		}
	}
}

func TestDepth(t *testing.T) {
	for _, pair := range []string{"[]", `{"a":}`} {
		open, shut := pair[:len(pair)-1], pair[len(pair)-1:]
		deepest := strings.Repeat(open, MaxDepth-1) + "[]" + strings.Repeat(shut, MaxDepth-1)
		if !Valid([]byte(deepest)) {
			t.Error("refuses the deepest", pair)
		}
		if Valid([]byte(strings.Replace(deepest, "[]", "[[]]", 1))) {
			t.Error("takes a document that is too deep", pair)
		}
		if end := Skip([]byte("[[]]"), 0, MaxDepth-1); end != Invalid {
			t.Error("does not count what is around:", end)
		}
	}
}

// FuzzValid holds the scanner to encoding/json.
func FuzzValid(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e-3,"\u00e9\ud83d\ude00",null,true,false,{}],"b":{"c":[]}}`, `"\ud800"`, `-`, `[[[]]]`, "\"\xff\"", ` 1 `, `{"a":1,}`, `[1,]`, `{"a" :  1 , "b":[ ] }`, `1e`, `01`, `{}{}`, `{"a"}`, `[1 2]`, "[1}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		valid := Valid(doc)
		if deep := strings.Count(string(doc), "[")+strings.Count(string(doc), "{") > MaxDepth; !deep && valid != json.Valid(doc) {
			t.Fatalf("%q: %v", doc, valid)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	doc := []byte(`{"arrestId":"A-1","custody":{"station":"Fulham","officer":{"number":1234,"name":"J. Doe"}},"offences":[{"code":"TH68001","count":2},{"code":"CJ88159","count":1}],"text":"` + strings.Repeat("x", 700) + `"}`)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if !Valid(doc) {
			b.Fatal()
		}
	}
}
