package rawjson

import (
	"encoding/binary"
	"math/bits"
)

// MaxDepth of nested arrays and objects.
const MaxDepth = 256

// Invalid is the offset after what is no JSON.
const Invalid = -1

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// Space steps over white space.
func Space(doc []byte, at int) int {
	for at < len(doc) && doc[at] <= ' ' {
		switch doc[at] {
		case ' ', '\t', '\n', '\r':
			at++
		default:
			return at
		}
	}
	return at
}

// String steps over the string whose opening quote is at doc[at]. plain says that what is between the quotes means itself: no escapes,
// nothing but ASCII.
func String(doc []byte, at int) (end int, plain bool) {
	i := at + 1
	var beyond uint64
	for i+8 <= len(doc) {
		x := binary.LittleEndian.Uint64(doc[i:])
		quote, escape := x^(ones*'"'), x^(ones*'\\')
		// The lowest bit that is set is at the first quote, escape or control character; bits above it may be wrong.
		stop := ((quote-ones)&^quote | (escape-ones)&^escape | (x-ones*' ')&^x) & highs
		if stop == 0 {
			beyond |= x
			i += 8
			continue
		}
		beyond |= x & (stop&-stop - 1)
		i += bits.TrailingZeros64(stop) >> 3
		if doc[i] == '"' {
			return i + 1, beyond&highs == 0
		}
		return escaped(doc, i, beyond&highs == 0)
	}
	return escaped(doc, i, beyond&highs == 0)
}

// escaped is the rest of String, byte by byte.
func escaped(doc []byte, i int, plain bool) (end int, isPlain bool) {
	for i < len(doc) {
		switch c := doc[i]; {
		case c == '"':
			return i + 1, plain
		case c == '\\':
			n := escapeLength(doc[i:])
			if n == 0 {
				return Invalid, false
			}
			i += n
			plain = false
		case c < ' ':
			return Invalid, false
		default:
			plain = plain && c < 0x80
			i++
		}
	}
	return Invalid, false
}

// escapeLength of an escape sequence, 0 if it is none.
func escapeLength(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(s) >= 6 && isHex(s[2]) && isHex(s[3]) && isHex(s[4]) && isHex(s[5]) {
			return 6
		}
	}
	return 0
}

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func isDigit(c byte) bool { return c-'0' < 10 }

func digits(doc []byte, at int) int {
	for at < len(doc) && isDigit(doc[at]) {
		at++
	}
	return at
}

// Number steps over the number that begins at doc[at]. integer says that it has neither fraction nor exponent.
func Number(doc []byte, at int) (end int, integer bool) {
	i := at
	if i < len(doc) && doc[i] == '-' {
		i++
	}
	from := i
	if i < len(doc) && doc[i] == '0' {
		i++
	} else if i = digits(doc, i); i == from {
		return Invalid, false
	}
	integer = true
	if i < len(doc) && doc[i] == '.' {
		integer = false
		from = i + 1
		if i = digits(doc, from); i == from {
			return Invalid, false
		}
	}
	if i < len(doc) && (doc[i] == 'e' || doc[i] == 'E') {
		integer = false
		if i++; i < len(doc) && (doc[i] == '+' || doc[i] == '-') {
			i++
		}
		from = i
		if i = digits(doc, from); i == from {
			return Invalid, false
		}
	}
	return i, integer
}

// scalar steps over a value that is neither array nor object.
func scalar(doc []byte, at int) int {
	if at >= len(doc) {
		return Invalid
	}
	var end int
	switch c := doc[at]; c {
	case '"':
		end, _ = String(doc, at)
	case 't':
		end = word(doc, at, "true")
	case 'f':
		end = word(doc, at, "false")
	case 'n':
		end = word(doc, at, "null")
	default:
		end, _ = Number(doc, at)
	}
	return end
}

func word(doc []byte, at int, w string) int {
	if len(doc)-at < len(w) || string(doc[at:at+len(w)]) != w {
		return Invalid
	}
	return at + len(w)
}

// Name steps over a member's name and its colon; doc[at] must be the opening quote. The name is doc[at+1:end-1].
func Name(doc []byte, at int) (end, value int, plain bool) {
	if at >= len(doc) || doc[at] != '"' {
		return Invalid, Invalid, false
	}
	end, plain = String(doc, at)
	if end == Invalid {
		return Invalid, Invalid, false
	}
	i := Space(doc, end)
	if i >= len(doc) || doc[i] != ':' {
		return Invalid, Invalid, false
	}
	return end, Space(doc, i+1), plain
}
