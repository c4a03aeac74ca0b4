package compile

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// setFormats of a step: what it says of schemas, formats and parts.
func setFormats(out *contract.Step, s *v1alpha1.Step) {
	if v := s.Validate; v != nil {
		out.Validate = &contract.Validate{WellFormedXML: v.XML != nil}
		if v.JSONSchema != nil {
			schema := Schema(v.JSONSchema)
			out.Validate.JSONSchema = &schema
		}
	}
	if s.Convert != nil {
		out.Convert = convert(s.Convert)
	}
	if s.Split != nil {
		out.Split = &contract.Split{Items: string(s.Split.Items)}
	}
}

// Schema as the data plane reads it. Of one in a ConfigMap the text is there once package schemas has resolved it; until then it is empty.
func Schema(s *v1alpha1.SchemaSource) contract.Schema {
	out := contract.Schema{Text: s.Inline}
	if m := s.ConfigMap; m != nil {
		out.From = "configMap " + m.Name + " key " + m.Key
	}
	return out
}

// IsResolved tells whether a step has the texts of all its schemas.
func IsResolved(s contract.Step) bool {
	if s.Validate != nil && s.Validate.JSONSchema != nil && s.Validate.JSONSchema.Text == "" {
		return false
	}
	return s.Convert == nil || s.Convert.Avro == nil || s.Convert.Avro.Schema.Text != ""
}

func convert(c *v1alpha1.Convert) *contract.Convert {
	out := &contract.Convert{From: string(c.From), To: string(c.To)}
	if c.Charset != nil {
		out.FromCharset, out.ToCharset = string(c.Charset.From), string(c.Charset.To)
	}
	if x := c.XML; x != nil {
		out.XML = &contract.ConvertXML{Root: string(x.Root), Item: string(x.Item), Arrays: elementNames(x.Arrays), Order: elementNames(x.Order)}
	}
	if t := c.CSV; t != nil {
		out.CSV = &contract.CSVOptions{
			Delimiter: t.Delimiter, NoHeader: t.Header == v1alpha1.CSVHeaderAbsent, Columns: t.Columns,
			QuoteAll: t.Quotes == v1alpha1.CSVQuotesAll, LF: t.LineEnd == v1alpha1.CSVLineEndLF,
		}
	}
	if a := c.Avro; a != nil {
		out.Avro = &contract.AvroOptions{Schema: Schema(&a.Schema), SingleObject: a.Encoding == v1alpha1.AvroEncodingSingleObject}
	}
	return out
}

func elementNames(names []v1alpha1.ElementName) []string {
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	return out
}
