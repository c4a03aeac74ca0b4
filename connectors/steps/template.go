package steps

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// Template is a compiled text with expressions in braces. It is safe for concurrent use.
type Template struct {
	parts []part
}

// part is a piece of text, or an expression.
type part struct {
	text  string
	value *Value
	at    string
}

// CompileTemplate compiles a text in which `{expression}` stands for the value of a CEL expression, and `{{` and `}}` for plain
// braces. Braces within an expression's strings and maps are the expression's own; one that begins with a map needs a space:
// `{ {'a': 1}['a'] }`. The error is an *Error whose position counts in the whole text.
func CompileTemplate(text string) (*Template, error) {
	t := &Template{}
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			t.parts = append(t.parts, part{text: plain.String()})
			plain.Reset()
		}
	}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case (c == '{' || c == '}') && i+1 < len(text) && text[i+1] == c:
			plain.WriteByte(c)
			i += 2
		case c == '}':
			return nil, errorAt(text, i, "'}' without '{': a plain brace is written '}}'")
		case c == '{':
			end := expressionEnd(text, i+1)
			if end < 0 {
				return nil, errorAt(text, i, "'{' is never closed: a plain brace is written '{{'")
			}
			v, err := CompileValue(text[i+1 : end])
			if err != nil {
				return nil, shift(err, text, i+1)
			}
			flush()
			t.parts = append(t.parts, part{value: v, at: strings.TrimSpace(text[i+1 : end])})
			i = end + 1
		default:
			plain.WriteByte(c)
			i++
		}
	}
	flush()
	return t, nil
}

// shift moves an Error of an expression that begins at the offset to its place in the whole text.
func shift(err error, text string, offset int) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	base := errorAt(text, offset, "")
	if e.Line == 1 {
		return &Error{base.Line, base.Column + e.Column - 1, e.Message}
	}
	return &Error{base.Line + e.Line - 1, e.Column, e.Message}
}

// expressionEnd finds the brace that closes the CEL expression that begins at the offset, or -1. It knows CEL's strings, comments
// and nested braces.
func expressionEnd(text string, at int) int {
	depth := 0
	for i := at; i < len(text); {
		switch c := text[i]; c {
		case '{':
			depth++
			i++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
			i++
		case '"', '\'':
			if i = stringEnd(text, i, isRaw(text, at, i)); i < 0 {
				return -1
			}
		case '/':
			if strings.HasPrefix(text[i:], "//") {
				n := strings.IndexByte(text[i:], '\n')
				if n < 0 {
					return -1
				}
				i += n
			}
			i++
		default:
			i++
		}
	}
	return -1
}

// isRaw tells whether the quote at i opens a raw string: r'..', br".." and so on, where the letters are no end of a name.
func isRaw(text string, from, i int) bool {
	start := i
	for start > from && isLetter(text[start-1]) {
		start--
	}
	switch strings.ToLower(text[start:i]) {
	case "r", "br", "rb":
		return true
	}
	return false
}

func isLetter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf
}

// stringEnd gives the offset after the CEL string whose quote is at i, or -1.
func stringEnd(text string, i int, raw bool) int {
	quote := text[i : i+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(text[i:], triple) {
		quote = triple
	}
	for i += len(quote); i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], quote):
			return i + len(quote)
		case text[i] == '\\' && !raw:
			i += 2
		default:
			i++
		}
	}
	return -1
}

// Expand fills the template in. escape is applied to every value that is inserted, not to the text between; it may be nil. A value
// must be a string, number, boolean or timestamp, and a field that the message does not have is an error.
func (t *Template) Expand(m *sdk.Message, escape func(string) string) (string, error) {
	if len(t.parts) == 1 && t.parts[0].value == nil {
		return t.parts[0].text, nil
	}
	var out strings.Builder
	for i := range t.parts {
		p := &t.parts[i]
		if p.value == nil {
			out.WriteString(p.text)
			continue
		}
		s, err := p.expand(m)
		if err != nil {
			return "", fmt.Errorf("{%s}: %w", p.at, err)
		}
		if escape != nil {
			s = escape(s)
		}
		out.WriteString(s)
	}
	return out.String(), nil
}

func (p *part) expand(m *sdk.Message) (string, error) {
	v, err := p.value.Eval(m)
	if err != nil {
		return "", err
	}
	return scalarText(v)
}

// scalarText writes a value that is no list and no object.
func scalarText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case json.Number:
		return string(v), nil
	case float64:
		return formatFloat(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	case nil:
		return "", errors.New("is null")
	case []any:
		return "", errors.New("is a list, not a string, number, boolean or timestamp")
	case map[string]any:
		return "", errors.New("is an object, not a string, number, boolean or timestamp")
	default:
		return "", fmt.Errorf("is a %T, not a string, number, boolean or timestamp", v)
	}
}

// formatFloat writes a number as JSON does: no exponent where people would write none.
func formatFloat(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
