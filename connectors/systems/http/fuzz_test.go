package http

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

// checkEvents holds for every event that is let in: nothing in it can break a header, and what is required is there.
func checkEvents(t *testing.T, events []*event) {
	t.Helper()
	for _, e := range events {
		m, err := e.finish("/", "")
		if err != nil {
			continue
		}
		if m.ID == "" || m.Source == "" || m.Type == "" {
			t.Fatalf("incomplete: %+v", m)
		}
		for _, value := range []string{m.ID, m.Source, m.Type, m.Subject, m.PartitionKey, m.ContentType, m.Endpoint} {
			if checkAttribute(value) != nil {
				t.Fatalf("attribute %q got through", value)
			}
		}
		for name, value := range m.Headers {
			if !attributeName(name) || checkAttribute(value) != nil {
				t.Fatalf("header %q: %q got through", name, value)
			}
		}
	}
}

func FuzzStructured(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1,"}"]},"x":"y\u0000"}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eA==","datacontenttype":"text/plain"}`))
	f.Add([]byte(`{"a":"\"","b":-1.5e3,"c":[],"d":null,"":true}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		valid := checkFormat(sdk.FormatJSON, doc) == nil
		e, err := parseStructured(doc)
		if err != nil || !valid {
			return // a document that is not valid must not panic, and does not come here in earnest
		}
		checkEvents(t, []*event{e})
		var want map[string]json.RawMessage
		if err := json.Unmarshal(doc, &want); err != nil {
			t.Fatalf("taken, but no object: %v", err)
		}
		if raw, ok := want["data"]; ok && isJSON(mediaType(e.message.ContentType)) && !bytes.Equal(e.message.Data, raw) {
			t.Fatalf("data is %q, want %q", e.message.Data, raw)
		}
	})
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`[{"specversion":"1.0","id":"1","source":"s","type":"t","data":1} , {"id":"2"}]`))
	f.Add([]byte(` [ ] `))
	f.Fuzz(func(t *testing.T, doc []byte) {
		valid := checkFormat(sdk.FormatJSON, doc) == nil
		events, err := parseBatch(doc)
		if err != nil || !valid {
			return
		}
		checkEvents(t, events)
		var want []json.RawMessage
		if err := json.Unmarshal(doc, &want); err != nil || len(want) != len(events) {
			t.Fatalf("%d events of %d: %v", len(events), len(want), err)
		}
	})
}

func FuzzBinary(f *testing.F) {
	f.Add("id", "a%20b", "ext", "%0d%0a")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Source": {"s"}, "Ce-Type": {"t"}}
		h["Ce-"+name1] = []string{value1}
		h["Ce-"+name2] = []string{value2}
		if e, err := parseBinary(h, nil); err == nil {
			checkEvents(t, []*event{e})
		}
	})
}

func FuzzAttributeRoundTrip(f *testing.F) {
	f.Add("plain")
	f.Add(`a "b" %20 é`)
	f.Fuzz(func(t *testing.T, value string) {
		encoded := encodeAttribute(value)
		for i := 0; i < len(encoded); i++ {
			if encoded[i] <= ' ' || encoded[i] >= 0x7f {
				t.Fatalf("%q holds what a header must not", encoded)
			}
		}
		decoded, err := decodeAttribute(encoded)
		if checkAttribute(value) == nil && (err != nil || decoded != value) {
			t.Fatalf("%q became %q: %v", value, decoded, err)
		}
	})
}

// Whatever value is inserted, the request goes to the same host, below the same path, and the value arrives as it was.
func FuzzURL(f *testing.F) {
	f.Add("42")
	f.Add("../../admin")
	f.Add("a/b?c=d#e\r\nHost: x")
	f.Add("..")
	f.Add("")
	base, err := url.Parse("https://court.example/api")
	if err != nil {
		f.Fatal(err)
	}
	o := &operation{sink: &sink{base: base}}
	f.Fuzz(func(t *testing.T, value string) {
		u, err := o.parse("/cases/" + escapeURL(value) + "/notes?q=" + escapeURL(value))
		if err != nil {
			if value != "" && value != "." && value != ".." {
				t.Fatalf("%q is refused: %v", value, err)
			}
			return
		}
		if u.Host != "court.example" || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q leads to %s", value, u)
		}
		segments := strings.Split(u.EscapedPath(), "/")
		if len(segments) != 5 || segments[1] != "api" || segments[2] != "cases" || segments[4] != "notes" {
			t.Fatalf("%q changes the path: %s", value, u)
		}
		if got, err := url.PathUnescape(segments[3]); err != nil || got != value {
			t.Fatalf("%q arrives as %q: %v", value, got, err)
		}
		if got := u.Query(); len(got) != 1 || got.Get("q") != value {
			t.Fatalf("%q arrives in the query as %v", value, got)
		}
	})
}

func FuzzXML(f *testing.F) {
	f.Add([]byte(`<a b="c"><!-- d --><?e f?><g/>h</a>`))
	f.Fuzz(func(_ *testing.T, doc []byte) { _ = checkFormat(sdk.FormatXML, doc) })
}

func FuzzQuantity(f *testing.F) {
	f.Add("1Mi")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := quantity.Parse(text); err == nil && strings.Trim(text, "0123456789") == "" && n < 0 {
			t.Fatalf("%q is %d", text, n)
		}
	})
}

// The fast path takes exactly what the slow one takes.
func FuzzValidJSON(f *testing.F) {
	for _, doc := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"x\\u00e9\n\"",{}],"":[]}`, ` [ ] `, `{"a":1,}`, `[1 2]`, `{"a"}`, `01`, `1.`, `-`, `"\x"`, `"` + "\x01" + `"`, "\"\xff\"", `"é"`,
		`}`, `[}`, `{]`, `{"a":}`, `nul`, `"12345678901234567890`, `"1234567\"8`, "", " ", `[1]]`, `{"a":1}x`, strings.Repeat("[", 256) + strings.Repeat("]", 256), strings.Repeat("[", 257) + strings.Repeat("]", 257),
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		want := sdk.CheckJSON(doc) == nil && utf8.Valid(doc)
		if got := validJSON(doc); got != want {
			t.Fatalf("%q: %t, want %t", doc, got, want)
		}
	})
}
