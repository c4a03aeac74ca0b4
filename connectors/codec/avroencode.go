package codec

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// avroEncoder writes values of a JSON document in Avro's binary encoding.
type avroEncoder struct {
	*document
	out []byte
	// path to the value that is written, for errors.
	path []string
}

// errorAt the value, without the value.
func (e *avroEncoder) errorAt(format string, a ...any) error {
	var at strings.Builder
	for _, name := range e.path {
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "") + "..."
		}
		at.WriteString("/" + name)
	}
	if at.Len() == 0 {
		at.WriteString("the body")
	}
	return fmt.Errorf("%s %s", at.String(), fmt.Sprintf(format, a...))
}

func (e *avroEncoder) encode(t *avroType, n ref) error {
	if len(e.out) > maxOutput {
		return errTooLong
	}
	k := e.nodes[n].kind
	switch t.kind {
	case avroNull:
		if k == isNull {
			return nil
		}
	case avroBoolean:
		if k == isWord {
			b := byte(0)
			if e.raw(n)[0] == 't' {
				b = 1
			}
			e.out = append(e.out, b)
			return nil
		}
	case avroInt, avroLong:
		return e.whole(t, n)
	case avroFloat, avroDouble:
		return e.float(t, n)
	case avroString:
		if k == isString {
			text := e.text(n)
			e.out = append(appendLong(e.out, int64(len(text))), text...)
			return nil
		}
	case avroBytes, avroFixed:
		return e.bytes(t, n)
	case avroEnum:
		if k == isString {
			if i := slices.Index(t.symbols, string(e.text(n))); i >= 0 {
				e.out = appendLong(e.out, int64(i))
				return nil
			}
			return e.errorAt("is none of the symbols of %s", t.full)
		}
	case avroRecord:
		if k == isObject {
			return e.record(t, n)
		}
	case avroArray:
		if k == isArray {
			return e.items(t, n)
		}
	case avroMap:
		if k == isObject {
			return e.items(t, n)
		}
	case avroUnion:
		return e.union(t, n)
	}
	return e.errorAt("is not of the type %s", t.full)
}

func (e *avroEncoder) whole(t *avroType, n ref) error {
	var v int64
	switch k := e.nodes[n].kind; {
	case k == isNumber:
		var ok bool
		if v, ok = wholeNumber(string(e.text(n))); !ok {
			return e.errorAt("is no whole number of 64 bits")
		}
	case k == isString && t.logical != logicalNone:
		var err error
		if v, err = t.logical.parseTime(string(e.text(n))); err != nil {
			return e.errorAt("%v", err)
		}
	default:
		return e.errorAt("is not of the type %s", t.full)
	}
	if t.kind == avroInt && v != int64(int32(v)) {
		return e.errorAt("is no whole number of 32 bits")
	}
	e.out = appendLong(e.out, v)
	return nil
}

// wholeNumber of 64 bits, however it is written: 100, 100.0 and 1e2 are the same.
func wholeNumber(text string) (int64, bool) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return v, true
	}
	if i := strings.IndexAny(text, "eE"); len(text) > 64 || i >= 0 && len(text)-i > len("e-999") { // that much is computed
		return 0, false
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

func (e *avroEncoder) float(t *avroType, n ref) error {
	var v float64
	text := string(e.text(n))
	switch k := e.nodes[n].kind; {
	case k == isString && (text == "NaN" || text == "Infinity" || text == "-Infinity"):
		v, _ = strconv.ParseFloat(text, 64)
	case k == isNumber:
		size := 64
		if t.kind == avroFloat {
			size = 32
		}
		var err error
		if v, err = strconv.ParseFloat(text, size); err != nil {
			return e.errorAt("is beyond what a %s holds", t.full)
		}
	default:
		return e.errorAt("is not of the type %s", t.full)
	}
	if t.kind == avroFloat {
		e.out = binary.LittleEndian.AppendUint32(e.out, math.Float32bits(float32(v)))
	} else {
		e.out = binary.LittleEndian.AppendUint64(e.out, math.Float64bits(v))
	}
	return nil
}

func (e *avroEncoder) bytes(t *avroType, n ref) error {
	k := e.nodes[n].kind
	var raw []byte
	switch {
	case t.logical == logicalDecimal && (k == isNumber || k == isString && isDecimal(string(e.text(n)))):
		var err error
		if raw, err = unscaled(string(e.text(n)), t.precision, t.scale, t.size); err != nil {
			return e.errorAt("%v", err)
		}
	case t.logical == logicalUUID && k == isString:
		text := string(e.text(n))
		var err error
		if raw, err = hex.DecodeString(strings.ReplaceAll(text, "-", "")); err != nil || len(raw) != 16 || len(text) != 36 {
			return e.errorAt("is no UUID")
		}
	case k == isString:
		for _, r := range string(e.text(n)) {
			if r > 0xff {
				return e.errorAt("has characters beyond U+00FF: in JSON, each character stands for a byte")
			}
			raw = append(raw, byte(r))
		}
	default:
		return e.errorAt("is not of the type %s", t.full)
	}
	if t.kind == avroFixed {
		if len(raw) != t.size {
			return e.errorAt("has %d bytes, and %s has %d", len(raw), t.full, t.size)
		}
	} else {
		e.out = appendLong(e.out, int64(len(raw)))
	}
	e.out = append(e.out, raw...)
	return nil
}

// isDecimal tells a number in a string.
func isDecimal(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	numeric := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return numeric(whole) && (!point || numeric(fraction))
}

func (e *avroEncoder) record(t *avroType, n ref) error {
	written := 0
	// Members that come in the schema's order are found at once.
	next := e.nodes[n].first
	for i := range t.fields {
		f := &t.fields[i]
		m := e.member(n, next, f.name)
		e.path = append(e.path, f.name)
		switch {
		case m != 0:
			if err := e.encode(f.t, m); err != nil {
				return err
			}
			written++
			next = e.nodes[m].next
		case f.fallback != nil:
			e.out = append(e.out, f.fallback...)
		case f.t.kind == avroNull:
		case f.t.kind == avroUnion && f.t.null() >= 0:
			e.out = appendLong(e.out, int64(f.t.null()))
		default:
			return e.errorAt("is missing")
		}
		e.path = e.path[:len(e.path)-1]
	}
	members := 0
	for m := e.nodes[n].first; m != 0; m = e.nodes[m].next {
		members++
	}
	if members == written {
		return nil
	}
	for m := e.nodes[n].first; m != 0; m = e.nodes[m].next {
		if name := e.name(m); !t.has(string(name)) {
			return e.errorAt("has the member %.64q, which is no field of %s: leave it out by a transform before", name, t.full)
		}
	}
	return nil
}

// member of an object by its name, looked for from a place on and then from the beginning.
func (e *avroEncoder) member(n, from ref, name string) ref {
	for m := from; m != 0; m = e.nodes[m].next {
		if e.isNamed(m, name) {
			return m
		}
	}
	for m := e.nodes[n].first; m != from; m = e.nodes[m].next {
		if e.isNamed(m, name) {
			return m
		}
	}
	return 0
}

func (d *document) isNamed(m ref, name string) bool {
	v := &d.nodes[m]
	if v.plainName {
		return string(d.in[v.nameStart+1:v.nameEnd-1]) == name
	}
	return string(d.name(m)) == name
}

func (t *avroType) has(field string) bool {
	return slices.ContainsFunc(t.fields, func(f avroField) bool { return f.name == field })
}

// null is the number of the union's branch null, or -1.
func (t *avroType) null() int {
	return slices.IndexFunc(t.branches, func(b *avroType) bool { return b.kind == avroNull })
}

// items of an array, or members of a map, in one block.
func (e *avroEncoder) items(t *avroType, n ref) error {
	count := int64(0)
	for c := e.nodes[n].first; c != 0; c = e.nodes[c].next {
		count++
	}
	if count > 0 {
		e.out = appendLong(e.out, count)
	}
	i := 0
	for c := e.nodes[n].first; c != 0; c = e.nodes[c].next {
		name := ""
		if t.kind == avroMap {
			name = string(e.name(c))
			e.out = append(appendLong(e.out, int64(len(name))), name...)
		} else {
			name = strconv.Itoa(i)
		}
		e.path = append(e.path, name)
		if err := e.encode(t.of, c); err != nil {
			return err
		}
		e.path = e.path[:len(e.path)-1]
		i++
	}
	e.out = append(e.out, 0)
	return nil
}

// union: the branch that the value names, or else the first that it is of as far as a look tells.
func (e *avroEncoder) union(t *avroType, n ref) error {
	at, value := -1, n
	if e.nodes[n].kind == isObject {
		if m := e.nodes[n].first; m != 0 && e.nodes[m].next == 0 {
			name := string(e.name(m))
			if at = slices.IndexFunc(t.branches, func(b *avroType) bool { return b.full == name || b.name == name }); at >= 0 {
				value = m
			}
		}
	}
	if at < 0 {
		at = slices.IndexFunc(t.branches, func(b *avroType) bool { return e.looksLike(b, n) })
	}
	if at < 0 {
		return e.errorAt("is of none of the union's types")
	}
	e.out = appendLong(e.out, int64(at))
	return e.encode(t.branches[at], value)
}

// looksLike tells, without going deeper, whether a value can be of a type.
func (e *avroEncoder) looksLike(t *avroType, n ref) bool {
	switch k := e.nodes[n].kind; t.kind {
	case avroNull:
		return k == isNull
	case avroBoolean:
		return k == isWord
	case avroInt, avroLong:
		if k == isString && t.logical != logicalNone {
			_, err := t.logical.parseTime(string(e.text(n)))
			return err == nil
		}
		v, ok := int64(0), false
		if k == isNumber {
			v, ok = wholeNumber(string(e.text(n)))
		}
		return ok && (t.kind == avroLong || v == int64(int32(v)))
	case avroFloat, avroDouble:
		return k == isNumber || k == isString && slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, string(e.text(n)))
	case avroString:
		return k == isString
	case avroBytes, avroFixed:
		return k == isString || k == isNumber && t.logical == logicalDecimal
	case avroEnum:
		return k == isString && slices.Contains(t.symbols, string(e.text(n)))
	case avroArray:
		return k == isArray
	case avroMap:
		return k == isObject
	case avroRecord:
		if k != isObject {
			return false
		}
		for m := e.nodes[n].first; m != 0; m = e.nodes[m].next {
			if !t.has(string(e.name(m))) {
				return false
			}
		}
		for i := range t.fields {
			f := &t.fields[i]
			if f.fallback == nil && f.t.kind != avroNull && (f.t.kind != avroUnion || f.t.null() < 0) && e.member(n, e.nodes[n].first, f.name) == 0 {
				return false
			}
		}
		return true
	}
	return false
}
