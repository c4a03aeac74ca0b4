package compile

import (
	"slices"
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// DefaultPer is the span of a throttle's rate that names none.
const DefaultPer = time.Second

func delay(d *v1alpha1.Delay) *contract.Delay {
	if d == nil {
		return nil
	}
	return &contract.Delay{For: contract.Duration(duration(d.For, 0)), Until: string(d.Until)}
}

func throttle(t *v1alpha1.Throttle) *contract.Throttle {
	if t == nil {
		return nil
	}
	return &contract.Throttle{Rate: t.Rate, Per: contract.Duration(duration(&t.Per, DefaultPer))}
}

// Throttled tells whether a destination has a step that throttles it.
func Throttled(r *v1alpha1.Route, d *v1alpha1.Destination) bool {
	return throttled(r.Spec.Steps) || throttled(d.Steps)
}

func throttled(steps []v1alpha1.Step) bool {
	return slices.ContainsFunc(steps, func(s v1alpha1.Step) bool { return s.Throttle != nil })
}
