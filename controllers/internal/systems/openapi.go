package systems

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

// OpenAPI is a service's document as the pods read it: JSON; empty where there is none.
func OpenAPI(s *v1alpha1.Service) (string, error) {
	if s == nil || s.OpenAPI == nil {
		return "", nil
	}
	text, err := yaml.YAMLToJSONStrict([]byte(s.OpenAPI.Inline))
	if err != nil {
		return "", fmt.Errorf("it is neither JSON nor YAML: %w", err)
	}
	return string(text), nil
}

// checkOpenAPI compiles the document as the pods do. An error shows no more of it than its place.
func checkOpenAPI(s *v1alpha1.Service) field.ErrorList {
	text, err := OpenAPI(s)
	if err == nil && text != "" {
		err = steps.CheckOpenAPI(text)
	}
	if err == nil {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec", "service", "openAPI", "inline"), field.OmitValueType{}, err.Error())}
}
