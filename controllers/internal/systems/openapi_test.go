package systems

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

func TestOpenAPI(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "config", "samples", "connector-http-service-openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := &v1alpha1.Connector{}
	if err := yaml.UnmarshalStrict(raw, c); err != nil {
		t.Fatal(err)
	}
	text, err := OpenAPI(c.Spec.Service)
	if err != nil || !strings.HasPrefix(text, "{") || !strings.Contains(text, `"200":`) {
		t.Fatalf("%s %v", text, err)
	}
	if err := steps.CheckOpenAPI(text); err != nil {
		t.Error(err)
	}
	check := func(inline string) string {
		c.Spec.Service.OpenAPI.Inline = inline
		s, err := Of(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Check().ToAggregate().Error()
	}
	for inline, want := range map[string]string{
		"a: [":                          "spec.service.openAPI.inline: Invalid value: it is neither JSON nor YAML",
		"a: 1\na: 2":                    "neither JSON nor YAML",
		"openapi: 2.0.0\nx: secret":     `openapi is "2.0.0"`,
		`{"openapi":"3.1.0"}`:           "no paths",
		"openapi: 3.1.0\npaths: {a: 1}": "at /paths/a",
	} {
		if got := check(inline); !strings.Contains(got, want) || strings.Contains(got, "secret") {
			t.Errorf("%q: %s, want %s", inline, got, want)
		}
	}
	if text, err := OpenAPI(&v1alpha1.Service{}); text != "" || err != nil {
		t.Error(text, err)
	}
}
