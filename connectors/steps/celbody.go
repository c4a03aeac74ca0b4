package steps

import (
	"errors"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/metip/metip/connectors/sdk"
)

// maxCounted bounds how many parts of a new body may loop: each may cost as much as one expression.
const maxCounted = 8

// Body is a compiled CEL expression whose value is a new JSON body. It is safe for concurrent use.
//
// CEL knows no numbers but int, uint and double, and would change what it cannot hold. So the expression is taken apart where it builds:
// maps with constant names, lists, and `condition ? one : other`. What these are made of and is nothing but a path into data is taken over
// as it stands, with the text of its numbers.
type Body struct {
	root   build
	fields *fields
}

// build is a part of the new body: a constant, a value, an object, an array, or a choice.
type build struct {
	constant *any
	value    *Value
	// names and parts of an object; an array has parts alone.
	names  []string
	parts  []build
	choice *choice
}

type choice struct {
	condition *Value
	// quick is the condition's, with the fields of the whole expression.
	quick    *condition
	one, two build
}

// CompileBody compiles an expression. The error is an *Error.
func CompileBody(text string) (*Body, error) {
	ast, err := check(text)
	if err != nil {
		return nil, err
	}
	native := ast.NativeRep()
	out := &Body{fields: fieldsOf(native.Expr())}
	b := builder{ast: native, fields: out.fields}
	root, err := b.build(native.Expr())
	if err != nil || b.counted > maxCounted {
		value, err := CompileValue(text)
		if err != nil {
			return nil, err
		}
		root = build{value: value}
	}
	out.root = root
	return out, nil
}

// Make the new body.
func (b *Body) Make(m *sdk.Message) ([]byte, error) {
	value, err := b.make(m)
	if err != nil {
		return nil, err
	}
	return encodeJSON(value, true)
}

func (b *Body) make(m *sdk.Message) (any, error) {
	s := scope{view: view{m: m, fields: b.fields}}
	return b.root.make(&s)
}

// scope is what the parts of one body see.
type scope struct {
	view view
	// body once it is decoded: all of it, or nothing but the fields.
	body    any
	bodyErr error
	decoded bool
}

func (s *scope) data() (any, error) {
	if !s.decoded {
		s.body, s.bodyErr = s.view.data()
		s.decoded = true
	}
	return s.body, s.bodyErr
}

// eval a part by the interpreter.
func (s *scope) eval(v *Value) (ref.Val, error) {
	if !s.view.read() {
		return v.eval((*whole)(s.view.m))
	}
	data, err := s.data()
	if err != nil {
		return nil, err
	}
	return v.eval(&partial{(*whole)(s.view.m), data})
}

func (b *build) make(s *scope) (any, error) {
	switch {
	case b.constant != nil:
		return *b.constant, nil
	case b.value != nil:
		return s.value(b.value)
	case b.choice != nil:
		return b.choice.make(s)
	case b.names != nil:
		out := make(map[string]any, len(b.names))
		for i := range b.parts {
			x, err := b.parts[i].make(s)
			if err != nil {
				return nil, err
			}
			out[b.names[i]] = x
		}
		return out, nil
	default:
		out := make([]any, len(b.parts))
		for i := range b.parts {
			x, err := b.parts[i].make(s)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	}
}

func (c *choice) make(s *scope) (any, error) {
	if c.quick != nil {
		switch c.quick.ask(&s.view) {
		case yes:
			return c.one.make(s)
		case no:
			return c.two.make(s)
		}
	}
	x, err := s.eval(c.condition)
	if err != nil {
		return nil, err
	}
	switch x {
	case types.True:
		return c.one.make(s)
	case types.False:
		return c.two.make(s)
	default:
		return nil, errors.New("the condition before ? yields no boolean")
	}
}

func (s *scope) value(v *Value) (any, error) {
	if v.path != nil {
		data, err := s.data()
		if err != nil {
			return nil, err
		}
		if x, ok, err := follow(data, v.path); ok || err != nil {
			return x, err
		}
	}
	x, err := s.eval(v)
	if err != nil {
		return nil, err
	}
	return plain(x)
}

// builder takes a checked expression apart.
type builder struct {
	ast    *celast.AST
	fields *fields
	// counted is how many parts loop.
	counted int
}

func (b *builder) build(e celast.Expr) (build, error) {
	switch e.Kind() {
	case celast.MapKind:
		if out, ok, err := b.object(e.AsMap()); ok || err != nil {
			return out, err
		}
	case celast.ListKind:
		if list := e.AsList(); len(list.OptionalIndices()) == 0 {
			parts, err := b.all(list.Elements())
			return foldList(parts), err
		}
	case celast.CallKind:
		if call := e.AsCall(); call.FunctionName() == operators.Conditional {
			condition, err := b.part(call.Args()[0])
			if err != nil {
				return build{}, err
			}
			parts, err := b.all(call.Args()[1:])
			if err != nil {
				return build{}, err
			}
			quick := quickOf(call.Args()[0], b.fields, loops(call.Args()[0]))
			return build{choice: &choice{condition, quick, parts[0], parts[1]}}, nil
		}
	}
	if e.Kind() == celast.LiteralKind {
		constant, err := plain(e.AsLiteral())
		return build{constant: &constant}, err
	}
	value, err := b.part(e)
	return build{value: value}, err
}

// foldList makes one constant of a list of constants.
func foldList(parts []build) build {
	list := make([]any, len(parts))
	for i := range parts {
		if parts[i].constant == nil {
			return build{parts: parts}
		}
		list[i] = *parts[i].constant
	}
	constant := any(list)
	return build{constant: &constant}
}

func (b *builder) all(list []celast.Expr) ([]build, error) {
	out := make([]build, len(list))
	for i, e := range list {
		var err error
		if out[i], err = b.build(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// object is not ok when a name is no constant, or comes twice: CEL says what is wrong with that.
func (b *builder) object(m celast.MapExpr) (out build, ok bool, err error) {
	names, seen := []string{}, map[string]bool{}
	values := make([]celast.Expr, 0, m.Size())
	for _, entry := range m.Entries() {
		key := entry.AsMapEntry().Key()
		if key.Kind() != celast.LiteralKind || entry.AsMapEntry().IsOptional() {
			return build{}, false, nil
		}
		name, isText := key.AsLiteral().(types.String)
		if !isText || seen[string(name)] {
			return build{}, false, nil
		}
		seen[string(name)] = true
		names = append(names, string(name))
		values = append(values, entry.AsMapEntry().Value())
	}
	parts, err := b.all(values)
	return build{names: names, parts: parts}, true, err
}

// part is compiled from its text: CEL has no other way to make a program of a part of an expression.
func (b *builder) part(e celast.Expr) (*Value, error) {
	if loops(e) {
		b.counted++
	}
	text, err := cel.ExprToString(e, b.ast.SourceInfo())
	if err != nil {
		return nil, err
	}
	return CompileValue(text)
}
