package validate

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/compile"
)

// checkSchema compiles a source's schema. One in a ConfigMap is looked at once it has been resolved.
func checkSchema(path *field.Path, s *v1alpha1.SchemaSource) field.ErrorList {
	if s == nil {
		return nil
	}
	schema := compile.Schema(s)
	if schema.Text == "" {
		return nil
	}
	if _, err := steps.CompileSchema(schema.Text); err != nil {
		member := "inline"
		if schema.From != "" {
			member = "configMap"
		}
		return field.ErrorList{field.Invalid(path.Child(member), field.OmitValueType{}, err.Error())}
	}
	return nil
}

// checkSplits of a Route: one on the way to each destination, with no delay after it, and none of what is answered.
func checkSplits(spec *field.Path, r *v1alpha1.Route) field.ErrorList {
	var errs field.ErrorList
	first := slices.IndexFunc(r.Spec.Steps, isSplit)
	errs = append(errs, afterSplit(spec.Child("steps"), r.Spec.Steps, false)...)
	if r.Spec.Call != nil {
		for i := range r.Spec.Steps {
			if isSplit(r.Spec.Steps[i]) {
				errs = append(errs, field.Invalid(spec.Child("steps").Index(i).Child("split"), field.OmitValueType{}, "a request has one answer and cannot be split"))
			}
		}
		if response := r.Spec.Call.Response; response != nil {
			for i := range response.Steps {
				if isSplit(response.Steps[i]) {
					errs = append(errs, field.Invalid(spec.Child("call", "response", "steps").Index(i).Child("split"), field.OmitValueType{}, "an answer cannot be split"))
				}
			}
		}
	}
	for _, d := range r.Spec.To {
		errs = append(errs, afterSplit(spec.Child("to").Key(string(d.Name)).Child("steps"), d.Steps, first >= 0)...)
	}
	return errs
}

func isSplit(s v1alpha1.Step) bool { return s.Split != nil }

// afterSplit finds what must not follow a split.
func afterSplit(path *field.Path, list []v1alpha1.Step, split bool) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		switch {
		case split && list[i].Split != nil:
			errs = append(errs, field.Invalid(path.Index(i).Child("split"), field.OmitValueType{}, "the message has been split already: a part is not split again"))
		case split && list[i].Delay != nil:
			errs = append(errs, field.Invalid(path.Index(i).Child("delay"), field.OmitValueType{}, "a delay must stand before the split: it holds back the whole message"))
		}
		split = split || list[i].Split != nil
	}
	return errs
}
