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
		out = append(out, namedStep(prefix, n, &list[n]))
	}
	return out
}

func namedStep(prefix string, n int, s *v1alpha1.Step) contract.Step {
	step := Step(s)
	step.Name = fmt.Sprintf("%ssteps[%d]", prefix, n)
	if s.Name != "" {
		step.Name += " (" + string(s.Name) + ")"
	}
	return step
}

// Step as the data plane reads it, without a name.
func Step(s *v1alpha1.Step) contract.Step {
	out := contract.Step{Filter: string(s.Filter), Delay: delay(s.Delay), Throttle: throttle(s.Throttle), Enrich: enrich(s.Enrich)}
	if s.Transform != nil {
		out.JQ, out.CEL = s.Transform.JQ, string(s.Transform.CEL)
	}
	if len(s.SetHeaders) > 0 {
		out.SetHeaders = make(map[string]string, len(s.SetHeaders))
		for name, value := range s.SetHeaders {
			out.SetHeaders[name] = string(value)
		}
	}
	setFormats(&out, s)
	if s.Redact != nil {
		out.Redact = &contract.Redact{Paths: s.Redact.Paths, Mask: s.Redact.Mask}
	}
	if s.RecipientList != nil {
		out.RecipientList = &contract.RecipientList{CEL: string(s.RecipientList.CEL)}
	}
	if s.LoadBalance != nil {
		out.LoadBalance = loadBalance(s.LoadBalance)
	}
	setState(&out, s)
	return out
}
