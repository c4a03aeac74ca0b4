package compile

import (
	"fmt"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// mediation is a filter and steps, in order, each named by its field.
func mediation(prefix string, filter v1alpha1.Expression, list []v1alpha1.Step) []contract.Step {
	var out []contract.Step
	if filter != "" {
		out = append(out, contract.Step{Name: prefix + "filter", Filter: string(filter)})
	}
	for n := range list {
		step := Step(&list[n])
		step.Name = fmt.Sprintf("%ssteps[%d]", prefix, n)
		if list[n].Name != "" {
			step.Name += " (" + string(list[n].Name) + ")"
		}
		out = append(out, step)
	}
	return out
}

// Step as the data plane reads it, without a name.
func Step(s *v1alpha1.Step) contract.Step {
	out := contract.Step{Filter: string(s.Filter), Delay: delay(s.Delay), Throttle: throttle(s.Throttle)}
	if s.Transform != nil {
		out.JQ = s.Transform.JQ
	}
	return out
}
