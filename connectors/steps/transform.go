package steps

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/metip/metip/connectors/sdk"
)

// Bounds of one run of a jq program.
const (
	maxTransformTime   = time.Second
	maxTransformGrowth = 64 << 20
	// watchEvery is how often the memory of a program that runs for long is looked at.
	watchEvery = 10 * time.Millisecond
)

// Transform is a compiled jq program. It is safe for concurrent use.
type Transform struct {
	code *gojq.Code
	// usesMessage says that the program mentions $message.
	usesMessage bool
	// fields of the body that the program can look at; nil when it looks at the whole of it.
	fields *fields
}

// CompileTransform compiles a jq program. It has no access to the environment, to further input or to modules. The error is an *Error.
func CompileTransform(text string) (*Transform, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{1, 1, "the program is empty"}
	}
	if len(text) > maxExpression {
		return nil, &Error{1, 1, fmt.Sprintf("the program is longer than %d bytes", maxExpression)}
	}
	query, err := gojq.Parse(text)
	if err != nil {
		var p *gojq.ParseError
		if errors.As(err, &p) {
			return nil, errorAt(text, p.Offset-len(p.Token), err.Error())
		}
		return nil, &Error{1, 1, err.Error()}
	}
	code, err := gojq.Compile(query, gojq.WithVariables([]string{"$message"}))
	if err != nil {
		return nil, errorAt(text, mentioned(text, err.Error()), err.Error())
	}
	return &Transform{code: code, usesMessage: strings.Contains(text, "$message") || strings.Contains(text, "$__prog"), fields: jqFieldsOf(query)}, nil
}

var notFound = regexp.MustCompile(`not (?:found|defined|allowed): "?([^"/]+)`)

// mentioned finds the name that an error of gojq's compiler is about, which gives no position itself.
func mentioned(text, message string) int {
	m := notFound.FindStringSubmatch(message)
	switch {
	case strings.HasPrefix(message, "input(s)"):
		m = []string{"", "input"}
	case m == nil:
		return 0
	}
	name := regexp.MustCompile(`(?:^|[^\w.$])(` + regexp.QuoteMeta(m[1]) + `)s?(?:$|\W)`)
	if at := name.FindStringSubmatchIndex(text); at != nil {
		return at[2]
	}
	return 0
}

// Apply runs the program on the body. ok is false when the program has no result, that is, when it filters the message out; more than one
// result is an error. An error that wraps ErrLimit may pass when it is tried again.
func (t *Transform) Apply(ctx context.Context, m *sdk.Message) (body []byte, ok bool, err error) {
	v := view{m: m, fields: t.fields}
	in, err := v.data()
	if err != nil {
		return nil, false, err
	}
	if _, binary := in.([]byte); binary {
		return nil, false, errors.New("a transform needs a JSON body; this one is Binary")
	}
	guard := begin(ctx)
	defer guard.end()
	iter := t.code.RunWithContext(guard, in, t.message(m))
	out, ok := iter.Next()
	if !ok {
		return nil, false, nil
	}
	if err, failed := out.(error); failed {
		return nil, false, guard.explain(err)
	}
	switch more, two := iter.Next(); e := more.(type) {
	case error:
		return nil, false, guard.explain(e)
	default:
		if two {
			return nil, false, errors.New("the program has more than one result: collect them in an array, [..]")
		}
	}
	body, err = encodeJSON(out, false)
	return body, err == nil, err
}

func (t *Transform) message(m *sdk.Message) any {
	if !t.usesMessage {
		return nil
	}
	headers := make(map[string]any, len(m.Headers))
	for k, v := range m.Headers {
		headers[k] = v
	}
	return map[string]any{
		"id": m.ID, "type": m.Type, "source": m.Source, "subject": m.Subject,
		"time": m.Time.UTC().Format(time.RFC3339Nano), "headers": headers,
	}
}
