package schema

import (
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
)

// decimal is a number as it is written: 0.digits times ten to the power of exponent+len(digits), that is, digits times ten to the exponent.
// digits have no zero at either end; none at all means zero. Comparing costs no more than reading.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

// maxWritten exponent: beyond it, numbers of one sign are taken for equal in size.
const maxWritten = 1 << 40

// decimalOf a number of JSON; false for anything else.
func decimalOf(v any) (decimal, bool) {
	switch v := v.(type) {
	case int:
		return parseDecimal(strconv.Itoa(v)), true
	case json.Number:
		return parseDecimal(string(v)), true
	case float64: // which no decoder here gives, but jq may
		return parseDecimal(strconv.FormatFloat(v, 'g', -1, 64)), true
	default:
		return decimal{}, false
	}
}

func parseDecimal(text string) decimal {
	d := decimal{}
	text, d.negative = strings.CutPrefix(text, "-")
	mantissa := text
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		e, err := strconv.ParseInt(strings.TrimPrefix(text[i+1:], "+"), 10, 64)
		if err != nil && strings.HasPrefix(text[i+1:], "-") {
			e = -maxWritten
		} else if err != nil {
			e = maxWritten
		}
		d.exponent = int(min(max(e, -maxWritten), maxWritten))
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	d.exponent -= len(fraction)
	if fraction != "" {
		whole += fraction
	}
	trimmed := strings.TrimRight(whole, "0")
	d.exponent += len(whole) - len(trimmed)
	d.digits = strings.TrimLeft(trimmed, "0")
	if d.digits == "" {
		return decimal{}
	}
	return d
}

func (d decimal) isInteger() bool { return d.exponent >= 0 }

// compare gives -1, 0 or 1.
func (d decimal) compare(x decimal) int {
	switch {
	case d.sign() != x.sign():
		return compareInts(d.sign(), x.sign())
	case d.digits == "":
		return 0
	}
	c := compareInts(d.exponent+len(d.digits), x.exponent+len(x.digits))
	if c == 0 {
		c = strings.Compare(d.digits, x.digits) // as fractions: a prefix of another is the smaller one
	}
	return c * d.sign()
}

func (d decimal) sign() int {
	switch {
	case d.digits == "":
		return 0
	case d.negative:
		return -1
	default:
		return 1
	}
}

func compareInts(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// bound is a minimum or maximum.
type bound struct {
	text      string
	exclusive bool
	limit     decimal
	// whole is the limit where it is an int.
	whole int
	isInt bool
}

func newBound(r *big.Rat, exclusive bool) *bound {
	b := &bound{text: ratText(r), exclusive: exclusive}
	b.limit = parseDecimal(b.text)
	if i, err := strconv.Atoi(b.text); err == nil {
		b.whole, b.isInt = i, true
	}
	return b
}

// ratText of a number that a schema has written, exactly: it has finitely many digits.
func ratText(r *big.Rat) string {
	digits, _ := r.FloatPrec()
	return r.FloatString(digits)
}

// compare a number with the limit.
func (b *bound) compare(v any) (int, bool) {
	if i, ok := v.(int); ok && b.isInt {
		return compareInts(i, b.whole), true
	}
	d, ok := decimalOf(v)
	return d.compare(b.limit), ok
}

// factor is a multipleOf.
type factor struct {
	text  string
	whole int
	rat   *big.Rat
}

func factorOf(r *big.Rat) *factor {
	if r == nil || r.Sign() == 0 {
		return nil
	}
	f := &factor{text: ratText(r), rat: r}
	if i, err := strconv.Atoi(f.text); err == nil {
		f.whole = i
	}
	return f
}

// divides tells whether a number is a multiple. One too long to compute with is none.
func (f *factor) divides(v any) bool {
	if i, ok := v.(int); ok && f.whole != 0 {
		return i%f.whole == 0
	}
	d, ok := decimalOf(v)
	if !ok {
		return true
	}
	const longest = 1000
	if len(d.digits) > longest || d.exponent > longest || d.exponent < -longest {
		return false
	}
	r, ok := new(big.Rat).SetString(d.digits + "e" + strconv.Itoa(d.exponent))
	if d.digits == "" {
		return true
	}
	return ok && r.Quo(r, f.rat).IsInt()
}
