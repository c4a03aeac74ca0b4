package steps

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

type scalarKind uint8

const (
	unknown scalarKind = iota
	null
	boolean
	text
	// integer, natural and double are CEL's int, uint and double; in this order.
	integer
	natural
	double
)

// scalar is a value that a condition compares: a literal, or what a message holds.
type scalar struct {
	kind  scalarKind
	truth bool
	// text, or raw if that is not nil: the bytes of the body.
	text string
	raw  []byte
	i    int64
	u    uint64
	f    float64
}

// readText of a body, given with its quotes. plain text means itself.
func readText(quoted []byte, plain bool) scalar {
	raw := quoted[1 : len(quoted)-1]
	if plain || bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return scalar{kind: text, raw: raw}
	}
	v, err := sdk.DecodeJSON(quoted)
	s, ok := v.(string)
	if err != nil || !ok {
		return scalar{}
	}
	return scalar{kind: text, text: s}
}

// readNumber as sdk.DecodeJSON and number make it a CEL value.
func readNumber(raw []byte, isInteger bool) scalar {
	if isInteger && string(raw) != "-0" {
		if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return scalar{kind: integer, i: i}
		}
		if u, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
			return scalar{kind: natural, u: u}
		}
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return scalar{}
	}
	return scalar{kind: double, f: f}
}

// compare a message's value with a literal.
func (x *scalar) compare(op comparison, literal *scalar) verdict {
	switch {
	case x.kind == text && literal.kind == text:
		return x.compareText(op, literal.text)
	case x.kind >= integer && literal.kind >= integer:
		return ordered(op, x.order(literal))
	case op == equal:
		return verdictOf(x.kind == literal.kind && x.truth == literal.truth)
	case op == unequal:
		return verdictOf(x.kind != literal.kind || x.truth != literal.truth)
	}
	return unsure // there is no order between kinds, nor between booleans that anybody would ask for
}

func (x *scalar) compareText(op comparison, want string) verdict {
	switch {
	case op == equal && x.raw != nil:
		return verdictOf(string(x.raw) == want)
	case op == equal:
		return verdictOf(x.text == want)
	case op == unequal && x.raw != nil:
		return verdictOf(string(x.raw) != want)
	case op == unequal:
		return verdictOf(x.text != want)
	case x.raw == nil:
		return ordered(op, strings.Compare(x.text, want))
	case string(x.raw) < want:
		return ordered(op, -1)
	default:
		return ordered(op, 1-int(verdictOf(string(x.raw) == want)))
	}
}

func ordered(op comparison, order int) verdict {
	switch op {
	case equal:
		return verdictOf(order == 0)
	case unequal:
		return verdictOf(order != 0)
	case less:
		return verdictOf(order < 0)
	case lessOrEqual:
		return verdictOf(order <= 0)
	case greater:
		return verdictOf(order > 0)
	default:
		return verdictOf(order >= 0)
	}
}

// order of two numbers as CEL has it across its types: below, at or above zero.
func (x *scalar) order(y *scalar) int {
	if x.kind > y.kind {
		return -y.order(x)
	}
	switch {
	case y.kind == integer:
		return orderOf(x.i, y.i)
	case x.kind == natural && y.kind == natural:
		return orderOf(x.u, y.u)
	case x.kind == double:
		return orderOf(x.f, y.f)
	case y.kind == natural: // x is an integer
		if x.i < 0 || y.u > math.MaxInt64 {
			return -1
		}
		return orderOf(x.i, int64(y.u))
	case x.kind == integer: // y is double
		return -orderReal(y.f, math.MinInt64, math.MaxInt64, float64(x.i))
	default: // x is natural, y is double
		return -orderReal(y.f, 0, math.MaxUint64, float64(x.u))
	}
}

// orderReal compares with a whole number that lies between lowest and highest.
func orderReal(f, lowest, highest, whole float64) int {
	switch {
	case f < lowest:
		return -1
	case f > highest:
		return 1
	default:
		return orderOf(f, whole)
	}
}

func orderOf[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}
