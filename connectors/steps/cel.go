package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"

	"github.com/metip/metip/connectors/sdk"
)

// Bounds of an expression. costLimit is in CEL's units, about 50 ns each; only expressions that loop can come near it.
const (
	maxExpression = 16 << 10
	maxNodes      = 5000
	maxNesting    = 64
	maxRegexSize  = 2000
	costLimit     = 2_000_000
)

// Filter is a compiled CEL expression that yields a boolean. It is safe for concurrent use.
type Filter struct{ program }

// Value is a compiled CEL expression. It is safe for concurrent use.
type Value struct{ program }

// CompileFilter compiles an expression whose type is bool, or not known until it runs. The error is an *Error.
func CompileFilter(text string) (*Filter, error) {
	p, err := compile(text)
	if err != nil {
		return nil, err
	}
	if t := p.output; t.Kind() != types.BoolKind && t.Kind() != types.DynKind {
		return nil, &Error{1, 1, fmt.Sprintf("the expression yields %s, not a boolean", t)}
	}
	return &Filter{*p}, nil
}

// Match runs the filter. A result that is no boolean is an error, and so is a field that the message does not have: has(data.x) asks.
func (f *Filter) Match(m *sdk.Message) (bool, error) {
	v, err := f.run(m)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the filter yields %s, not a boolean", v.Type().TypeName())
	}
	return bool(b), nil
}

// CompileValue compiles an expression of any type. The error is an *Error.
func CompileValue(text string) (*Value, error) {
	p, err := compile(text)
	if err != nil {
		return nil, err
	}
	return &Value{*p}, nil
}

// Eval runs the expression and gives a plain Go value: nil, bool, int64, uint64, float64, string, []byte, time.Time, time.Duration,
// []any or map[string]any. An expression that is nothing but a path into data gives a number as the message wrote it: an int64, or a
// json.Number when it is no integer of 64 bits. Numbers within lists and maps that come from data are int or json.Number.
func (v *Value) Eval(m *sdk.Message) (any, error) {
	if v.path != nil {
		if x, ok, err := follow(m, v.path); ok || err != nil {
			if i, isInt := x.(int); isInt {
				return int64(i), err
			}
			return x, err
		}
	}
	x, err := v.run(m)
	if err != nil {
		return nil, err
	}
	return plain(x)
}

type program struct {
	prg    cel.Program
	output *cel.Type
	// path of members when the expression is nothing but data.a.b.c; such expressions need no interpreter.
	path []string
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.CustomTypeAdapter(adapter{types.DefaultTypeAdapter}),
		cel.Variable("data", cel.DynType),
		cel.Variable("type", cel.StringType),
		cel.Variable("id", cel.StringType),
		cel.Variable("source", cel.StringType),
		cel.Variable("subject", cel.StringType),
		cel.Variable("time", cel.TimestampType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxNesting),
		cel.ExpressionNestingDepthLimit(maxNesting),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexSize),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateRegexProgramSizeLimit(maxRegexSize), cel.ValidateComprehensionNestingLimit(3)),
		ext.Strings(ext.StringsVersion(4)),
	)
})

func compile(text string) (*program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{1, 1, "the expression is empty"}
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, firstIssue(issues)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if loops(ast) {
		options = append(options, cel.CostLimit(costLimit))
	}
	prg, err := env.Program(ast, options...)
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return &program{prg: prg, output: ast.OutputType(), path: pathOf(ast)}, nil
}

func firstIssue(issues *cel.Issues) error {
	all := issues.Errors()
	if len(all) == 0 {
		return &Error{1, 1, issues.Err().Error()}
	}
	first := all[0]
	message := strings.ReplaceAll(first.Message, " (in container '')", "")
	return &Error{max(1, first.Location.Line()), max(0, first.Location.Column()) + 1, message}
}

// loops tells whether an expression can cost more than in proportion to its length and the message's size: only then its cost is
// counted while it runs, which is slow. Calls that can grow a string many times over count as loops.
func loops(ast *cel.Ast) bool {
	found := false
	celast.PreOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		switch e.Kind() {
		case celast.ComprehensionKind:
			found = true
		case celast.CallKind:
			switch e.AsCall().FunctionName() {
			case "replace", "join", "format", "matches":
				found = true
			}
		}
	}))
	return found
}

// pathOf gives the members of data.a.b, or nil when the expression is anything else.
func pathOf(ast *cel.Ast) []string {
	var path []string
	e := ast.NativeRep().Expr()
	for e.Kind() == celast.SelectKind && !e.AsSelect().IsTestOnly() {
		path = append([]string{e.AsSelect().FieldName()}, path...)
		e = e.AsSelect().Operand()
	}
	if e.Kind() != celast.IdentKind || e.AsIdent() != "data" || len(path) == 0 {
		return nil
	}
	return path
}

// follow a path into the body. It is not ok when there is something on the way that CEL must judge.
func follow(m *sdk.Message, path []string) (value any, ok bool, err error) {
	v, err := m.Body()
	if err != nil {
		return nil, false, err
	}
	for _, name := range path {
		object, is := v.(map[string]any)
		if !is {
			return nil, false, nil
		}
		if v, is = object[name]; !is {
			return nil, false, fmt.Errorf("no such key: %s", name)
		}
	}
	return v, true, nil
}

func (p *program) run(m *sdk.Message) (ref.Val, error) {
	v, _, err := p.prg.Eval((*activation)(m))
	if err != nil {
		if strings.Contains(err.Error(), "cost limit exceeded") || errors.Is(err, context.DeadlineExceeded) {
			return nil, errors.New("the expression costs more than one message may")
		}
		return nil, err
	}
	return v, nil
}

// activation gives a message's variables to CEL, and decodes the body only when it is asked for.
type activation sdk.Message

func (a *activation) Parent() cel.Activation { return nil }

func (a *activation) ResolveName(name string) (any, bool) {
	m := (*sdk.Message)(a)
	switch name {
	case "data":
		v, err := m.Body()
		if err != nil {
			return types.WrapErr(err), true
		}
		return v, true
	case "type":
		return m.Type, true
	case "id":
		return m.ID, true
	case "source":
		return m.Source, true
	case "subject":
		return m.Subject, true
	case "time":
		return m.Time, true
	case "headers":
		return m.Headers, true
	default:
		return nil, false
	}
}

// adapter adds what sdk.Message.Body holds and CEL does not know: numbers kept as text.
type adapter struct{ types.Adapter }

func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	case map[string]string:
		return types.NewStringStringMap(a, v)
	default:
		return a.Adapter.NativeToValue(v)
	}
}

func number(n json.Number) ref.Val {
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		return types.Uint(u)
	}
	f, err := n.Float64()
	if err != nil {
		return types.NewErr("the number %s is beyond what an expression can hold", n)
	}
	return types.Double(f)
}

// plain makes a Go value of a CEL value.
func plain(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		return uint64(v), nil
	case types.Double:
		return float64(v), nil
	case types.String:
		return string(v), nil
	case types.Bytes:
		return []byte(v), nil
	case types.Timestamp:
		return v.Time, nil
	case types.Duration:
		return v.Duration, nil
	case traits.Mapper:
		return plainMap(v)
	case traits.Lister:
		return plainList(v)
	default:
		return nil, fmt.Errorf("the expression yields %s, which is no value", v.Type().TypeName())
	}
}

func plainMap(m traits.Mapper) (any, error) {
	if native, ok := m.Value().(map[string]any); ok {
		return native, nil
	}
	out := map[string]any{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		name, ok := k.(types.String)
		if !ok {
			return nil, fmt.Errorf("the expression yields a map with a key of type %s, not string", k.Type().TypeName())
		}
		v, err := plain(m.Get(k))
		if err != nil {
			return nil, err
		}
		out[string(name)] = v
	}
	return out, nil
}

func plainList(l traits.Lister) (any, error) {
	if native, ok := l.Value().([]any); ok {
		return native, nil
	}
	out := []any{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		v, err := plain(it.Next())
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
