package steps

import (
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// quick makes conditions of checked expressions.
type quick struct {
	fields *fields
	// loops says that the interpreter counts the expression's cost.
	loops bool
}

// quickOf an expression; nil when the interpreter has to be asked for all of it.
func quickOf(e celast.Expr, f *fields, loops bool) *condition {
	c := quick{f, loops}.condition(e)
	if !c.sure() {
		return nil
	}
	return &c
}

var comparisons = map[string]comparison{
	operators.Equals: equal, operators.NotEquals: unequal, operators.Less: less, operators.LessEquals: lessOrEqual,
	operators.Greater: greater, operators.GreaterEquals: greaterOrEqual,
}

// turned is a comparison with its sides exchanged.
var turned = [...]comparison{equal: equal, unequal: unequal, less: greater, lessOrEqual: greaterOrEqual, greater: less, greaterOrEqual: lessOrEqual}

var searches = map[string]conditionKind{"startsWith": starts, "endsWith": ends, "contains": contains}

func (q quick) condition(e celast.Expr) condition {
	c, ok := condition{}, false
	switch e.Kind() {
	case celast.CallKind:
		c, ok = q.call(e.AsCall())
		if !ok {
			c, ok = q.truth(e)
		}
	case celast.SelectKind:
		if e.AsSelect().IsTestOnly() {
			c, ok = q.isThere(e)
		} else {
			c, ok = q.truth(e)
		}
	}
	if !ok {
		return condition{kind: opaque, costly: q.loops}
	}
	return c
}

func (q quick) call(call celast.CallExpr) (condition, bool) {
	args := call.Args()
	switch name := call.FunctionName(); {
	case name == operators.LogicalAnd:
		return condition{kind: allOf, terms: q.conditions(args)}, true
	case name == operators.LogicalOr:
		return condition{kind: anyOf, terms: q.conditions(args)}, true
	case name == operators.LogicalNot:
		return condition{kind: not, terms: q.conditions(args)}, true
	case name == operators.In:
		return q.in(args[0], args[1])
	case call.IsMemberFunction():
		kind, known := searches[name]
		if !known || len(args) != 1 || kind == contains && q.loops {
			return condition{}, false // the cost of contains is a product, which may come near the limit
		}
		o, ok := q.operand(call.Target())
		l, isLiteral := literal(args[0])
		return condition{kind: kind, operand: o, literals: []scalar{l}}, ok && isLiteral && l.kind == text
	default:
		op, known := comparisons[name]
		if !known {
			return condition{}, false
		}
		return q.compare(op, args[0], args[1])
	}
}

func (q quick) conditions(list []celast.Expr) []condition {
	out := make([]condition, len(list))
	for i, e := range list {
		out[i] = q.condition(e)
	}
	return out
}

func (q quick) compare(op comparison, left, right celast.Expr) (condition, bool) {
	if _, isLiteral := literal(left); isLiteral {
		left, right, op = right, left, turned[op]
	}
	l, isLiteral := literal(right)
	o, ok := q.operand(left)
	return condition{kind: compare, op: op, operand: o, literals: []scalar{l}}, ok && isLiteral
}

// in a list of literals. CEL makes a set of it, in which a double is no other number: lists with doubles are left to it.
func (q quick) in(e, list celast.Expr) (condition, bool) {
	o, ok := q.operand(e)
	if !ok || list.Kind() != celast.ListKind || len(list.AsList().Elements()) == 0 || len(list.AsList().OptionalIndices()) > 0 {
		return condition{}, false
	}
	c := condition{kind: among, operand: o}
	for _, element := range list.AsList().Elements() {
		l, isLiteral := literal(element)
		if !isLiteral || l.kind == double || l.kind == null {
			return condition{}, false
		}
		c.literals = append(c.literals, l)
	}
	return c, true
}

func (q quick) truth(e celast.Expr) (condition, bool) {
	o, ok := q.operand(e)
	return condition{kind: truth, operand: o}, ok && o.kind == aField
}

func (q quick) isThere(e celast.Expr) (condition, bool) {
	if s := e.AsSelect(); s.Operand().Kind() == celast.IdentKind && s.Operand().AsIdent() == "headers" {
		return condition{kind: isThere, operand: operand{kind: aHeader, name: s.FieldName()}}, true
	}
	path, _, ok := pathOf(e)
	if !ok || len(path) == 0 || q.fields == nil {
		return condition{}, false
	}
	return condition{kind: isThere, operand: q.field(path)}, true
}

func (q quick) field(path []string) operand {
	return operand{kind: aField, slot: q.fields.slotOf(path), parent: q.fields.slotOf(path[:len(path)-1])}
}

var attributes = map[string]operandKind{"type": theType, "id": theID, "source": theSource, "subject": theSubject}

func (q quick) operand(e celast.Expr) (operand, bool) {
	if path, test, ok := pathOf(e); ok && !test && len(path) > 0 && q.fields != nil {
		return q.field(path), true
	}
	switch e.Kind() {
	case celast.IdentKind:
		kind, ok := attributes[e.AsIdent()]
		return operand{kind: kind}, ok
	case celast.SelectKind:
		s := e.AsSelect()
		return operand{kind: aHeader, name: s.FieldName()}, !s.IsTestOnly() && s.Operand().Kind() == celast.IdentKind && s.Operand().AsIdent() == "headers"
	}
	return operand{}, false
}

// literal of an expression.
func literal(e celast.Expr) (scalar, bool) {
	if e.Kind() != celast.LiteralKind {
		return scalar{}, false
	}
	return scalarOf(e.AsLiteral())
}

func scalarOf(v ref.Val) (scalar, bool) {
	switch v := v.(type) {
	case types.Null:
		return scalar{kind: null}, true
	case types.Bool:
		return scalar{kind: boolean, truth: bool(v)}, true
	case types.String:
		return scalar{kind: text, text: string(v), raw: []byte(v)}, true
	case types.Int:
		return scalar{kind: integer, i: int64(v)}, true
	case types.Uint:
		return scalar{kind: natural, u: uint64(v)}, true
	case types.Double:
		return scalar{kind: double, f: float64(v)}, true
	default:
		return scalar{}, false
	}
}
