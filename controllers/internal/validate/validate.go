package validate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/children"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/systems"
)

// Allowed is what the operator's flags let Connectors have, and without a flag nobody may.
type Allowed struct {
	// Annotations of pods; an entry that ends in / allows all under it.
	Annotations []string
	// Images of custom containers: whole ones, names that allow each tag and digest, and prefixes that end in /.
	Images []string
}

// Connector checks a Connector.
func Connector(c *v1alpha1.Connector, allowed Allowed) field.ErrorList {
	var errs field.ErrorList
	if s, err := systems.Of(c); err != nil {
		errs = append(errs, field.Required(field.NewPath("spec"), err.Error()))
	} else {
		errs = append(errs, s.Check()...)
	}
	if c.Spec.Source != nil {
		errs = append(errs, checkKey(field.NewPath("spec", "source", "partitionKey"), c.Spec.Source.PartitionKey)...)
		errs = append(errs, checkSchema(field.NewPath("spec", "source", "schema"), c.Spec.Source.Schema)...)
	}
	for _, name := range children.ForbiddenAnnotations(c.Spec.Template, allowed.Annotations) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "template", "annotations").Key(name),
			"not among the operator's --allowed-pod-annotations"))
	}
	if own := systems.Container(c); own != nil && !allowed.image(own.Image) {
		s, _ := systems.Of(c)
		errs = append(errs, field.Forbidden(field.NewPath("spec", strings.ToLower(s.Role), "custom", "image"),
			"the operator runs no such image: ask the administrator to add it, its name or a prefix to the operator's --custom-images"))
	}
	return errs
}

func (a Allowed) image(image string) bool {
	return slices.ContainsFunc(a.Images, func(entry string) bool {
		return entry == image || entry == imageName(image) || strings.HasSuffix(entry, "/") && strings.HasPrefix(image, entry)
	})
}

// imageName is an image without its tag and its digest.
func imageName(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}

// Route checks a Route.
func Route(r *v1alpha1.Route) field.ErrorList {
	spec := field.NewPath("spec")
	errs := systems.CheckFilter(spec.Child("filter"), r.Spec.Filter)
	errs = append(errs, checkSteps(spec.Child("steps"), r.Spec.Steps)...)
	errs = append(errs, checkKeys(spec, r)...)
	errs = append(errs, checkSplits(spec, r)...)
	errs = append(errs, checkState(spec, r)...)
	errs = append(errs, checkEnrich(spec, r)...)
	if r.Spec.Call != nil {
		errs = append(errs, checkCallSteps(spec.Child("steps"), r.Spec.Steps)...)
	}
	if call := r.Spec.Call; call != nil && call.Response != nil {
		errs = append(errs, checkCallSteps(spec.Child("call", "response", "steps"), call.Response.Steps)...)
		errs = append(errs, checkSteps(spec.Child("call", "response", "steps"), call.Response.Steps)...)
	}
	sources := map[v1alpha1.ObjectName]bool{}
	for _, f := range r.Spec.From {
		if f.Connector != "" {
			sources[f.Connector] = true
		}
	}
	for _, d := range r.Spec.To {
		to := spec.Child("to").Key(string(d.Name))
		if sources[d.Connector] {
			errs = append(errs, field.Invalid(to.Child("connector"), string(d.Connector), "a Route cannot deliver to its own source"))
		}
		if d.Event != nil && compile.ReadsEvent(r, d.Event.Type) {
			errs = append(errs, field.Invalid(to.Child("event"), d.Event.Type, "the Route reads this type of event itself, and would go round in a circle"))
		}
		errs = append(errs, checkTable(to, d.Table)...)
		errs = append(errs, systems.CheckFilter(to.Child("filter"), d.Filter)...)
		errs = append(errs, checkSteps(to.Child("steps"), d.Steps)...)
		if op := systems.OperationOf(d.Operation); op != nil {
			errs = append(errs, op.Check(to.Child("operation"))...)
		}
	}
	return errs
}

// wholeFields end the names of fields that hold no expression: what is wrong with them is what they are, or where.
var wholeFields = []string{
	"].split", "].event", "].delay", "].throttle", "].enrich", "].deduplicate", "].aggregate", "].resequence", ".connector", ".cron",
}

// Outcome is the error of a controller's phase for what was found: nil for nothing.
func Outcome(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	reason := v1alpha1.ReasonInvalidExpression
	switch errs[0].Type {
	case field.ErrorTypeForbidden:
		reason = v1alpha1.ReasonAnnotationNotAllowed
		if strings.HasSuffix(errs[0].Field, ".image") {
			reason = v1alpha1.ReasonImageNotAllowed
		}
	case field.ErrorTypeRequired:
		reason = v1alpha1.ReasonInvalidSpec
	case field.ErrorTypeInvalid:
		if strings.HasSuffix(errs[0].Field, "chema.inline") || strings.HasSuffix(errs[0].Field, "chema.configMap") {
			reason = v1alpha1.ReasonInvalidSchema
		}
		if slices.ContainsFunc(wholeFields, func(suffix string) bool { return strings.HasSuffix(errs[0].Field, suffix) }) {
			reason = v1alpha1.ReasonInvalidSpec
		}
	}
	lines := make([]string, len(errs))
	for i, e := range errs {
		lines[i] = fmt.Sprintf("%s: %s", e.Field, e.Detail)
	}
	return outcome.Refuse(reason, "%s", strings.Join(lines, "; ")).On(v1alpha1.ConditionAccepted)
}
