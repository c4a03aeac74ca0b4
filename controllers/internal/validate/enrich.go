package validate

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

// checkEnrich refuses enrich where what a service answers would decide which destination gets a message, for each of them asks by itself and may
// be told something else: then nobody would get it. A call has no message that could wait.
func checkEnrich(spec *field.Path, r *v1alpha1.Route) field.ErrorList {
	var errs field.ErrorList
	if call := r.Spec.Call; call != nil {
		errs = append(errs, noEnrich(spec.Child("steps"), r.Spec.Steps)...)
		if call.Response != nil {
			errs = append(errs, noEnrich(spec.Child("call", "response", "steps"), call.Response.Steps)...)
		}
		return errs
	}
	for i := range r.Spec.Steps {
		if r.Spec.Steps[i].Enrich == nil {
			continue
		}
		for _, after := range r.Spec.Steps[i+1:] {
			if after.RecipientList != nil || after.LoadBalance != nil && after.LoadBalance.Key != "" {
				errs = append(errs, field.Invalid(spec.Child("steps").Index(i).Child("enrich"), field.OmitValueType{},
					"each destination asks by itself, and they may be answered differently: enrich on the way to an event (`to: [{name: x, event: {type: ...}}]`), "+
						"and choose by recipientList or by a key of loadBalance in a Route that reads it; or enrich after them"))
				break
			}
		}
	}
	return errs
}

func noEnrich(path *field.Path, list []v1alpha1.Step) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		if list[i].Enrich != nil {
			errs = append(errs, field.Invalid(path.Index(i).Child("enrich"), field.OmitValueType{}, "a call is answered by one service: enrich is for a Route with `to`"))
		}
	}
	return errs
}
