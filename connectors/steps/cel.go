package steps

import (
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
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
	v := view{m: m, fields: f.fields}
	if f.quick != nil {
		switch f.quick.ask(&v) {
		case yes:
			return true, nil
		case no:
			return false, nil
		}
	}
	x, err := f.run(&v)
	if err != nil {
		return false, err
	}
	b, ok := x.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the filter yields %s, not a boolean", x.Type().TypeName())
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
	view := view{m: m, fields: v.fields}
	if v.path != nil {
		data, err := view.data()
		if err != nil {
			return nil, err
		}
		if x, ok, err := follow(data, v.path); ok || err != nil {
			return x, err
		}
	}
	x, err := v.run(&view)
	if err != nil {
		return nil, err
	}
	return plain(x)
}

type program struct {
	text   string
	prg    cel.Program
	output *cel.Type
	// path of members when the expression is nothing but data.a.b.c; such expressions need no interpreter.
	path []string
	// fields of the body that the expression can look at; nil when it looks at the whole of it, or at nothing.
	fields *fields
	// quick answers most messages without the interpreter; nil when it could not.
	quick *condition
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
		cel.EnableMacroCallTracking(), // CompileBody writes parts of expressions as text again
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
	ast, err := check(text)
	if err != nil {
		return nil, err
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	e := ast.NativeRep().Expr()
	counted := loops(e)
	if counted {
		options = append(options, cel.CostLimit(costLimit))
	}
	prg, err := env.Program(ast, options...)
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	p := &program{text: text, prg: prg, output: ast.OutputType(), fields: fieldsOf(e)}
	p.quick = quickOf(e, p.fields, counted)
	if path, test, ok := pathOf(e); ok && !test && len(path) > 0 {
		p.path = path
	}
	return p, nil
}

// check an expression. The error is an *Error.
func check(text string) (*cel.Ast, error) {
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
	return ast, nil
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
func loops(e celast.Expr) bool {
	found := false
	celast.PreOrderVisit(e, celast.NewExprVisitor(func(e celast.Expr) {
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
