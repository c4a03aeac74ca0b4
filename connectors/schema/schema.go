package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/metip/metip/connectors/sdk"
)

// Bounds of a schema.
const (
	// MaxSize of a schema's text, in bytes.
	MaxSize = 256 << 10
	// maxObjects of a schema. Each may be a schema of its own, and the compiler's time grows with their square.
	maxObjects = 10_000
	// maxProgram of a regular expression, in instructions.
	maxProgram = 2000
	// maxDigits and maxExponent of numbers in a schema.
	maxDigits, maxExponent = 100, 100
)

// Error says where in its text a schema is wrong.
type Error struct {
	// Offset in bytes.
	Offset int
	// Pointer is the JSON pointer of the place; empty for the whole, or where the text is not JSON.
	Pointer string
	Message string
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.Message
	}
	return "at " + e.Pointer + ": " + e.Message
}

// Violation is the first rule of a schema that a document breaks.
type Violation struct {
	// Path of the value, a JSON pointer; empty for the whole document.
	Path string
	// Rule that it breaks: the keyword, and what the schema says of it.
	Rule string
}

func (v *Violation) Error() string {
	if v.Path == "" {
		return "the document breaks the rule " + v.Rule
	}
	return v.Path + " breaks the rule " + v.Rule
}

// ErrLimit is returned for a document that would take longer to judge than one may.
var ErrLimit = errors.New("judging the document by the schema takes too long")

// Schema is compiled. It is safe for concurrent use.
type Schema struct{ root *node }

// Compile the text of a JSON Schema: of draft 2020-12, unless its $schema names an older one. `format` is checked. The error is an *Error.
func Compile(text string) (s *Schema, err error) {
	if len(text) > MaxSize {
		return nil, &Error{Message: fmt.Sprintf("the schema has %d KiB, and at most %d KiB are allowed", (len(text)+1023)>>10, MaxSize>>10)}
	}
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, &Error{Message: fmt.Sprintf("the schema cannot be compiled: %v", r)}
		}
	}()
	root, err := compile(text)
	if err != nil {
		return nil, located(text, err)
	}
	return &Schema{root}, nil
}

// Check a document as sdk.DecodeJSON gives it. The error is a *Violation, ErrLimit, or that of ctx.
func (s *Schema) Check(ctx context.Context, document any) error {
	e := evaluation{ctx: ctx, budget: maxSteps, check: lookEvery}
	return e.judge(s.root, document)
}

// judge a document.
func (e *evaluation) judge(root *node, document any) error {
	e.path = e.tokens[:0]
	if e.value(root, document, nil) {
		return nil
	}
	if e.stopped != nil {
		return e.stopped
	}
	v := e.violation
	return &v
}

// CheckBody is Check of a body that is not decoded yet.
func (s *Schema) CheckBody(ctx context.Context, body []byte) error {
	document, err := sdk.DecodeJSON(body)
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	return s.Check(ctx, document)
}
