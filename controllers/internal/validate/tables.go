package validate

import (
	"errors"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/systems"
)

// checkTable compiles the expressions of a destination that is a table.
func checkTable(path *field.Path, t *v1alpha1.TableDestination) field.ErrorList {
	if t == nil {
		return nil
	}
	_, err := steps.CompileEntry(compile.TableOperation(t))
	var f *steps.FieldError
	if errors.As(err, &f) {
		return field.ErrorList{systems.Invalid(path.Child(f.Field), f.Value, f.Err)}
	}
	return nil
}
