package steps

import (
	"context"
	"errors"
	"fmt"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/schema"
	"github.com/metip/metip/connectors/sdk"
)

// MaxSchema of a schema's text, in bytes.
const MaxSchema = schema.MaxSize

// Schema is a compiled JSON Schema. It is safe for concurrent use.
type Schema struct{ compiled *schema.Schema }

// CompileSchema compiles a JSON Schema. The error is an *Error.
func CompileSchema(text string) (*Schema, error) {
	s, err := schema.Compile(text)
	if err == nil {
		return &Schema{s}, nil
	}
	var e *schema.Error
	if errors.As(err, &e) {
		return nil, errorAt(text, e.Offset, e.Error())
	}
	return nil, &Error{1, 1, err.Error()}
}

// Check a message's body. The error names the path of the value and the rule that it breaks, never a value.
func (s *Schema) Check(ctx context.Context, m *sdk.Message) error {
	if m.Claim != nil {
		return sdk.ErrTooLarge
	}
	if m.Format != sdk.FormatJSON && m.Format != "" {
		return fmt.Errorf("a JSON Schema needs a JSON body; this one is %s", m.Format)
	}
	body, err := m.Body()
	if err != nil {
		return err
	}
	if err = s.compiled.Check(ctx, body); errors.Is(err, schema.ErrLimit) {
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return err
}

func compileValidate(v *contract.Validate) (Step, error) {
	if v.WellFormedXML {
		return wellFormedStep{}, nil
	}
	if v.JSONSchema == nil {
		return nil, &FieldError{Field: "validate", Err: errors.New("there is nothing to validate against")}
	}
	s, err := CompileSchema(v.JSONSchema.Text)
	return compiled(schemaStep{s}, "validate.jsonSchema."+sourceOf(v.JSONSchema), "", err)
}

// sourceOf is the member of the API's schema source that a schema comes from.
func sourceOf(s *contract.Schema) string {
	if s.From != "" {
		return "configMap"
	}
	return "inline"
}

type schemaStep struct{ *Schema }

func (s schemaStep) Apply(ctx context.Context, m *sdk.Message) (bool, error) {
	err := s.Check(ctx, m)
	return err == nil, err
}

// wellFormedStep asks for XML, and no more than XML.
type wellFormedStep struct{}

func (wellFormedStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	if m.Claim != nil {
		return false, sdk.ErrTooLarge
	}
	m.Work()
	err := codec.CheckXML(m.Data)
	return err == nil, err
}
