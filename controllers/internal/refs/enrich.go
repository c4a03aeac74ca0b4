package refs

import (
	"slices"

	"github.com/metip/metip/api/v1alpha1"
)

// EnrichServices are the Connectors that the steps of a Route ask, each once.
func EnrichServices(r *v1alpha1.Route) []v1alpha1.ObjectName {
	out := asked(nil, r.Spec.Steps)
	for i := range r.Spec.To {
		out = asked(out, r.Spec.To[i].Steps)
	}
	return out
}

func asked(out []v1alpha1.ObjectName, list []v1alpha1.Step) []v1alpha1.ObjectName {
	for i := range list {
		if e := list[i].Enrich; e != nil && e.Call != nil && !slices.Contains(out, e.Call.Connector) {
			out = append(out, e.Call.Connector)
		}
	}
	return out
}

// CheckEnrich tells whether a step of a Route may ask a Connector; nil for one that does not exist.
func CheckEnrich(r *v1alpha1.Route, name v1alpha1.ObjectName, c *v1alpha1.Connector) error {
	if err := checkConnector(r, name, c); err != nil {
		return err
	}
	if c.Spec.Service == nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a %s: enrich asks a service", name, role(c))
	}
	return nil
}
