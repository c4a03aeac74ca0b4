package steps

import (
	"slices"

	"github.com/itchyny/gojq"
)

// jqFieldsOf a program: every path into its input that it can look at. It is nil when it can look at the input as a whole, or defines
// functions of its own.
func jqFieldsOf(q *gojq.Query) *fields {
	a := jqAnalysis{fields: &fields{}}
	a.use(a.query(q, origin{ofBody: true}))
	if a.whole || a.fields.slots <= 1 || a.fields.slots > maxFields {
		return nil
	}
	return a.fields
}

// jqAnalysis follows a program's input. What it does not know uses its input as a whole, which is never wrong: what is made of a value that
// is there as a whole needs nothing more.
type jqAnalysis struct {
	fields *fields
	// whole: the input as a whole is looked at.
	whole bool
	// used are the paths that are looked at, in the order in which they were found.
	used [][]string
}

// origin of a value: the body at a path; or something made of values that have been used, or of none.
type origin struct {
	ofBody bool
	path   []string
}

var made = origin{}

func (o origin) member(name string) origin {
	if !o.ofBody {
		return made
	}
	return origin{true, append(slices.Clone(o.path), name)}
}

// use a value as it is.
func (a *jqAnalysis) use(o origin) {
	switch {
	case !o.ofBody:
	case len(o.path) == 0:
		a.whole = true
	default:
		a.fields.add(o.path, true)
		a.used = append(a.used, o.path)
	}
}

// pipe a value into a query. One that the query does not look at is used all the same if it comes from within a member, for finding it may fail:
// .a.b of a text .a is an error.
func (a *jqAnalysis) pipe(left origin, right *gojq.Query) origin {
	before := len(a.used)
	out := a.query(right, left)
	if !left.ofBody || len(left.path) < 2 || out.within(left.path) {
		return out
	}
	if !slices.ContainsFunc(a.used[before:], func(path []string) bool { return origin{true, path}.within(left.path) }) {
		a.use(left)
	}
	return out
}

// within tells whether a value is that at a path, or in it.
func (o origin) within(path []string) bool {
	return o.ofBody && len(o.path) >= len(path) && slices.Equal(o.path[:len(path)], path)
}

// useAll of several queries with the same input.
func (a *jqAnalysis) useAll(in origin, list ...*gojq.Query) {
	for _, q := range list {
		if q != nil {
			a.use(a.query(q, in))
		}
	}
}

// query gives the origin of the results, and uses what it looks at.
func (a *jqAnalysis) query(q *gojq.Query, in origin) origin {
	switch {
	case len(q.FuncDefs) > 0 || len(q.Imports) > 0:
		a.whole = true
		return made
	case q.Term != nil:
		return a.term(q.Term, in)
	case q.Left == nil || q.Right == nil:
		a.use(in)
		return made
	}
	switch q.Op {
	case gojq.OpPipe:
		if len(q.Patterns) > 0 { // left as $name | right: right has the same input
			a.use(in.patterns(q.Patterns))
			a.useAll(in, q.Left)
			return a.query(q.Right, in)
		}
		return a.pipe(a.query(q.Left, in), q.Right)
	case gojq.OpComma, gojq.OpAlt, gojq.OpAdd, gojq.OpSub, gojq.OpMul, gojq.OpDiv, gojq.OpMod, gojq.OpEq, gojq.OpNe, gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe,
		gojq.OpAnd, gojq.OpOr:
		a.useAll(in, q.Left, q.Right)
		return made
	default: // assignments give their input with a change
		a.use(in)
		return made
	}
}

// patterns that compute the names of members may look at anything.
func (o origin) patterns(list []*gojq.Pattern) origin {
	for _, p := range list {
		if len(p.Object) > 0 || len(p.Array) > 0 {
			return o
		}
	}
	return made
}

func (a *jqAnalysis) term(t *gojq.Term, in origin) origin {
	out := a.head(t, in)
	for _, s := range t.SuffixList {
		switch {
		case s.Iter:
			a.use(out)
			out = made
		case s.Index != nil:
			out = a.index(s.Index, in, out)
		}
	}
	return out
}

// head of a term, without what follows it.
func (a *jqAnalysis) head(t *gojq.Term, in origin) origin {
	switch t.Type {
	case gojq.TermTypeIdentity:
		return in
	case gojq.TermTypeNull, gojq.TermTypeTrue, gojq.TermTypeFalse, gojq.TermTypeNumber:
		return made
	case gojq.TermTypeIndex:
		return a.index(t.Index, in, in)
	case gojq.TermTypeQuery:
		return a.query(t.Query, in)
	case gojq.TermTypeFunc:
		return a.call(t.Func, in)
	case gojq.TermTypeObject:
		for _, kv := range t.Object.KeyVals {
			a.keyVal(kv, in)
		}
	case gojq.TermTypeArray:
		a.useAll(in, t.Array.Query)
	case gojq.TermTypeUnary:
		a.use(a.term(t.Unary.Term, in))
	case gojq.TermTypeString:
		a.useAll(in, t.Str.Queries...)
	case gojq.TermTypeFormat:
		if t.Str == nil {
			a.use(in)
		} else {
			a.useAll(in, t.Str.Queries...)
		}
	case gojq.TermTypeIf:
		a.useAll(in, t.If.Cond, t.If.Then, t.If.Else)
		for _, e := range t.If.Elif {
			a.useAll(in, e.Cond, e.Then)
		}
		if t.If.Else == nil {
			a.use(in)
		}
	default: // try, reduce, foreach, label, .. and whatever is new
		a.use(in)
	}
	return made
}

// index of a value; the expressions in it have the input of the whole term.
func (a *jqAnalysis) index(i *gojq.Index, in, of origin) origin {
	switch {
	case i.Name != "":
		return of.member(i.Name)
	case i.Str != nil && len(i.Str.Queries) == 0:
		return of.member(i.Str.Str)
	case i.Str == nil && !i.IsSlice && isText(i.Start):
		return of.member(i.Start.Term.Str.Str)
	}
	a.use(of)
	if i.Str != nil {
		a.useAll(in, i.Str.Queries...)
	}
	a.useAll(in, i.Start, i.End)
	return made
}

// isText tells whether a query is nothing but a text: the name in .["name"].
func isText(q *gojq.Query) bool {
	return q != nil && q.Term != nil && q.Term.Type == gojq.TermTypeString && len(q.FuncDefs) == 0 && len(q.Term.SuffixList) == 0 && len(q.Term.Str.Queries) == 0
}

func (a *jqAnalysis) keyVal(kv *gojq.ObjectKeyVal, in origin) {
	if kv.KeyString != nil {
		a.useAll(in, kv.KeyString.Queries...)
	}
	a.useAll(in, kv.KeyQuery, kv.Val)
	switch {
	case kv.Val != nil:
	case kv.KeyString != nil && len(kv.KeyString.Queries) == 0:
		a.use(in.member(kv.KeyString.Str))
	case kv.Key != "" && kv.Key[0] != '$':
		a.use(in.member(kv.Key))
	case kv.Key == "":
		a.use(in)
	}
}

// call of a function. Those that it does not know use their input, of which their arguments' inputs are made.
func (a *jqAnalysis) call(f *gojq.Func, in origin) origin {
	switch {
	case f.Name[0] == '$' && len(f.Args) == 0:
		return made // a variable holds what was used when it was bound
	case f.Name == "empty" && len(f.Args) == 0:
		return made
	case f.Name == "select" && len(f.Args) == 1:
		a.useAll(in, f.Args[0])
		return in
	case f.Name == "first" && len(f.Args) == 1:
		return a.query(f.Args[0], in)
	default:
		a.use(in)
		a.useAll(made, f.Args...)
		return made
	}
}
