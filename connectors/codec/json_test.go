package codec

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTextAndJSON(t *testing.T) {
	for text, want := range map[string]string{"": `""`, "a\"\\\n\r\t\x00é<&>\u2028": `"a\"\\\n\r\t\u0000é<&>` + "\u2028" + `"`} {
		got, err := TextToJSON([]byte(text))
		if err != nil || string(got) != want || !json.Valid(got) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
		if back, err := JSONToText(got); err != nil || string(back) != text {
			t.Errorf("%s: %q, %v", got, back, err)
		}
	}
	for body, want := range map[string]string{`1.50`: "1.50", `true`: "true", `"\u00e9"`: "é"} {
		if got, err := JSONToText([]byte(body)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", body, got, err, want)
		}
	}
	for _, body := range []string{`null`, `{}`, `[]`, `x`, ``} {
		if got, err := JSONToText([]byte(body)); err == nil {
			t.Errorf("%s becomes %q", body, got)
		}
	}
	if _, err := TextToJSON([]byte("\xff")); err == nil {
		t.Error("text that is not UTF-8")
	}
	if _, err := TextToJSON([]byte(strings.Repeat("\x00", 8<<20))); err == nil {
		t.Error("a text that grows sixfold")
	}
}

func TestMembersGivenTwice(t *testing.T) {
	for body, twice := range map[string]bool{
		`{"a":1,"b":2}`: false, `{"a":1,"a":2}`: true, `{"a":1,"\u0061":2}`: true, `[{"x":{"é":1,"é":1}}]`: true,
		`{"a":{"b":1},"b":{"a":1}}`: false, `{` + strings.Repeat(`"k":0,`, 0) + manyMembers(20) + `,"k3":1}`: true, `{` + manyMembers(20) + `}`: false,
	} {
		if _, err := parseJSON([]byte(body)); (err != nil) != twice {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func manyMembers(n int) string {
	var out []string
	for i := range n {
		out = append(out, `"k`+string(rune('0'+i))+`":`+string(rune('0'+i%10)))
	}
	return strings.Join(out, ",")
}

// FuzzDocument: every value is found where it lies.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(` {"a" : [1, -2.5e+3 , "x\u00e9", null,true,false,{}] , "b":{"c":[]}} `))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseJSON(body)
		if err != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q is taken", body)
		}
		for n := root; int(n) < len(d.nodes); n++ {
			if !json.Valid(d.raw(n)) {
				t.Fatalf("%q: node %d is %q", body, n, d.raw(n))
			}
			if d.nodes[n].kind != isObject && d.nodes[n].kind != isArray {
				continue
			}
			var parts []json.RawMessage
			var members map[string]json.RawMessage
			if json.Unmarshal(d.raw(n), &parts) != nil {
				_ = json.Unmarshal(d.raw(n), &members) // one of the two
			}
			i := 0
			for c := d.nodes[n].first; c != 0; c = d.nodes[c].next {
				want := json.RawMessage(nil)
				if parts != nil {
					want = parts[i]
				} else {
					want = members[string(d.name(c))]
				}
				if string(want) != string(d.raw(c)) {
					t.Fatalf("%q: part %d is %q, want %q", body, i, d.raw(c), want)
				}
				i++
			}
			if i != len(parts)+len(members) {
				t.Fatalf("%q: %d parts, want %d", body, i, len(parts)+len(members))
			}
		}
	})
}
