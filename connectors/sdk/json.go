package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/metip/metip/connectors/internal/rawjson"
)

// MaxDepth of nested arrays and objects in a JSON body.
const MaxDepth = rawjson.MaxDepth

// DecodeJSON decodes one JSON document into nil, bool, string, int, json.Number, []any and map[string]any. Numbers lose nothing:
// an integer that fits 64 bits is an int, every other number stays the text that it was. Nesting beyond MaxDepth is an error.
// These are the types that gojq and CEL (package steps) take as they are. A document that would take more than MaxDecoded is an error.
func DecodeJSON(data []byte) (any, error) {
	v, _, err := decodeJSON(data)
	return v, err
}

// MaxDecoded is about how much memory a decoded document may take, in bytes. Usually that is two or three times what it has as text, but small objects
// take fifty times as much: what fits a pod as text must not burst it.
const MaxDecoded = 64 << 20

// What values take, about: one in its array or object, with what is left behind as that grows; and arrays and objects themselves, which have room
// for eight members at once.
const (
	costValue, costArray, costObject, costMembers = 40, 24, 48, 264
)

var errDecoded = fmt.Errorf("JSON takes more than %d MiB of memory once it is decoded: it holds too many small values", MaxDecoded>>20)

// decodeJSON is DecodeJSON, and tells about how much memory the document takes.
func decodeJSON(data []byte) (any, int, error) {
	d, _ := decoders.Get().(*decoder)
	d.in = data
	v, err := d.document()
	cost := d.cost + len(d.text)
	// What is kept for the next document holds on to nothing of this one.
	*d = decoder{open: d.open[:0]}
	if clear(d.open[:cap(d.open)]); cap(d.open) <= 4*maxOpen {
		decoders.Put(d)
	}
	return v, cost, err
}

var decoders = sync.Pool{New: func() any { return &decoder{open: make([]member, 0, maxOpen)} }}

func (d *decoder) document() (any, error) {
	d.space()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	d.space()
	if d.at != len(d.in) {
		return nil, d.fail("unexpected data after the document")
	}
	return v, nil
}

// CheckJSON tells whether DecodeJSON would succeed, but for MaxDecoded, without making values.
func CheckJSON(data []byte) error {
	if rawjson.Valid(data) {
		return nil
	}
	_, err := DecodeJSON(data)
	if err == nil {
		err = errors.New("invalid JSON")
	}
	return err
}

var errDepth = fmt.Errorf("JSON is nested deeper than %d", MaxDepth)

// decoder is a recursive-descent parser of RFC 8259.
type decoder struct {
	in []byte
	at int
	// text is in as a string, once the first string is met: those without escapes are parts of it, and cost nothing each.
	text string
	// open holds what has been read of the small arrays and objects that are not yet closed, so that each is made in its size.
	open []member
	// cost of what has been read.
	cost int
}

// maxOpen members of one array or object in decoder.open; a larger one grows by itself.
const maxOpen = 32

// member of an object, or element of an array.
type member struct {
	name  string
	value any
}

func (d *decoder) fail(message string) error {
	return fmt.Errorf("JSON at byte %d: %s", d.at, message)
}

func (d *decoder) space() { d.at = rawjson.Space(d.in, d.at) }

func (d *decoder) value(depth int) (any, error) {
	if d.at == len(d.in) {
		return nil, d.fail("unexpected end")
	}
	if d.cost += costValue; d.cost > MaxDecoded {
		return nil, errDecoded
	}
	switch c := d.in[d.at]; c {
	case '{':
		return d.object(depth + 1)
	case '[':
		return d.array(depth + 1)
	case '"':
		return d.string()
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		if c == '-' || isDigit(c) {
			return d.number()
		}
		return nil, d.fail("unexpected " + strconv.QuoteRune(rune(c)))
	}
}

func (d *decoder) word(w string) error {
	if len(d.in)-d.at < len(w) || string(d.in[d.at:d.at+len(w)]) != w {
		return d.fail("expected " + w)
	}
	d.at += len(w)
	return nil
}

func (d *decoder) object(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	d.at++
	d.cost += costObject
	d.space()
	if d.next('}') {
		return map[string]any{}, nil
	}
	d.cost += costMembers
	var m map[string]any
	for from := len(d.open); ; {
		d.space()
		if d.at == len(d.in) || d.in[d.at] != '"' {
			return nil, d.fail("expected a member's name")
		}
		key, err := d.string()
		if err != nil {
			return nil, err
		}
		d.space()
		if !d.next(':') {
			return nil, d.fail("expected ':'")
		}
		d.space()
		value, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		if m != nil {
			m[key] = value
		} else if d.open = append(d.open, member{key, value}); len(d.open)-from == maxOpen {
			m = d.closeObject(from, 2*maxOpen)
		}
		d.space()
		if d.next('}') {
			if m == nil {
				m = d.closeObject(from, len(d.open)-from)
			}
			return m, nil
		}
		if !d.next(',') {
			return nil, d.fail("expected ',' or '}'")
		}
	}
}

// closeObject makes an object of what is open since from. The last of several members of one name counts.
func (d *decoder) closeObject(from, size int) map[string]any {
	m := make(map[string]any, size)
	for _, x := range d.open[from:] {
		m[x.name] = x.value
	}
	d.open = d.open[:from]
	return m
}

func (d *decoder) array(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	d.at++
	d.cost += costArray
	d.space()
	if d.next(']') {
		return []any{}, nil
	}
	var a []any
	for from := len(d.open); ; {
		d.space()
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		if a != nil {
			a = append(a, v)
		} else if d.open = append(d.open, member{value: v}); len(d.open)-from == maxOpen {
			a = d.closeArray(from, 2*maxOpen)
		}
		d.space()
		if d.next(']') {
			if a == nil {
				a = d.closeArray(from, len(d.open)-from)
			}
			return a, nil
		}
		if !d.next(',') {
			return nil, d.fail("expected ',' or ']'")
		}
	}
}

// closeArray makes an array of what is open since from.
func (d *decoder) closeArray(from, size int) []any {
	a := make([]any, 0, size)
	for _, x := range d.open[from:] {
		a = append(a, x.value)
	}
	d.open = d.open[:from]
	return a
}

func (d *decoder) next(c byte) bool {
	if d.at < len(d.in) && d.in[d.at] == c {
		d.at++
		return true
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (d *decoder) number() (any, error) {
	from := d.at
	end, integer := rawjson.Number(d.in, from)
	if end == rawjson.Invalid {
		return nil, d.fail("expected a digit")
	}
	d.at = end
	s := d.part(from, end)
	if integer && s != "-0" {
		if i, err := strconv.Atoi(s); err == nil {
			return i, nil
		}
	}
	return json.Number(s), nil
}

// part of the document as a string.
func (d *decoder) part(from, to int) string {
	if d.text == "" {
		d.text = string(d.in)
	}
	return d.text[from:to]
}

// string reads a string. Each invalid byte and lone surrogate becomes U+FFFD, as in encoding/json.
func (d *decoder) string() (string, error) {
	from := d.at + 1
	if end, plain := rawjson.String(d.in, d.at); plain {
		d.at = end
		return d.part(from, end-1), nil
	}
	for i := from; i < len(d.in); i++ {
		switch c := d.in[i]; {
		case c == '"':
			d.at = i + 1
			s := d.part(from, i)
			if !utf8.ValidString(s) {
				s = string([]rune(s))
			}
			return s, nil
		case c == '\\':
			d.at = i
			return d.escaped(from)
		case c < ' ':
			d.at = i
			return "", d.fail("control character in a string")
		}
	}
	d.at = len(d.in)
	return "", d.fail("unterminated string")
}

// escaped reads the rest of a string whose first escape is at d.at and whose first byte is at from.
func (d *decoder) escaped(from int) (string, error) {
	out := append(make([]byte, 0, d.at-from+32), d.in[from:d.at]...)
	for d.at < len(d.in) {
		c := d.in[d.at]
		switch {
		case c == '"':
			d.at++
			s := string(out)
			if !utf8.ValidString(s) {
				s = string([]rune(s))
			}
			return s, nil
		case c < ' ':
			return "", d.fail("control character in a string")
		case c != '\\':
			out = append(out, c)
			d.at++
			continue
		}
		d.at++
		if d.at == len(d.in) {
			break
		}
		c = d.in[d.at]
		d.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex4()
			if !ok {
				return "", d.fail("expected four hexadecimal digits")
			}
			if utf16.IsSurrogate(r) {
				r = d.lowSurrogate(r)
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", d.fail("invalid escape")
		}
	}
	return "", d.fail("unterminated string")
}

func (d *decoder) hex4() (rune, bool) {
	if len(d.in)-d.at < 4 {
		return 0, false
	}
	var r rune
	for _, c := range d.in[d.at : d.at+4] {
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	d.at += 4
	return r, true
}

// lowSurrogate joins high with the escape that follows, if that is its other half.
func (d *decoder) lowSurrogate(high rune) rune {
	back := d.at
	if len(d.in)-d.at >= 6 && d.in[d.at] == '\\' && d.in[d.at+1] == 'u' {
		d.at += 2
		if low, ok := d.hex4(); ok {
			if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
				return r
			}
		}
	}
	d.at = back
	return utf8.RuneError
}
