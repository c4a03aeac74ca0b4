package codec

import (
	"bytes"
	"strings"
	"testing"
)

func TestCharsets(t *testing.T) {
	for charset, c := range map[string]struct{ text, bytes string }{
		"ISO-8859-1":   {"é£", "\xe9\xa3"},
		"iso-8859-15":  {"€é", "\xa4\xe9"},
		"windows-1252": {"€“é”", "\x80\x93\xe9\x94"},
		"IBM850":       {"é£", "\x82\x9c"},
		"KOI8-R":       {"Да", "\xe4\xc1"},
		"US-ASCII":     {"abc", "abc"},
		"UTF-8":        {"é", "é"},
		"UTF-16":       {"é😀", "\xfe\xff\x00\xe9\xd8\x3d\xde\x00"},
		"UTF-16LE":     {"é", "\xe9\x00"},
		"UTF-16BE":     {"\ufffd", "\xff\xfd"},
	} {
		got, err := Encode([]byte(c.text), charset)
		if err != nil || string(got) != c.bytes {
			t.Errorf("%s: %q, %v; want %q", charset, got, err, c.bytes)
		}
		if got, err = Decode([]byte(c.bytes), charset); err != nil || string(got) != c.text {
			t.Errorf("%s: %q, %v; want %q", charset, got, err, c.text)
		}
	}
	for _, c := range [][2]string{{"US-ASCII", "\xe9"}, {"UTF-8", "\xe9"}, {"UTF-16BE", "\xd8\x3d"}, {"UTF-16", "\x00"}, {"ISO-8859-7", "\xff"}, {"EBCDIC", "a"}} {
		if got, err := Decode([]byte(c[1]), c[0]); err == nil {
			t.Errorf("%q as %s is %q", c[1], c[0], got)
		}
	}
	for _, c := range [][2]string{{"US-ASCII", "é"}, {"ISO-8859-1", "€"}, {"windows-1252", "Д"}} {
		if got, err := Encode([]byte(c[1]), c[0]); err == nil {
			t.Errorf("%q as %s is %q", c[1], c[0], got)
		}
	}
	for _, name := range Charsets() {
		if err := CheckCharset(strings.ToLower(name)); err != nil {
			t.Error(err)
		}
	}
	if got, err := Decode([]byte("\ufeffa"), "UTF-8"); err != nil || string(got) != "a" {
		t.Errorf("byte order mark: %q, %v", got, err)
	}
}

func TestXMLInOtherCharacterSets(t *testing.T) {
	const text = `<a>é€</a>`
	var x XML
	for _, charset := range []string{"ISO-8859-1", "ISO-8859-15", "UTF-16", "US-ASCII", "UTF-8"} {
		got, err := x.JSONToXML([]byte(`{"a":"é€"}`), charset)
		if err != nil {
			t.Fatal(charset, err)
		}
		back, err := x.XMLToJSON(got, "")
		if err != nil || string(back) != `{"a":"é€"}` {
			t.Errorf("%s: %q, %s, %v", charset, got, back, err)
		}
		if err := CheckXML(got); err != nil {
			t.Error(charset, err)
		}
	}
	for name, body := range map[string][]byte{
		"declared":       []byte("<?xml version='1.0' encoding='windows-1252'?><a>\xe9\x80</a>"),
		"UTF-16, marked": append([]byte{0xff, 0xfe}, utf16le(text)...),
		"UTF-16":         []byte(utf16le(text)),
	} {
		if got, err := x.XMLToJSON(body, ""); err != nil || string(got) != `{"a":"é€"}` {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if got, err := x.XMLToJSON([]byte("<?xml version='1.0' encoding='UTF-8'?><a>\xe9</a>"), "ISO-8859-1"); err != nil || string(got) != `{"a":"é"}` {
		t.Errorf("told otherwise: %s, %v", got, err)
	}
}

func utf16le(s string) string {
	var out strings.Builder
	for _, r := range s {
		out.WriteByte(byte(r))
		out.WriteByte(byte(r >> 8))
	}
	return out.String()
}

// FuzzCharset: what is decoded is encoded again to the same bytes.
func FuzzCharset(f *testing.F) {
	f.Add([]byte("abc\xe9\xa4"), uint(5))
	f.Add([]byte("\xd8\x3d\xde\x00"), uint(4))
	f.Fuzz(func(t *testing.T, body []byte, n uint) {
		charset := Charsets()[n%uint(len(Charsets()))]
		text, err := Decode(body, charset)
		if err != nil || bytes.Contains(text, []byte("\ufeff")) || charset == "UTF-16" || charset == UTF8 {
			return
		}
		if strings.HasPrefix(charset, "UTF-16") && (bytes.HasPrefix(body, []byte{0xff, 0xfe}) || bytes.HasPrefix(body, []byte{0xfe, 0xff})) {
			return // a byte order mark is left out
		}
		back, err := Encode(text, charset)
		if err != nil || !bytes.Equal(back, body) {
			t.Fatalf("%s: %q gives %q and %q: %v", charset, body, text, back, err)
		}
	})
}
