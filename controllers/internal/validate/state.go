package validate

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/compile"
)

// checkState holds steps that keep state to where they can be kept: once for all, in the relay, on what all other steps have left.
func checkState(spec *field.Path, r *v1alpha1.Route) field.ErrorList {
	if call := r.Spec.Call; call != nil {
		errs := checkCallState(spec.Child("steps"), r.Spec.Steps)
		if call.Response != nil {
			errs = append(errs, checkCallState(spec.Child("call", "response", "steps"), call.Response.Steps)...)
		}
		return errs
	}
	if !compile.NeedsState(r) {
		return nil
	}
	var errs field.ErrorList
	for _, d := range r.Spec.To {
		to := spec.Child("to").Key(string(d.Name))
		errs = append(errs, checkDestinationState(spec.Child("steps"), r.Spec.Steps, &d, d.Filter == "" && len(d.Steps) == 0)...)
		errs = append(errs, checkDestinationState(to.Child("steps"), d.Steps, &d, true)...)
	}
	return errs
}

// checkCallState of the steps of a request, or of its answer.
func checkCallState(path *field.Path, list []v1alpha1.Step) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		if compile.KeepsState(&list[i]) {
			errs = append(errs, misplaced(path.Index(i), &list[i], "a call is answered by itself: no other message has a part in it"))
		}
	}
	return errs
}

// checkDestinationState of one list of a destination's steps; last says that nothing follows the list.
func checkDestinationState(path *field.Path, list []v1alpha1.Step, d *v1alpha1.Destination, last bool) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		switch {
		case !compile.KeepsState(&list[i]):
		case d.Event == nil:
			errs = append(errs, misplaced(path.Index(i), &list[i], "deduplicate, aggregate and resequence are done by the relay: deliver to an event (`to: [{name: x, event: {type: ...}}]`), and read that in another Route"))
		case !last || i < len(list)-1:
			errs = append(errs, misplaced(path.Index(i), &list[i], "deduplicate, aggregate and resequence are the last step of their destination: what comes after belongs to the Route that reads the event"))
		}
	}
	return errs
}

// misplaced names the member of the step that keeps state.
func misplaced(path *field.Path, s *v1alpha1.Step, why string) *field.Error {
	member := "resequence"
	switch {
	case s.Deduplicate != nil:
		member = "deduplicate"
	case s.Aggregate != nil:
		member = "aggregate"
	}
	return field.Invalid(path.Child(member), field.OmitValueType{}, why)
}
