package steps

import (
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// body is the variable that holds the message's body.
const body = "data"

// fieldsOf a checked expression: every path into data that it can look at. It is nil when data as a whole is used, or not at all.
func fieldsOf(e celast.Expr) *fields {
	f := &fields{}
	if !f.collect(e) || f.slots <= 1 || f.slots > maxFields {
		return nil
	}
	return f
}

// collect the paths of an expression. It is false when data is used in another way than by paths.
func (f *fields) collect(e celast.Expr) bool {
	if path, test, ok := pathOf(e); ok {
		if len(path) > 0 {
			f.add(path, !test)
		}
		return len(path) > 0
	}
	switch e.Kind() {
	case celast.CallKind:
		call := e.AsCall()
		return (!call.IsMemberFunction() || f.collect(call.Target())) && f.collectAll(call.Args())
	case celast.SelectKind:
		return f.collect(e.AsSelect().Operand())
	case celast.ListKind:
		return f.collectAll(e.AsList().Elements())
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			if !f.collect(entry.AsMapEntry().Key()) || !f.collect(entry.AsMapEntry().Value()) {
				return false
			}
		}
		return true
	case celast.ComprehensionKind:
		c := e.AsComprehension()
		if c.IterVar() == body || c.IterVar2() == body || c.AccuVar() == body {
			return false
		}
		return f.collectAll([]celast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()})
	case celast.LiteralKind, celast.IdentKind:
		return true
	default:
		return false
	}
}

func (f *fields) collectAll(list []celast.Expr) bool {
	for _, e := range list {
		if !f.collect(e) {
			return false
		}
	}
	return true
}

// pathOf gives the members of data.a['b'], of none for data itself. test says that the expression asks whether the last one is there.
func pathOf(e celast.Expr) (path []string, test, ok bool) {
	switch e.Kind() {
	case celast.IdentKind:
		return nil, false, e.AsIdent() == body
	case celast.SelectKind:
		s := e.AsSelect()
		if path, test, ok = pathOf(s.Operand()); !ok || test {
			return nil, false, false
		}
		return append(path, s.FieldName()), s.IsTestOnly(), true
	case celast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.Index || len(c.Args()) != 2 || c.Args()[1].Kind() != celast.LiteralKind {
			return nil, false, false
		}
		name, isName := c.Args()[1].AsLiteral().(types.String)
		if path, test, ok = pathOf(c.Args()[0]); !ok || test || !isName {
			return nil, false, false
		}
		return append(path, string(name)), false, true
	}
	return nil, false, false
}
