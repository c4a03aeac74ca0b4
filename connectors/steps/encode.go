package steps

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// maxResult bounds the body that a step makes, in bytes. A program can share a value with itself, and write with few words what takes more
// room than there is.
const maxResult = 32 << 20

// encoder writes JSON: members sorted by name, numbers as they were read, text as it is but for what JSON escapes. It takes what jq and CEL
// give. Times are RFC 3339, durations seconds ("90s"), bytes base64.
type encoder struct {
	out []byte
	// members of the objects that are being written.
	members []member
	// finite: a number that is none is an error, as in CEL. jq writes null, and the largest number for infinity.
	finite bool
}

type member struct {
	name  string
	value any
}

var encoders = sync.Pool{New: func() any { return &encoder{} }}

// encodeJSON gives the value as a document of its own.
func encodeJSON(v any, finite bool) ([]byte, error) {
	e, _ := encoders.Get().(*encoder)
	e.finite = finite
	err := e.value(v, 0)
	var out []byte
	if err == nil {
		out = bytes.Clone(e.out)
	}
	if cap(e.out) <= 64<<10 {
		clear(e.members[:cap(e.members)])
		e.out, e.members = e.out[:0], e.members[:0]
		encoders.Put(e)
	}
	return out, err
}

func (e *encoder) value(v any, depth int) error {
	switch v := v.(type) {
	case nil:
		e.out = append(e.out, "null"...)
	case bool:
		e.out = strconv.AppendBool(e.out, v)
	case int:
		e.out = strconv.AppendInt(e.out, int64(v), 10)
	case int64:
		e.out = strconv.AppendInt(e.out, v, 10)
	case uint64:
		e.out = strconv.AppendUint(e.out, v, 10)
	case float64:
		return e.real(v)
	case *big.Int:
		e.out = v.Append(e.out, 10)
	case json.Number:
		e.out = append(e.out, v...)
	case document:
		e.out = append(e.out, v...)
	case string:
		e.text(v)
	case []any:
		return e.array(v, depth+1)
	case map[string]any:
		return e.object(v, depth+1)
	case []byte:
		e.text(base64.StdEncoding.EncodeToString(v))
	case time.Time:
		e.text(v.UTC().Format(time.RFC3339Nano))
	case time.Duration:
		e.text(strconv.FormatFloat(v.Seconds(), 'f', -1, 64) + "s")
	default:
		return fmt.Errorf("the result holds a %T, which is no JSON", v)
	}
	if len(e.out) > maxResult {
		return errResult
	}
	return nil
}

var (
	errResult = fmt.Errorf("the result is larger than %d MiB", maxResult>>20)
	errDepth  = fmt.Errorf("the result is nested deeper than %d", sdk.MaxDepth)
)

func (e *encoder) array(a []any, depth int) error {
	if depth > sdk.MaxDepth {
		return errDepth
	}
	e.out = append(e.out, '[')
	for i, x := range a {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if err := e.value(x, depth); err != nil {
			return err
		}
	}
	e.out = append(e.out, ']')
	return nil
}

func (e *encoder) object(m map[string]any, depth int) error {
	if depth > sdk.MaxDepth {
		return errDepth
	}
	from := len(e.members)
	for name, value := range m {
		e.members = append(e.members, member{name, value})
	}
	slices.SortFunc(e.members[from:], func(a, b member) int { return strings.Compare(a.name, b.name) })
	separator := byte('{')
	for i := from; i < from+len(m); i++ {
		e.out = append(e.out, separator)
		e.text(e.members[i].name)
		e.out = append(e.out, ':')
		if err := e.value(e.members[i].value, depth); err != nil {
			return err
		}
		separator = ','
	}
	if len(m) == 0 {
		e.out = append(e.out, '{')
	}
	e.members = e.members[:from]
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) real(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		if e.finite {
			return errors.New("the result holds a number that is infinite, or none")
		}
		if math.IsNaN(f) {
			e.out = append(e.out, "null"...)
			return nil
		}
		f = math.Copysign(math.MaxFloat64, f)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	e.out = strconv.AppendFloat(e.out, f, format, -1, 64)
	if n := len(e.out); format == 'e' && n >= 4 && e.out[n-4] == 'e' && e.out[n-3] == '-' && e.out[n-2] == '0' {
		e.out[n-2] = e.out[n-1] // e-09 is written e-9
		e.out = e.out[:n-1]
	}
	return nil
}

const hexDigits = "0123456789abcdef"

func (e *encoder) text(s string) {
	e.out = appendText(e.out, s)
}

// appendText writes a text with its quotes.
func appendText(out []byte, s string) []byte {
	out = append(out, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		out = append(out, s[from:i]...)
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\b':
			out = append(out, `\b`...)
		case c == '\f':
			out = append(out, `\f`...)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\r':
			out = append(out, `\r`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c >= utf8.RuneSelf:
			out = append(out, `\ufffd`...)
		default:
			out = append(out, `\u00`...)
			out = append(out, hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(out, s[from:]...), '"')
}
