package steps

import (
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestKeys(t *testing.T) {
	c, err := CompileCorrelation(contract.Step{Deduplicate: &contract.Deduplicate{Key: "headers.unit"}})
	if err != nil {
		t.Fatal(err)
	}
	for value, refused := range map[string]string{
		"7": "", "Zoë": "", strings.Repeat("x", 256): "", "": "0 bytes", strings.Repeat("x", 257): "257 bytes",
		// A document holds its key as JSON does, and would come back with another.
		"a\xffb": "UTF-8",
	} {
		key, err := c.Key(&sdk.Message{Headers: map[string]string{"unit": value}})
		if refused == "" && (err != nil || key != value) || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%.10q: %q, %v, want %q", value, key, err, refused)
		}
	}
}
