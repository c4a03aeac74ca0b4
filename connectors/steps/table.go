package steps

import (
	"bytes"
	"fmt"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Entry says of a message which entry of a table it is. It is safe for concurrent use.
type Entry struct {
	key    *Value
	remove *Filter
}

// CompileEntry of a destination that is a table. An error is a *FieldError.
func CompileEntry(t contract.TableOperation) (*Entry, error) {
	e := &Entry{}
	var err error
	if e.key, err = CompileValue(t.Key); err != nil {
		return nil, &FieldError{Field: "table.key", Value: t.Key, Err: err}
	}
	if t.Remove != "" {
		if e.remove, err = CompileFilter(t.Remove); err != nil {
			return nil, &FieldError{Field: "table.remove", Value: t.Remove, Err: err}
		}
	}
	return e, nil
}

// Key of the entry: a text that is not empty, a number or a boolean.
func (e *Entry) Key(m *sdk.Message) (string, error) { return correlationKey(e.key, m) }

// Removes tells whether the message removes the entry: because remove says so, or because there is nothing in its body.
func (e *Entry) Removes(m *sdk.Message) (bool, error) {
	if len(m.Data) == 0 || (m.Format == sdk.FormatJSON || m.Format == "") && string(bytes.TrimSpace(m.Data)) == "null" {
		return true, nil
	}
	if e.remove == nil {
		return false, nil
	}
	removes, err := e.remove.Match(m)
	if err != nil {
		return false, fmt.Errorf("remove: %w", err)
	}
	return removes, nil
}
