package steps

import (
	"context"
	"errors"
	"fmt"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Step is one compiled mediation that looks at one message at a time. It is safe for concurrent use.
type Step interface {
	// Apply changes the message in place. It is false when the message is not to be delivered, which is no error. An error that wraps
	// ErrLimit may pass when it is tried again; a *NotBefore says when to give it the message again; no other error passes.
	Apply(ctx context.Context, m *sdk.Message) (pass bool, err error)
}

// FieldError says which field of a step does not compile, as the API names it: `transform.jq`.
type FieldError struct {
	Field string
	// Value of the field, as text.
	Value string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// Compile a step. An error is a *FieldError.
func Compile(s contract.Step) (Step, error) {
	switch {
	case s.Filter != "":
		f, err := CompileFilter(s.Filter)
		return compiled(filterStep{f}, "filter", s.Filter, err)
	case s.JQ != "":
		t, err := CompileTransform(s.JQ)
		return compiled(transformStep{t}, "transform.jq", s.JQ, err)
	case s.CEL != "":
		b, err := CompileBody(s.CEL)
		return compiled(bodyStep{b}, "transform.cel", s.CEL, err)
	case len(s.SetHeaders) > 0:
		return checked(compileHeaders(s.SetHeaders))
	case s.Redact != nil:
		r, err := CompileRedaction(s.Redact)
		return checked(redactStep{r}, err)
	case s.RecipientList != nil:
		r, err := compileRecipients(s.RecipientList)
		return compiled(r, "recipientList.cel", s.RecipientList.CEL, err)
	case s.LoadBalance != nil:
		return checked(compileBalance(s.LoadBalance))
	case s.Validate != nil:
		return compileValidate(s.Validate)
	case s.Convert != nil:
		return compileConvert(s.Convert)
	case s.Split != nil:
		return compileSplit(s.Split)
	case s.Enrich != nil:
		return compileEnrich(s.Enrich)
	case s.Delay != nil:
		return compileDelay(s.Delay)
	case s.Throttle != nil:
		return compileThrottle(s.Throttle)
	case s.Deduplicate != nil, s.Aggregate != nil, s.Resequence != nil:
		return compileState(s)
	default:
		return nil, &FieldError{Field: "", Err: errors.New("the step has no member that this release knows")}
	}
}

func compiled(s Step, field, value string, err error) (Step, error) {
	if err != nil {
		return nil, &FieldError{Field: field, Value: value, Err: err}
	}
	return s, nil
}

// checked is a step whose error says its field already.
func checked[S Step](s S, err error) (Step, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

type filterStep struct{ *Filter }

func (s filterStep) Apply(_ context.Context, m *sdk.Message) (bool, error) { return s.Match(m) }

type transformStep struct{ *Transform }

func (s transformStep) Apply(ctx context.Context, m *sdk.Message) (bool, error) {
	body, pass, err := s.Transform.Apply(ctx, m)
	if err != nil || !pass {
		return false, err
	}
	setJSON(m, body)
	return true, nil
}

type bodyStep struct{ *Body }

func (s bodyStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	body, err := s.Make(m)
	if err != nil {
		return false, err
	}
	setJSON(m, body)
	return true, nil
}

func setJSON(m *sdk.Message, body []byte) {
	m.SetData(body)
	m.Claim = nil
	m.Format, m.ContentType = sdk.FormatJSON, "application/json"
}

// Run steps in order. failed is the number of the step that an error belongs to.
func Run(ctx context.Context, list []Step, m *sdk.Message) (pass bool, failed int, err error) {
	for n, s := range list {
		if pass, err = apply(ctx, s, m); err != nil || !pass {
			return false, n, err
		}
	}
	return true, 0, nil
}

// apply a step; a panic of it is its error.
func apply(ctx context.Context, s Step, m *sdk.Message) (pass bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			pass, err = false, fmt.Errorf("the step panicked: %v", r)
		}
	}()
	return s.Apply(ctx, m)
}
