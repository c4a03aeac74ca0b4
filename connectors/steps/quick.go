package steps

import (
	"bytes"
	"slices"
	"strings"

	"github.com/metip/metip/connectors/internal/rawjson"
)

// verdict of a condition that is answered without CEL's interpreter, which is asked whenever the verdict is neither yes nor no. A fuzz test
// holds yes and no to what the interpreter says.
type verdict uint8

const (
	no verdict = iota
	yes
	// unsure: an error, or what only the interpreter knows; the rest of the expression may still decide.
	unsure
	// stop: what only the interpreter knows, at a cost that it has to count before anything else is evaluated.
	stop
)

type conditionKind uint8

const (
	opaque conditionKind = iota
	allOf
	anyOf
	not
	truth
	compare
	among
	starts
	ends
	contains
	isThere
)

// condition is the part of an expression that is answered from a body's bytes: comparisons of a field with a literal, `in` a list of
// literals, startsWith, endsWith, contains, has, a field that is a boolean, and &&, || and ! of them. Whatever else there is, is opaque.
type condition struct {
	kind conditionKind
	// costly is of what is opaque, and loops.
	costly  bool
	terms   []condition
	operand operand
	op      comparison
	// literals that the operand is compared with; the first counts but for among.
	literals []scalar
}

type comparison uint8

const (
	equal comparison = iota
	unequal
	less
	lessOrEqual
	greater
	greaterOrEqual
)

func (c *condition) ask(v *view) verdict {
	switch c.kind {
	case allOf:
		return c.all(v, no, yes)
	case anyOf:
		return c.all(v, yes, no)
	case not:
		switch a := c.terms[0].ask(v); a {
		case yes:
			return no
		case no:
			return yes
		default:
			return a
		}
	case isThere:
		return c.operand.isThere(v)
	case opaque:
		if c.costly {
			return stop
		}
		return unsure
	}
	x := c.operand.read(v)
	if x.kind == unknown {
		return unsure
	}
	return c.judge(&x)
}

// all terms in order: the first that decides does, else the rest is what remains.
func (c *condition) all(v *view, decides, rest verdict) verdict {
	for i := range c.terms {
		switch a := c.terms[i].ask(v); a {
		case decides, stop:
			return a
		case unsure:
			rest = unsure
		}
	}
	return rest
}

func (c *condition) judge(x *scalar) verdict {
	switch c.kind {
	case truth:
		if x.kind != boolean {
			return unsure
		}
		return verdictOf(x.truth)
	case compare:
		return x.compare(c.op, &c.literals[0])
	case among:
		for i := range c.literals {
			if a := x.compare(equal, &c.literals[i]); a != no {
				return a
			}
		}
		return no
	default:
		return c.search(x)
	}
}

func (c *condition) search(x *scalar) verdict {
	if x.kind != text {
		return unsure
	}
	want := c.literals[0].text
	if x.raw == nil {
		switch c.kind {
		case starts:
			return verdictOf(strings.HasPrefix(x.text, want))
		case ends:
			return verdictOf(strings.HasSuffix(x.text, want))
		default:
			return verdictOf(strings.Contains(x.text, want))
		}
	}
	switch n := len(want); c.kind {
	case starts:
		return verdictOf(len(x.raw) >= n && string(x.raw[:n]) == want)
	case ends:
		return verdictOf(len(x.raw) >= n && string(x.raw[len(x.raw)-n:]) == want)
	default:
		return verdictOf(bytes.Contains(x.raw, c.literals[0].raw))
	}
}

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

type operandKind uint8

const (
	aField operandKind = iota
	aHeader
	theType
	theID
	theSource
	theSubject
)

// operand is a field of the body, an attribute of the message, or a header.
type operand struct {
	kind operandKind
	// slot of the field, and of the object that it would be in.
	slot, parent int
	// name of the header.
	name string
}

// read the operand. What is not there, or neither text, number, boolean nor null, is unknown.
func (o *operand) read(v *view) scalar {
	switch o.kind {
	case theType:
		return scalar{kind: text, text: v.m.Type}
	case theID:
		return scalar{kind: text, text: v.m.ID}
	case theSource:
		return scalar{kind: text, text: v.m.Source}
	case theSubject:
		return scalar{kind: text, text: v.m.Subject}
	case aHeader:
		if value, ok := v.m.Headers[o.name]; ok {
			return scalar{kind: text, text: value}
		}
		return scalar{}
	}
	if !v.read() {
		return scalar{}
	}
	s := v.spans[o.slot]
	if s.to == 0 {
		return scalar{}
	}
	switch v.doc[s.from] {
	case '"':
		return readText(v.doc[s.from:s.to], s.plain)
	case 't', 'f':
		return scalar{kind: boolean, truth: v.doc[s.from] == 't'}
	case 'n':
		return scalar{kind: null}
	case '{', '[':
		return scalar{}
	default:
		_, integer := rawjson.Number(v.doc, int(s.from))
		return readNumber(v.doc[s.from:s.to], integer)
	}
}

func (o *operand) isThere(v *view) verdict {
	if o.kind == aHeader {
		_, ok := v.m.Headers[o.name]
		return verdictOf(ok)
	}
	if !v.read() {
		return unsure
	}
	if parent := v.spans[o.parent]; parent.to == 0 || v.doc[parent.from] != '{' {
		return unsure
	}
	return verdictOf(v.spans[o.slot].to != 0)
}

// sure tells whether there is anything in the condition that is not opaque.
func (c *condition) sure() bool {
	return c.kind != opaque && (len(c.terms) == 0 || slices.ContainsFunc(c.terms, func(t condition) bool { return t.sure() }))
}
