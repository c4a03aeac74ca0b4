package compile

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// stepsTo are a Route's filter and steps as one of its destinations runs them. A wireTap is no step of the data plane: the destination that it
// names runs what stands before it, and the others do not have it. recipientList and loadBalance let a message pass for some destinations,
// and are told which one asks.
func stepsTo(r *v1alpha1.Route, destination v1alpha1.ObjectName) []contract.Step {
	out := mediation("", r.Spec.Filter, nil)
	for n := range r.Spec.Steps {
		s := &r.Spec.Steps[n]
		if s.WireTap != nil {
			if s.WireTap.To == destination {
				break
			}
			continue
		}
		step := namedStep("", n, s)
		if step.RecipientList != nil {
			step.RecipientList.Destination = string(destination)
			step.RecipientList.Destinations = chosen(r)
		}
		if step.LoadBalance != nil {
			if !spreads(s.LoadBalance, destination) {
				continue
			}
			step.LoadBalance.Destination = string(destination)
		}
		out = append(out, step)
	}
	return out
}

// chosen are the destinations that a recipientList can choose from: all but those that are tapped.
func chosen(r *v1alpha1.Route) []string {
	tapped := map[v1alpha1.ObjectName]bool{}
	for n := range r.Spec.Steps {
		if tap := r.Spec.Steps[n].WireTap; tap != nil {
			tapped[tap.To] = true
		}
	}
	var out []string
	for n := range r.Spec.To {
		if name := r.Spec.To[n].Name; !tapped[name] {
			out = append(out, string(name))
		}
	}
	return out
}

// spreads tells whether the destination is one of those that messages are spread over, now or at another time.
func spreads(b *v1alpha1.LoadBalance, destination v1alpha1.ObjectName) bool {
	_, ok := b.Weights[string(destination)]
	for n := range b.Changes {
		_, then := b.Changes[n].Weights[string(destination)]
		ok = ok || then
	}
	return ok
}

func loadBalance(b *v1alpha1.LoadBalance) *contract.LoadBalance {
	out := &contract.LoadBalance{Key: string(b.Key), Weights: weights(b.Weights)}
	for n := range b.Changes {
		out.Changes = append(out.Changes, contract.WeightChange{From: b.Changes[n].From.UTC(), Weights: weights(b.Changes[n].Weights)})
	}
	return out
}

func weights(w v1alpha1.Weights) map[string]int32 {
	out := make(map[string]int32, len(w))
	for name, weight := range w {
		out[name] = int32(weight)
	}
	return out
}
