package validate

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/systems"
)

// checkKeys of a Route's deliveries.
func checkKeys(spec *field.Path, r *v1alpha1.Route) field.ErrorList {
	var errs field.ErrorList
	if d := r.Spec.Delivery; d != nil {
		errs = append(errs, checkKey(spec.Child("delivery", "key"), d.Key)...)
	}
	for _, to := range r.Spec.To {
		if to.Delivery != nil {
			errs = append(errs, checkKey(spec.Child("to").Key(string(to.Name)).Child("delivery", "key"), to.Delivery.Key)...)
		}
	}
	return errs
}

// checkKey compiles an expression that yields a key.
func checkKey(path *field.Path, text v1alpha1.Expression) field.ErrorList {
	if text == "" {
		return nil
	}
	if _, err := steps.CompileKey(string(text)); err != nil {
		return field.ErrorList{systems.Invalid(path, string(text), err)}
	}
	return nil
}
