package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const personSchema = `{
  "type": "object", "required": ["surname"], "additionalProperties": false,
  "properties": {"surname": {"type": "string", "minLength": 1}, "age": {"type": "integer", "maximum": 150}}
}`

func TestValidate(t *testing.T) {
	schema := contract.Step{Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: personSchema}}}
	xml := contract.Step{Validate: &contract.Validate{WellFormedXML: true}}
	for name, c := range map[string]struct {
		step         contract.Step
		format, body string
		fails        string
	}{
		"follows":       {schema, sdk.FormatJSON, `{"surname":"Doe","age":30}`, ""},
		"breaks a rule": {schema, sdk.FormatJSON, `{"surname":"Doe","age":151}`, "/age breaks the rule maximum: 150"},
		"names no text": {schema, sdk.FormatJSON, `{"surname":""}`, "/surname breaks the rule minLength: 1"},
		"no JSON":       {schema, sdk.FormatJSON, `{`, "the body is not JSON"},
		"another":       {schema, sdk.FormatXML, `<a/>`, "needs a JSON body; this one is XML"},
		"XML":           {xml, sdk.FormatXML, `<a><b/></a>`, ""},
		"broken XML":    {xml, sdk.FormatXML, `<a><b></a>`, "closed as"},
		"entities":      {xml, sdk.FormatXML, `<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>`, "DOCTYPE"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &sdk.Message{Format: c.format, Data: []byte(c.body)}
			pass, err := mustStep(t, c.step).Apply(t.Context(), m)
			switch {
			case c.fails == "" && (err != nil || !pass):
				t.Error(pass, err)
			case c.fails != "" && (err == nil || pass || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("%v, %v; want %q", pass, err, c.fails)
			}
			if string(m.Data) != c.body {
				t.Error("the body has changed")
			}
		})
	}
	slow := contract.Step{Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: `{"pattern":"(x+x+){9}y"}`}}}
	if _, err := mustStep(t, slow).Apply(t.Context(), &sdk.Message{Data: []byte(`"` + strings.Repeat("x", 8<<20) + `"`)}); !errors.Is(err, ErrLimit) {
		t.Error("not ErrLimit:", err)
	}
}

func TestConvert(t *testing.T) {
	const avroSchema = `{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}`
	for name, c := range map[string]struct {
		contract.Convert
		body, want          string
		format, contentType string
	}{
		"XML to JSON":  {contract.Convert{From: "XML", To: "JSON"}, `<a b="1">x</a>`, `{"a":{"@b":"1","#text":"x"}}`, "JSON", "application/json"},
		"JSON to XML":  {contract.Convert{From: "JSON", To: "XML", XML: &contract.ConvertXML{Root: "r", Item: "i"}}, `[1,2]`, `<r><i>1</i><i>2</i></r>`, "XML", "application/xml; charset=utf-8"},
		"CSV to JSON":  {contract.Convert{From: "CSV", To: "JSON", CSV: &contract.CSVOptions{Delimiter: ";"}}, "a;b\n1;2\n", `[{"a":"1","b":"2"}]`, "JSON", "application/json"},
		"JSON to CSV":  {contract.Convert{From: "JSON", To: "CSV", CSV: &contract.CSVOptions{LF: true}}, `[{"a":1}]`, "a\n1\n", "Text", "text/csv; charset=utf-8"},
		"CSV to XML":   {contract.Convert{From: "CSV", To: "XML", XML: &contract.ConvertXML{Root: "r", Item: "i"}}, "a\n1\n", `<r><i><a>1</a></i></r>`, "XML", "application/xml; charset=utf-8"},
		"XML to CSV":   {contract.Convert{From: "XML", To: "CSV", XML: &contract.ConvertXML{Root: "r", Item: "i"}, CSV: &contract.CSVOptions{LF: true}}, `<r><i><a>1</a></i></r>`, "a\n1\n", "Text", "text/csv; charset=utf-8"},
		"Text to JSON": {contract.Convert{From: "Text", To: "JSON", FromCharset: "ISO-8859-1"}, "\xe9", `"é"`, "JSON", "application/json"},
		"JSON to Text": {contract.Convert{From: "JSON", To: "Text", ToCharset: "windows-1252"}, `"€"`, "\x80", "Binary", "text/plain; charset=windows-1252"},
		"Text to Text": {contract.Convert{From: "Text", To: "Text", FromCharset: "UTF-16"}, "\xfe\xff\x00\xe9", "é", "Text", "text/plain; charset=utf-8"},
		"to ASCII":     {contract.Convert{From: "Text", To: "Text", ToCharset: "US-ASCII"}, "e", "e", "Text", "text/plain; charset=US-ASCII"},
		"XML to UTF-8": {contract.Convert{From: "XML", To: "XML", ToCharset: "UTF-8"}, "<?xml version='1.0' encoding='ISO-8859-1'?><a><!-- kept -->\xe9</a>",
			`<?xml version="1.0" encoding="UTF-8"?><a><!-- kept -->é</a>`, "XML", "application/xml; charset=utf-8"},
		"XML from UTF-8": {contract.Convert{From: "JSON", To: "XML", ToCharset: "ISO-8859-1"}, `{"a":"é€"}`, "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>\xe9&#8364;</a>",
			"Binary", "application/xml; charset=ISO-8859-1"},
		"to Avro":   {contract.Convert{From: "JSON", To: "Avro", Avro: &contract.AvroOptions{Schema: contract.Schema{Text: avroSchema}}}, `{"a":-64}`, "\x7f", "Binary", "application/avro"},
		"from Avro": {contract.Convert{From: "Avro", To: "JSON", Avro: &contract.AvroOptions{Schema: contract.Schema{Text: avroSchema}}}, "\x7f", `{"a":-64}`, "JSON", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &sdk.Message{Format: "Binary", ContentType: "x/y", Data: []byte(c.body)}
			worked := false
			m.BeforeBody(func() { worked = true })
			pass, err := mustStep(t, contract.Step{Convert: &c.Convert}).Apply(t.Context(), m)
			if err != nil || !pass || !worked {
				t.Fatal(pass, err, worked)
			}
			if d := cmp.Diff([]string{c.want, c.format, c.contentType}, []string{string(m.Data), m.Format, m.ContentType}); d != "" {
				t.Error(d)
			}
			if _, err := m.Body(); err != nil {
				t.Error("the next step cannot read it:", err)
			}
		})
	}
	m := &sdk.Message{Format: "JSON", Data: []byte(`{`)}
	if pass, err := mustStep(t, contract.Step{Convert: &contract.Convert{From: "JSON", To: "XML"}}).Apply(t.Context(), m); err == nil || pass || string(m.Data) != `{` {
		t.Error(pass, err)
	}
}

func TestFormatsThatDoNotCompile(t *testing.T) {
	for want, s := range map[string]contract.Step{
		"validate.jsonSchema.inline: line 2, column 10":    {Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: "{\n \"type\": \"text\"}"}}},
		"validate.jsonSchema.configMap: line 1, column 3":  {Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: "{ x", From: "configMap a key b"}}},
		"validate: there is nothing":                       {Validate: &contract.Validate{}},
		"convert.from: the format is none":                 {Convert: &contract.Convert{From: "YAML", To: "JSON"}},
		"convert.to: the body is to stay":                  {Convert: &contract.Convert{From: "XML", To: "XML"}},
		"convert.charset.from: the character set":          {Convert: &contract.Convert{From: "Text", To: "JSON", FromCharset: "EBCDIC"}},
		"convert.charset.to: JSON is always":               {Convert: &contract.Convert{From: "Text", To: "JSON", ToCharset: "UTF-16"}},
		"convert.xml: item needs root":                     {Convert: &contract.Convert{From: "XML", To: "JSON", XML: &contract.ConvertXML{Item: "i"}}},
		`convert.xml: "a b" is no name`:                    {Convert: &contract.Convert{From: "XML", To: "JSON", XML: &contract.ConvertXML{Arrays: []string{"a b"}}}},
		"convert.csv: the delimiter":                       {Convert: &contract.Convert{From: "CSV", To: "JSON", CSV: &contract.CSVOptions{Delimiter: `"`}}},
		"convert.avro: Avro needs":                         {Convert: &contract.Convert{From: "Avro", To: "JSON"}},
		"convert.avro.schema.inline: it is no Avro schema": {Convert: &contract.Convert{From: "Avro", To: "JSON", Avro: &contract.AvroOptions{Schema: contract.Schema{Text: `{"type":"x"}`}}}},
		"split.items: line 1, column 1":                    {Split: &contract.Split{Items: "nosuch"}},
	} {
		_, err := Compile(s)
		var f *FieldError
		if !errors.As(err, &f) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	m := func(body string) *sdk.Message {
		return &sdk.Message{ID: "A-1", Type: "custody.arrest", Source: "/s", Headers: map[string]string{"marking": "OFFICIAL"}, PartitionKey: "k", Data: []byte(body)}
	}
	for name, c := range map[string]struct {
		items, body string
		want        []string
		fails       string
	}{
		"a path":         {"data.offences", `{"offences":[{"b":1.10,"a":12345678901234567890},"x",null]}`, []string{`{"a":12345678901234567890,"b":1.10}`, `"x"`, `null`}, ""},
		"the body":       {"data", `[1,2]`, []string{"1", "2"}, ""},
		"empty":          {"data", `[]`, []string{}, ""},
		"computed":       {"data.o.filter(x, x.n > 1).map(x, {'n': x.n, 'of': id})", `{"o":[{"n":1},{"n":2},{"n":3}]}`, []string{`{"n":2,"of":"A-1"}`, `{"n":3,"of":"A-1"}`}, ""},
		"no list":        {"data.o", `{"o":{}}`, nil, "no list"},
		"missing":        {"data.o", `{}`, nil, "no such key"},
		"too many":       {"data", "[" + strings.Repeat("1,", contract.MaxParts) + "1]", nil, "at most 10000"},
		"too large":      {"[data, data, data]", `"` + strings.Repeat("x", 6<<20) + `"`, nil, "more than 16 MiB"},
		"no JSON":        {"data", `{`, nil, "not JSON"},
		"as many as may": {"data", "[" + strings.Repeat("1,", contract.MaxParts-1) + "1]", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			split, ok := mustStep(t, contract.Step{Split: &contract.Split{Items: c.items}}).(*Split)
			if !ok {
				t.Fatal("no Split")
			}
			whole := m(c.body)
			p, err := split.Parts(whole)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.want == nil {
				return
			}
			got := []string{}
			for i := range p.Count() {
				part := p.Part(whole, i)
				got = append(got, string(part.Data))
				want := map[string]string{"marking": "OFFICIAL", "splitid": "A-1", "splitindex": fmt.Sprint(i), "splitcount": fmt.Sprint(p.Count())}
				if d := cmp.Diff(want, part.Headers); d != "" || part.ID != fmt.Sprintf("A-1/%d", i) || part.PartitionKey != "k" || part.Format != "JSON" {
					t.Errorf("part %d: %+v %s", i, part, d)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if len(whole.Headers) != 1 {
				t.Error("the message itself has changed")
			}
		})
	}
	if pass, err := mustStep(t, contract.Step{Split: &contract.Split{Items: "data"}}).Apply(t.Context(), m("[]")); pass || err == nil {
		t.Error("a split that nobody does lets the message pass")
	}
}

// FuzzFormats: whatever the body is, a step ends, and what passes can be read by the next.
func FuzzFormats(f *testing.F) {
	list := []Step{
		mustStep(f, contract.Step{Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: personSchema}}}),
		mustStep(f, contract.Step{Validate: &contract.Validate{WellFormedXML: true}}),
	}
	for _, c := range []contract.Convert{
		{From: "XML", To: "JSON"}, {From: "JSON", To: "XML", XML: &contract.ConvertXML{Root: "r", Item: "i"}}, {From: "CSV", To: "JSON"}, {From: "JSON", To: "CSV"},
		{From: "XML", To: "CSV", XML: &contract.ConvertXML{Root: "r", Item: "i"}}, {From: "Text", To: "JSON", FromCharset: "UTF-16"}, {From: "JSON", To: "Text", ToCharset: "windows-1252"},
		{From: "XML", To: "XML", ToCharset: "UTF-16LE"},
	} {
		list = append(list, mustStep(f, contract.Step{Convert: &c}))
	}
	for i, s := range []string{`{"surname":"Doe"}`, `<a/>`, `<r><i>1</i></r>`, `[{"a":1}]`, "a,b\n1,2\n", `[1]`, `<r><i><a>1</a></i></r>`, "\xfe\xff\x00\xe9", `"x"`, `<a>é</a>`} {
		f.Add(uint(i), []byte(s))
	}
	f.Fuzz(func(t *testing.T, n uint, body []byte) {
		m := &sdk.Message{Format: "Binary", Data: body}
		if n%uint(len(list)) == 0 {
			m.Format = "JSON"
		}
		if pass, err := list[n%uint(len(list))].Apply(context.WithoutCancel(t.Context()), m); err != nil || !pass {
			return
		}
		if _, err := m.Body(); err != nil && !strings.Contains(err.Error(), "deeper") {
			t.Fatalf("%q gives %q: %v", body, m.Data, err)
		}
	})
}

// BenchmarkFormats1KiB are the steps on a record of 1 KiB that nothing has decoded yet.
func BenchmarkFormats1KiB(b *testing.B) {
	schema := `{"type":"object","required":["arrestId","detainee","offences"],"properties":{"arrestId":{"type":"string","pattern":"^[A-Z0-9-]+$"},
	  "detainee":{"type":"object","required":["surname"]},"offences":{"type":"array","minItems":1,"items":{"type":"object","required":["code"],"properties":{"code":{"type":"string","minLength":3}}}}}}`
	xml := contract.Step{Convert: &contract.Convert{From: "JSON", To: "XML", XML: &contract.ConvertXML{Root: "arrest"}}}
	m := &sdk.Message{Data: []byte(record)}
	if _, err := mustStep(b, xml).Apply(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	asXML := m.Data
	for _, c := range []struct {
		name string
		step contract.Step
		body []byte
	}{
		{"validate-schema", contract.Step{Validate: &contract.Validate{JSONSchema: &contract.Schema{Text: schema}}}, []byte(record)},
		{"validate-xml", contract.Step{Validate: &contract.Validate{WellFormedXML: true}}, asXML},
		{"convert-json-xml", xml, []byte(record)},
		{"convert-xml-json", contract.Step{Convert: &contract.Convert{From: "XML", To: "JSON", XML: &contract.ConvertXML{Root: "arrest"}}}, asXML},
	} {
		b.Run(c.name, func(b *testing.B) {
			step := mustStep(b, c.step)
			done := perCore(b)
			for b.Loop() {
				m := sdk.Message{Data: c.body}
				if pass, err := step.Apply(b.Context(), &m); !pass || err != nil {
					b.Fatal(pass, err)
				}
			}
			done()
		})
	}
	b.Run("split", func(b *testing.B) {
		split, _ := mustStep(b, contract.Step{Split: &contract.Split{Items: "data.offences"}}).(*Split)
		done := perCore(b)
		for b.Loop() {
			m := sdk.Message{Data: []byte(record)}
			p, err := split.Parts(&m)
			if err != nil || p.Count() == 0 {
				b.Fatal(err)
			}
			for i := range p.Count() {
				p.Part(&m, i)
			}
		}
		done()
	})
}
