package postgres

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// text is a value as PostgreSQL reads it; the server casts it to the column's type.
type text struct {
	s    string
	null bool
}

var errText = errors.New("PostgreSQL cannot hold the character NUL, or text that is not UTF-8")

// encode a value for a column: nil, bool, any number, string, []byte, time.Time, time.Duration, []any or map[string]any.
func encode(v any, c *column) (text, error) {
	if v == nil {
		return text{null: true}, nil
	}
	if c.isJSON() {
		return encodeJSON(v)
	}
	switch v := v.(type) {
	case string:
		if c.name == "bytea" {
			return text{s: `\x` + hex.EncodeToString([]byte(v))}, nil
		}
		return checked(v)
	case []byte:
		if c.name == "bytea" {
			return text{s: `\x` + hex.EncodeToString(v)}, nil
		}
		return checked(string(v))
	case []any:
		if c.array {
			return encodeArray(v)
		}
		if c.category == 'S' {
			return encodeJSON(v)
		}
		return text{}, fmt.Errorf("a list does not fit a column of type %s", c.name)
	case map[string]any:
		if c.category == 'S' {
			return encodeJSON(v)
		}
		return text{}, fmt.Errorf("an object does not fit a column of type %s", c.name)
	}
	if n, ok := v.(json.Number); ok && c.category == 'N' && strings.HasPrefix(c.name, "int") {
		v = whole(n)
	}
	s, err := scalar(v)
	return text{s: s}, err
}

// whole writes a number that is an integer as one: 5.0 and 5e0 are 5, which an integer column takes.
func whole(n json.Number) any {
	if f, err := n.Float64(); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return n
}

func checked(s string) (text, error) {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return text{}, errText
	}
	return text{s: s}, nil
}

// scalar is the text of a value that is neither string nor made of others.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		if math.IsInf(v, 0) {
			return strings.TrimPrefix(strconv.FormatFloat(v, 'f', -1, 64), "+") + "inity", nil
		}
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case json.Number:
		return v.String(), nil
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"), nil
	case time.Duration:
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64) + " seconds", nil
	default:
		return "", fmt.Errorf("a value of type %T fits no column", v)
	}
}

// encodeJSON writes any value as JSON; a string becomes a JSON string.
func encodeJSON(v any) (text, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(jsonValue(v)); err != nil {
		return text{}, fmt.Errorf("it cannot be written as JSON: %w", err)
	}
	return text{s: string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))}, nil
}

// jsonValue writes a duration as the text that CEL gives it; encoding/json has the other types right.
func jsonValue(v any) any {
	if d, ok := v.(time.Duration); ok {
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
	}
	return v
}

// encodeArray writes a list as an array literal.
func encodeArray(list []any) (text, error) {
	var b []byte
	b = append(b, '{')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendElement(b, v); err != nil {
			return text{}, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return text{s: string(append(b, '}'))}, nil
}

func appendElement(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "NULL"...), nil
	case []any:
		inner, err := encodeArray(v)
		return append(b, inner.s...), err
	case map[string]any:
		t, err := encodeJSON(v)
		return appendQuoted(b, t.s), err
	case string:
		t, err := checked(v)
		return appendQuoted(b, t.s), err
	case []byte:
		return appendQuoted(b, `\x`+hex.EncodeToString(v)), nil
	default:
		s, err := scalar(v)
		return appendQuoted(b, s), err
	}
}

// appendQuoted appends an element of an array literal.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
