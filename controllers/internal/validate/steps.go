package validate

import (
	"errors"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/systems"
)

// checkSteps compiles each step as the data plane does.
func checkSteps(path *field.Path, list []v1alpha1.Step) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		if list[i].WireTap != nil {
			continue // there is nothing to compile
		}
		step := compile.Step(&list[i])
		if !compile.IsResolved(step) {
			continue // its schema is in a ConfigMap, which package schemas reads
		}
		_, err := steps.Compile(step)
		var f *steps.FieldError
		switch {
		case errors.As(err, &f) && f.Field != "":
			errs = append(errs, systems.Invalid(path.Index(i).Child(f.Field), f.Value, f.Err))
		case err != nil:
			errs = append(errs, field.Required(path.Index(i), err.Error()))
		}
	}
	return errs
}
