package validate

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

// checkCallSteps refuses what makes messages wait: a caller waits too, and holds a connection.
func checkCallSteps(path *field.Path, list []v1alpha1.Step) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		if list[i].Delay != nil {
			errs = append(errs, field.Invalid(path.Index(i).Child("delay"), "", "a call is answered at once: delay is for a Route with `to`"))
		}
		if list[i].Throttle != nil {
			errs = append(errs, field.Invalid(path.Index(i).Child("throttle"), "", "a call is answered at once: how many run at a time is the service's maxConcurrent"))
		}
	}
	return errs
}
