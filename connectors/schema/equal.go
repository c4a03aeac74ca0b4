package schema

import (
	"hash/maphash"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// constants are the values of an enum or a const.
type constants struct {
	// texts and whole numbers are found at once; others one by one.
	texts  map[string]struct{}
	wholes map[int]struct{}
	others []any
}

func constantsOf(v *any) *constants {
	if v == nil {
		return nil
	}
	return newConstants([]any{*v})
}

func enumOf(e *jsonschema.Enum) *constants {
	if e == nil {
		return nil
	}
	return newConstants(e.Values)
}

func newConstants(values []any) *constants {
	c := &constants{}
	for _, v := range values {
		if s, ok := v.(string); ok {
			if c.texts == nil {
				c.texts = map[string]struct{}{}
			}
			c.texts[s] = struct{}{}
			continue
		}
		if d, ok := decimalOf(v); ok {
			if i, fits := d.whole(); fits {
				if c.wholes == nil {
					c.wholes = map[int]struct{}{}
				}
				c.wholes[i] = struct{}{}
				continue
			}
		}
		c.others = append(c.others, v)
	}
	return c
}

// whole number, where it is an int.
func (d decimal) whole() (int, bool) {
	if d.exponent < 0 || len(d.digits)+d.exponent > 18 {
		return 0, false
	}
	i := 0
	for _, c := range d.digits {
		i = 10*i + int(c-'0')
	}
	for range d.exponent {
		i *= 10
	}
	if d.negative {
		i = -i
	}
	return i, true
}

// has tells whether a value is among the constants.
func (e *evaluation) has(c *constants, v any) bool {
	switch v := v.(type) {
	case string:
		_, ok := c.texts[v]
		return ok
	case int:
		if _, ok := c.wholes[v]; ok {
			return true
		}
	case nil, bool, []any, map[string]any:
	default:
		if d, ok := decimalOf(v); ok {
			if i, fits := d.whole(); fits {
				_, ok := c.wholes[i]
				return ok
			}
		}
	}
	for _, x := range c.others {
		if e.equal(v, x) {
			return true
		}
	}
	return false
}

// equal tells whether two values are the same to JSON Schema: numbers by their value.
func (e *evaluation) equal(a, b any) bool {
	if !e.step(1) {
		return false
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, x := range a {
			y, ok := b[name]
			if !ok || !e.equal(x, y) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, e.equal)
	case string:
		b, ok := b.(string)
		return ok && e.step(len(a)/bytesPerStep) && a == b
	case nil:
		return b == nil
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case int:
		if b, ok := b.(int); ok {
			return a == b
		}
	}
	x, ok := decimalOf(a)
	y, also := decimalOf(b)
	return ok && also && x == y
}

// seed of the hashes: documents cannot aim at it.
var seed = maphash.MakeSeed()

// duplicate finds an item that is equal to one before it, or -1.
func (e *evaluation) duplicate(items []any) int {
	if len(items) < 8 {
		for i := range items {
			for j := range i {
				if e.equal(items[i], items[j]) {
					return i
				}
			}
		}
		return -1
	}
	seen := make(map[uint64][]int, len(items))
	var h maphash.Hash
	h.SetSeed(seed)
	for i, item := range items {
		h.Reset()
		e.hash(&h, item)
		if e.stopped != nil {
			return -1
		}
		sum := h.Sum64()
		for _, j := range seen[sum] {
			if e.equal(item, items[j]) {
				return i
			}
		}
		seen[sum] = append(seen[sum], i)
	}
	return -1
}

// hash a value such that equal ones have the same.
func (e *evaluation) hash(h *maphash.Hash, v any) {
	if !e.step(1) {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		_ = h.WriteByte('{') // a Hash takes everything
		for _, name := range sortedKeys(v) {
			_, _ = h.WriteString(name)
			e.hash(h, v[name])
		}
	case []any:
		_ = h.WriteByte('[')
		for _, x := range v {
			e.hash(h, x)
		}
		_ = h.WriteByte(']')
	case string:
		e.step(len(v) / bytesPerStep)
		_ = h.WriteByte('"')
		_, _ = h.WriteString(v)
	case nil:
		_ = h.WriteByte('n')
	case bool:
		if v {
			_ = h.WriteByte('t')
		} else {
			_ = h.WriteByte('f')
		}
	default:
		d, _ := decimalOf(v)
		_ = h.WriteByte(byte('1' + d.sign()))
		_, _ = h.WriteString(d.digits)
		_ = h.WriteByte(byte(d.exponent))
	}
}
