package validate

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

// weightsAhead is how long before it begins a change of weights has to be known: until then every pod that decides by it has been replaced.
const weightsAhead = 10 * time.Minute

// WeightChanges checks that a loadBalance that is there gets no change that has begun, or is about to: the pods of one destination would go by
// it before those of another do, and a message would go to nobody. Only the webhook can ask, for only it sees the Route as it was.
func WeightChanges(old, route *v1alpha1.Route, now time.Time) field.ErrorList {
	was, _ := balanceOf(old)
	is, n := balanceOf(route)
	if was == nil || is == nil {
		return nil // where every destination gets everything, as it was before or is from now on, none goes without
	}
	var errs field.ErrorList
	path := field.NewPath("spec", "steps").Index(n).Child("loadBalance", "changes")
	for i, c := range is.Changes {
		known := slices.ContainsFunc(was.Changes, func(o v1alpha1.WeightChange) bool { return o.From.Equal(&c.From) })
		if first := now.Add(weightsAhead); !known && c.From.Time.Before(first) {
			errs = append(errs, field.Invalid(path.Index(i).Child("from"), c.From.UTC().Format(time.RFC3339),
				fmt.Sprintf("a change begins %s ahead at the earliest, so that every pod knows of it: write %s or later", weightsAhead, first.Add(time.Minute).UTC().Truncate(time.Minute).Format(time.RFC3339))))
		}
	}
	return errs
}

func balanceOf(r *v1alpha1.Route) (b *v1alpha1.LoadBalance, step int) {
	for n := range r.Spec.Steps {
		if b := r.Spec.Steps[n].LoadBalance; b != nil {
			return b, n
		}
	}
	return nil, 0
}
