package http

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// validJSON tells whether sdk.CheckJSON would take a document that is UTF-8, in one pass that stops at the first doubt. It is the fast path
// of every request: on false, sdk.CheckJSON has the last word and the error's text.
func validJSON(doc []byte) bool {
	v := validator{doc: doc}
	return v.valid() && (v.ascii() || utf8.Valid(doc))
}

type validator struct {
	doc []byte
	at  int
	// objects has a bit for each open container: set for an object.
	objects [sdk.MaxDepth/64 + 1]uint64
	depth   int
	high    bool // a byte above 0x7f was seen
}

func (v *validator) ascii() bool { return !v.high }

func (v *validator) valid() bool {
	for {
		// A value begins.
		if v.at = skipSpace(v.doc, v.at); v.at >= len(v.doc) {
			return false
		}
		switch c := v.doc[v.at]; {
		case c == '"':
			if !v.text() {
				return false
			}
		case c == '{' || c == '[':
			empty, ok := v.open(c)
			if !ok {
				return false
			}
			if !empty {
				continue
			}
		case c == '-' || c >= '0' && c <= '9':
			if !v.number() {
				return false
			}
		case !v.word():
			return false
		}
		// A value has ended: close what ends with it, or go on to the next.
		more, ok := v.next()
		if !more {
			return ok
		}
	}
}

// open a container, and read the first member's name. An empty one is closed again.
func (v *validator) open(c byte) (empty, ok bool) {
	if v.depth == sdk.MaxDepth {
		return false, false
	}
	bit := uint64(1) << (v.depth & 63)
	if v.objects[v.depth>>6] &^= bit; c == '{' {
		v.objects[v.depth>>6] |= bit
	}
	v.depth++
	if v.at = skipSpace(v.doc, v.at+1); v.at >= len(v.doc) {
		return false, false
	}
	if v.doc[v.at] == c+2 { // '{' and '}', '[' and ']' are two apart
		v.depth--
		v.at++
		return true, true
	}
	return false, c == '[' || v.name()
}

// next closes containers and steps over a comma; more says that a value must follow. Otherwise the document has ended, well or not.
func (v *validator) next() (more, ok bool) {
	for {
		v.at = skipSpace(v.doc, v.at)
		if v.depth == 0 {
			return false, v.at == len(v.doc)
		}
		if v.at >= len(v.doc) {
			return false, false
		}
		object := v.objects[(v.depth-1)>>6]>>((v.depth-1)&63)&1 == 1
		switch c := v.doc[v.at]; {
		case c == ',':
			v.at = skipSpace(v.doc, v.at+1)
			ok := !object || v.name()
			return ok, false
		case c == '}' && object, c == ']' && !object:
			v.depth--
			v.at++
		default:
			return false, false
		}
	}
}

// name of a member, and its colon.
func (v *validator) name() bool {
	if v.at >= len(v.doc) || v.doc[v.at] != '"' || !v.text() {
		return false
	}
	v.at = skipSpace(v.doc, v.at)
	if v.at >= len(v.doc) || v.doc[v.at] != ':' {
		return false
	}
	v.at++
	return true
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// text steps over a string, eight bytes at a time while they are plain.
func (v *validator) text() bool {
	doc, i := v.doc, v.at+1
	for {
		for i+8 <= len(doc) {
			x := binary.LittleEndian.Uint64(doc[i:])
			quote, escape := x^(ones*'"'), x^(ones*'\\')
			if ((quote-ones)&^quote|(escape-ones)&^escape|(x-ones*' ')&^x|x)&highs != 0 {
				break
			}
			i += 8
		}
		if i >= len(doc) {
			return false
		}
		switch c := doc[i]; {
		case c == '"':
			v.at = i + 1
			return true
		case c == '\\':
			n := escapeLength(doc[i:])
			if n == 0 {
				return false
			}
			i += n
			continue
		case c < ' ':
			return false
		case c >= utf8.RuneSelf:
			v.high = true
		}
		i++
	}
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
		if len(s) >= 6 && unhex(s[2]) >= 0 && unhex(s[3]) >= 0 && unhex(s[4]) >= 0 && unhex(s[5]) >= 0 {
			return 6
		}
	}
	return 0
}

func (v *validator) digits() bool {
	from := v.at
	for v.at < len(v.doc) && v.doc[v.at] >= '0' && v.doc[v.at] <= '9' {
		v.at++
	}
	return v.at > from
}

func (v *validator) skip(c byte) bool {
	if v.at < len(v.doc) && v.doc[v.at] == c {
		v.at++
		return true
	}
	return false
}

func (v *validator) number() bool {
	v.skip('-')
	if !v.skip('0') && !v.digits() {
		return false
	}
	if v.skip('.') && !v.digits() {
		return false
	}
	if v.skip('e') || v.skip('E') {
		if !v.skip('+') {
			v.skip('-')
		}
		return v.digits()
	}
	return true
}

func (v *validator) word() bool {
	for _, word := range [...]string{"true", "false", "null"} {
		if len(v.doc)-v.at >= len(word) && string(v.doc[v.at:v.at+len(word)]) == word {
			v.at += len(word)
			return true
		}
	}
	return false
}
