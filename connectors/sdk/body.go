package sdk

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Formats of a body.
const (
	FormatJSON   = "JSON"
	FormatXML    = "XML"
	FormatText   = "Text"
	FormatBinary = "Binary"
)

// Body is Data decoded by Format, once: a JSON document as DecodeJSON gives it, XML and Text as a string, Binary as []byte.
// It is shared: a caller does not change what it gets. Of a message with a Claim it is ErrTooLarge.
func (m *Message) Body() (any, error) {
	if m.Claim != nil {
		return nil, ErrTooLarge
	}
	if !m.decoded {
		if m.before != nil {
			m.before()
		}
		var cost int
		m.body, cost, m.bodyErr = decodeBody(m.Format, m.Data)
		m.decoded = true
		if m.after != nil {
			m.after(len(m.Data), cost)
		}
	}
	return m.body, m.bodyErr
}

// maxPeeks of Undecoded: to read two fields' worth costs about as much as to decode.
const maxPeeks = 2

// Undecoded gives a JSON body's bytes to whoever wants no more than a few fields of it, while it is cheaper to look for them there than to
// call Body: until Body is called, or this for the third time.
func (m *Message) Undecoded() (data []byte, ok bool) {
	if m.Claim != nil || m.decoded || m.peeked >= maxPeeks || m.Format != FormatJSON && m.Format != "" {
		return nil, false
	}
	m.peeked++
	return m.Data, true
}

// SetData replaces Data, and forgets what Body decoded.
func (m *Message) SetData(data []byte) {
	m.Data, m.body, m.bodyErr, m.decoded, m.peeked = data, nil, nil, false, 0
}

// decodeBody tells besides about how much memory the value takes.
func decodeBody(format string, data []byte) (v any, cost int, err error) {
	switch format {
	case FormatJSON, "":
		if v, cost, err = decodeJSON(data); err != nil {
			return nil, 0, bodyError(err)
		}
		return v, cost, nil
	case FormatXML, FormatText:
		if !utf8.Valid(data) {
			return nil, 0, fmt.Errorf("the body is not %s: it is not valid UTF-8", format)
		}
		return string(data), len(data), nil
	case FormatBinary:
		return data, 0, nil
	default:
		return nil, 0, fmt.Errorf("unknown format %q", format)
	}
}

func bodyError(err error) error {
	if errors.Is(err, errDecoded) {
		return fmt.Errorf("the body: %w", err)
	}
	return fmt.Errorf("the body is not JSON: %w", err)
}

// CheckFormat tells whether a body is in the format: what a source refuses at the door. JSON must be one document, at most MaxDepth deep;
// Text must be UTF-8; of XML, being UTF-8 and beginning with `<` is all that is asked.
func CheckFormat(format string, data []byte) error {
	switch format {
	case FormatJSON, "":
		if err := CheckJSON(data); err != nil {
			return fmt.Errorf("the body is not JSON: %w", err)
		}
	case FormatText:
		if !utf8.Valid(data) {
			return errors.New("the body is not Text: it is not valid UTF-8")
		}
	case FormatXML:
		return checkXML(data)
	}
	return nil
}

func checkXML(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("the body is not XML: it is not valid UTF-8")
	}
	if len(data) >= 3 && string(data[:3]) == "\ufeff" {
		data = data[3:]
	}
	for _, c := range data {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '<':
			return nil
		}
		break
	}
	return errors.New("the body is not XML: it does not begin with '<'")
}
