package catalog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

func TestCatalogue(t *testing.T) {
	systems := Systems()
	if !slices.IsSortedFunc(systems, func(a, b sdk.System) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the catalogue is not sorted by name")
	}
	for _, s := range systems {
		if s.Source == nil && s.Sink == nil && s.Service == nil {
			t.Errorf("%s is neither source, sink nor service", s.Name)
		}
		if found, ok := Lookup(s.Name); !ok || found.Name != s.Name {
			t.Errorf("%s is not found", s.Name)
		}
	}
	if _, ok := Lookup("fax"); ok {
		t.Error("there is a system called fax")
	}
}

// What tools read is what this program can do, and each part of it is a JSON Schema.
func TestDescribe(t *testing.T) {
	var out bytes.Buffer
	if err := Describe(&out, "json"); err != nil {
		t.Fatal(err)
	}
	type described struct {
		Name                             string
		Source, Sink, Operation, Service json.RawMessage
	}
	var d struct{ Systems []described }
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	systems := Systems()
	if len(d.Systems) != len(systems) {
		t.Fatalf("%d systems are described, and there are %d", len(d.Systems), len(systems))
	}
	for i, s := range d.Systems {
		if has := systems[i]; s.Name != has.Name || (s.Source != nil) != (has.Source != nil) || (s.Sink != nil) != (has.Sink != nil) || (s.Service != nil) != (has.Service != nil) {
			t.Errorf("%s is described with source %t, sink %t and service %t, and is another", s.Name, s.Source != nil, s.Sink != nil, s.Service != nil)
		}
		for role, schema := range map[string]json.RawMessage{"source": s.Source, "sink": s.Sink, "operation": s.Operation, "service": s.Service} {
			if schema == nil {
				continue
			}
			if _, err := steps.CompileSchema(string(schema)); err != nil {
				t.Errorf("%s of %s: %v", role, s.Name, err)
			}
		}
	}
	out.Reset()
	if err := Describe(&out, "table"); err != nil || strings.Count(out.String(), "\n") != len(systems)+1 {
		t.Errorf("table: %v\n%s", err, out.String())
	}
	if err := Describe(&out, "xml"); err == nil {
		t.Error("there is a format xml")
	}
}
