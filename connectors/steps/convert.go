package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// convertStep turns a body into another format, by way of JSON where it is neither from nor to it.
type convertStep struct {
	*contract.Convert
	xml  codec.XML
	csv  codec.CSV
	avro *codec.Avro
}

// textual tells the formats that are written in a character set.
func textual(format string) bool {
	return format == sdk.FormatText || format == sdk.FormatXML || format == contract.ConvertCSV
}

// compileConvert compiles a conversion. An error is a *FieldError.
func compileConvert(c *contract.Convert) (Step, error) {
	s := &convertStep{Convert: c}
	for _, side := range []struct{ field, format, charset string }{{"from", c.From, c.FromCharset}, {"to", c.To, c.ToCharset}} {
		switch side.format {
		case sdk.FormatJSON, sdk.FormatXML, sdk.FormatText, contract.ConvertCSV, contract.ConvertAvro:
		default:
			return nil, fieldError("convert."+side.field, side.format, "the format is none that this release knows")
		}
		if side.charset == "" {
			continue
		}
		if err := codec.CheckCharset(side.charset); err != nil {
			return nil, &FieldError{Field: "convert.charset." + side.field, Value: side.charset, Err: err}
		}
		if !textual(side.format) {
			return nil, fieldError("convert.charset."+side.field, side.charset, side.format+" is always UTF-8, or no text at all")
		}
	}
	if c.From == c.To && c.FromCharset == "" && c.ToCharset == "" {
		return nil, fieldError("convert.to", c.To, "the body is to stay as it is")
	}
	if x := c.XML; x != nil {
		s.xml = codec.XML{Root: x.Root, Item: x.Item, Arrays: x.Arrays, Order: x.Order}
		if err := s.xml.Check(); err != nil {
			return nil, &FieldError{Field: "convert.xml", Err: err}
		}
	}
	if t := c.CSV; t != nil {
		s.csv = codec.CSV{NoHeader: t.NoHeader, Columns: t.Columns, QuoteAll: t.QuoteAll, LF: t.LF}
		s.csv.Delimiter, _ = utf8.DecodeRuneInString(t.Delimiter)
		if t.Delimiter == "" {
			s.csv.Delimiter = 0
		}
		if err := s.csv.Check(); err != nil {
			return nil, &FieldError{Field: "convert.csv", Err: err}
		}
	}
	if c.From != contract.ConvertAvro && c.To != contract.ConvertAvro {
		return s, nil
	}
	if c.Avro == nil {
		return nil, &FieldError{Field: "convert.avro", Err: errors.New("Avro needs a schema")}
	}
	var err error
	if s.avro, err = codec.CompileAvro(c.Avro.Schema.Text, c.Avro.SingleObject); err != nil {
		return nil, &FieldError{Field: "convert.avro.schema." + sourceOf(&c.Avro.Schema), Err: err}
	}
	return s, nil
}

func fieldError(field, value, message string) error {
	return &FieldError{Field: field, Value: value, Err: errors.New(message)}
}

// Apply implements Step.
func (s *convertStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	if m.Claim != nil {
		return false, sdk.ErrTooLarge
	}
	m.Work()
	body, err := s.convert(m.Data)
	if err != nil {
		return false, err
	}
	m.SetData(body)
	m.Format, m.ContentType = s.made()
	return true, nil
}

func (s *convertStep) convert(body []byte) ([]byte, error) {
	if s.From == s.To {
		return s.recode(body)
	}
	body, err := s.decode(body)
	if err != nil || s.To == sdk.FormatJSON {
		return body, err
	}
	switch s.To {
	case sdk.FormatXML:
		return s.xml.JSONToXML(body, s.ToCharset)
	case contract.ConvertAvro:
		return s.avro.JSONToAvro(body)
	case contract.ConvertCSV:
		body, err = s.csv.JSONToCSV(body)
	default:
		body, err = codec.JSONToText(body)
	}
	if err != nil {
		return nil, err
	}
	return codec.Encode(body, s.ToCharset)
}

// decode into JSON.
func (s *convertStep) decode(body []byte) ([]byte, error) {
	switch s.From {
	case sdk.FormatJSON:
		return body, nil
	case sdk.FormatXML:
		return s.xml.XMLToJSON(body, s.FromCharset)
	case contract.ConvertAvro:
		return s.avro.AvroToJSON(body)
	}
	body, err := codec.Decode(body, s.FromCharset)
	switch {
	case err != nil:
		return nil, err
	case s.From == contract.ConvertCSV:
		return s.csv.CSVToJSON(body)
	default:
		return codec.TextToJSON(body)
	}
}

// recode into another character set.
func (s *convertStep) recode(body []byte) ([]byte, error) {
	if s.From == sdk.FormatXML {
		return codec.RecodeXML(body, s.FromCharset, s.ToCharset)
	}
	body, err := codec.Decode(body, s.FromCharset)
	if err != nil {
		return nil, err
	}
	return codec.Encode(body, s.ToCharset)
}

// made says what the body is to those who come after: in another character set than UTF-8, no format of theirs.
func (s *convertStep) made() (format, contentType string) {
	switch s.To {
	case sdk.FormatJSON:
		return sdk.FormatJSON, "application/json"
	case contract.ConvertAvro:
		return sdk.FormatBinary, "application/avro"
	case sdk.FormatXML:
		format, contentType = sdk.FormatXML, "application/xml"
	case contract.ConvertCSV:
		format, contentType = sdk.FormatText, "text/csv"
	default:
		format, contentType = sdk.FormatText, "text/plain"
	}
	charset := s.ToCharset
	switch {
	case charset == "" || strings.EqualFold(charset, codec.UTF8):
		charset = "utf-8"
	case !strings.EqualFold(charset, "US-ASCII"):
		format = sdk.FormatBinary
	}
	return format, fmt.Sprintf("%s; charset=%s", contentType, charset)
}
