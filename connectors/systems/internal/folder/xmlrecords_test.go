package folder

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func elements(text, element string, from int64) (out []piece, charset string, err error) {
	s := newXMLSplitter(strings.NewReader(text), from, element)
	for {
		raw, at, err := s.next()
		if errors.Is(err, io.EOF) {
			return out, s.charset, nil
		}
		if err != nil {
			return out, s.charset, err
		}
		out = append(out, piece{at, string(raw)})
	}
}

const arrestsXML = `<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- <Arrest> within a comment is none, -->
<c:Export xmlns:c="urn:c" xmlns:p="urn:p" xmlns="urn:d" xmlns:unused="urn:u" note="a > b">
  <Head><![CDATA[ nor <Arrest/> within CDATA ]]></Head>
  <c:Arrest id="1"><p:Name>A</p:Name><c:Arrest>part of it</c:Arrest><!-- </c:Arrest> --></c:Arrest>
  <List xmlns:p="urn:p2"><c:Arrest id='>'/><c:Arrest p:x="1"></c:Arrest
  ></List>
</c:Export>
<?end?>
`

func TestElementsAreFound(t *testing.T) {
	want := []string{
		`<c:Arrest xmlns:c="urn:c" xmlns:p="urn:p" xmlns="urn:d" id="1"><p:Name>A</p:Name><c:Arrest>part of it</c:Arrest><!-- </c:Arrest> --></c:Arrest>`,
		`<c:Arrest xmlns:c="urn:c" xmlns="urn:d" id='>'/>`,
		"<c:Arrest xmlns:c=\"urn:c\" xmlns:p=\"urn:p2\" xmlns=\"urn:d\" p:x=\"1\"></c:Arrest\n  >",
	}
	for _, name := range []string{"Arrest", "c:Arrest"} {
		got, charset, err := elements(arrestsXML, name, 0)
		if err != nil || charset != "ISO-8859-1" {
			t.Fatal(charset, err)
		}
		var texts []string
		for i, p := range got {
			texts = append(texts, p.Text)
			if !strings.HasPrefix(arrestsXML[p.At:], "<c:Arrest") {
				t.Errorf("record %d begins at byte %d: %.20q", i, p.At, arrestsXML[p.At:])
			}
			// It is found again from where it begins, and what is before it is passed over.
			again, _, err := elements(arrestsXML, name, p.At)
			if err != nil || len(again) != len(got)-i || again[0] != p {
				t.Errorf("from byte %d: %v, %v", p.At, again, err)
			}
		}
		if d := cmp.Diff(want, texts); d != "" {
			t.Error(d)
		}
	}
	if got, _, err := elements(arrestsXML, "d:Arrest", 0); err != nil || len(got) != 0 {
		t.Errorf("another prefix: %v, %v", got, err)
	}
	if got, _, err := elements("\ufeff<Arrest/>", "Arrest", 0); err != nil || len(got) != 1 {
		t.Errorf("the outermost element: %v, %v", got, err)
	}
	if got, _, err := elements("", "Arrest", 0); err != nil || len(got) != 0 {
		t.Errorf("an empty file: %v, %v", got, err)
	}
}

// Records are found wherever what is read at a time ends.
func TestElementsAcrossReads(t *testing.T) {
	for n := range 40 {
		text := "<r>" + strings.Repeat(" ", readAhead-20+n) + "<a b='1'><![CDATA[x]]><c/></a><!-- - -- --><a/></r>"
		got, _, err := elements(text, "a", 0)
		if err != nil || len(got) != 2 || got[0].Text != "<a b='1'><![CDATA[x]]><c/></a>" {
			t.Fatalf("%d: %v, %v", n, got, err)
		}
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"hello":                              "text outside of elements",
		"<a/>x":                              "text outside of elements",
		"<a/><b/>":                           "second outermost",
		`<!DOCTYPE a [<!ENTITY x "y">]><a/>`: "document type",
		"<r><a>":                             "ends within",
		"<r><b></r>":                         "closed, and not open",
		"<r>":                                "ends within the element",
		"<r><a x=\"":                         "ends within",
		"<!-- ":                              "ends within markup",
		"<r><>":                              "no name",
		"<r><b <a/></r>":                     "a tag holds a <",
		" ":                                  "there is no element",
		"\xff\xfe<\x00":                      "UTF-16",
		"<r><b " + strings.Repeat("x", maxTag) + "/></r>":                           "a tag is longer",
		"<r><a>" + strings.Repeat("x", contract.MaxMessageSize) + "</a></r>":        "begins at byte 3 is longer",
		"<r><a><!--" + strings.Repeat("x", contract.MaxMessageSize) + "--></a></r>": "begins at byte 3 is longer",
		strings.Repeat("<b>", sdk.MaxDepth+1):                                       "nest more than",
	} {
		_, _, err := elements(text, "a", 0)
		if badly := (*badError)(nil); !errors.As(err, &badly) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestElementsBecomeMessages(t *testing.T) {
	raw := []byte("<c:Arrest xmlns:c=\"urn:c\"><Name>M\xfcller</Name><Charge>T</Charge></c:Arrest>")
	for format, want := range map[string]string{
		sdk.FormatXML:  `<c:Arrest xmlns:c="urn:c"><Name>Müller</Name><Charge>T</Charge></c:Arrest>`,
		sdk.FormatJSON: `{"c:Arrest":{"@xmlns:c":"urn:c","Name":"Müller","Charge":["T"]}}`,
	} {
		s := &shaper{Options: &Options{Kind: XML, Format: format, Elements: Elements{Element: "Arrest", Arrays: []string{"Charge"}}}}
		got, err := s.record(raw, "ISO-8859-1")
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", format, got, err)
		}
		if got, err := s.record([]byte("<a><b></a></b>"), ""); err == nil {
			t.Errorf("what is not well-formed became %s", got)
		}
	}
}

func FuzzElements(f *testing.F) {
	f.Add(arrestsXML)
	f.Add("<r><a x='>'/></r>")
	f.Fuzz(func(t *testing.T, text string) {
		all, _, err := elements(text, "a", 0)
		if err != nil {
			return
		}
		for i, p := range all {
			again, _, err := elements(text, "a", p.At)
			if err != nil || len(again) != len(all)-i {
				t.Fatalf("%q: %d from byte %d, of %d: %v", text, len(again), p.At, len(all), err)
			}
		}
	})
}

func BenchmarkElements(b *testing.B) {
	record := fmt.Sprintf("<Arrest><Name>A</Name><Note>%s</Note></Arrest>\n", strings.Repeat("n", 950))
	text := "<Export>" + strings.Repeat(record, 1000) + "</Export>"
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if all, _, err := elements(text, "Arrest", 0); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}
