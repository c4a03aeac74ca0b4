package verify

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// Tools that read the catalogue instead of the API accept what the API accepts: every sample's options follow its system's JSON Schema.
func TestSamplesFollowTheCatalogue(t *testing.T) {
	var out bytes.Buffer
	if err := catalog.Describe(&out, "json"); err != nil {
		t.Fatal(err)
	}
	var document struct{ Systems []map[string]json.RawMessage }
	if err := json.Unmarshal(out.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	schemas := map[string]*steps.Schema{}
	for _, s := range document.Systems {
		var name string
		if err := json.Unmarshal(s["name"], &name); err != nil {
			t.Fatal(err)
		}
		for _, role := range []string{"source", "sink", "service"} {
			if s[role] == nil {
				continue
			}
			schema, err := steps.CompileSchema(string(s[role]))
			if err != nil {
				t.Fatal(err)
			}
			schemas[role+"."+name] = schema
		}
	}
	tried := map[string]bool{}
	check := func(role, name string, options any) error {
		raw, err := json.Marshal(options)
		if err != nil {
			return err
		}
		tried[role+"."+name] = true
		return schemas[role+"."+name].Check(t.Context(), &sdk.Message{Data: raw, Format: sdk.FormatJSON})
	}
	for _, file := range filesBelow(t, filepath.Join(root, "config/samples")) {
		if !strings.HasPrefix(file, "connector-") {
			continue
		}
		for _, text := range bytes.Split(read(t, filepath.Join(root, "config/samples", file)), []byte("\n---\n")) {
			var c struct {
				Kind string
				Spec map[string]any
			}
			if err := yaml.Unmarshal(text, &c); err != nil || c.Kind != "Connector" {
				continue
			}
			for role, value := range c.Spec {
				members, _ := value.(map[string]any)
				for name, options := range members {
					if schemas[role+"."+name] == nil {
						continue
					}
					if err := check(role, name, options); err != nil {
						t.Errorf("%s: %s %s: %v", file, role, name, err)
					}
				}
			}
		}
	}
	for name := range schemas {
		if !tried[name] {
			t.Errorf("no sample was held against the schema of %s", name)
		}
	}
	if err := check("source", "generator", map[string]any{"rate": 0}); err == nil {
		t.Error("a rate of 0 follows the schema")
	}
}
