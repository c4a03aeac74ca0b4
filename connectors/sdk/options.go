package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// DecodeOptions reads a system's options. A member that the type does not have is an error, so that operator and pod
// of different versions do not misunderstand each other silently.
func DecodeOptions(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("options of the system: %w", err)
	}
	return nil
}
