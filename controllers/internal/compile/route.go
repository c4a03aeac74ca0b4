package compile

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

// Route is one destination of a Route, as the pods of its Connector run it.
func Route(i *v1alpha1.Integration, r *v1alpha1.Route, d *v1alpha1.Destination) (contract.Route, error) {
	out := contract.Route{
		Name: r.Name, UID: string(r.UID), Generation: r.Generation,
		Destination: string(d.Name), Integration: i.Name,
		Stream:   contract.EventStream(r.Namespace, i.Name),
		Durable:  contract.DurableName(r.Namespace, r.Name, string(d.Name)),
		Delivery: Delivery(d.Delivery, r.Spec.Delivery, i.Spec.Delivery),
	}
	out.Sources = sources(r)
	setOrder(&out.Delivery, r, d)
	out.Steps = stepsTo(r, d.Name)
	out.Steps = append(out.Steps, mediation("to["+string(d.Name)+"].", d.Filter, d.Steps)...)
	if d.Event != nil {
		raw, err := json.Marshal(contract.EventOperation{Type: d.Event.Type})
		if err != nil {
			return out, fmt.Errorf("event of destination %s: %w", d.Name, err)
		}
		out.Operation = raw
	}
	if d.Table != nil {
		op := TableOperation(d.Table)
		raw, err := json.Marshal(contract.EventOperation{Table: &op})
		if err != nil {
			return out, fmt.Errorf("table of destination %s: %w", d.Name, err)
		}
		out.Operation = raw
	}
	if op := systems.OperationOf(d.Operation); op != nil {
		raw, err := op.OptionsJSON()
		if err != nil {
			return out, fmt.Errorf("operation of destination %s: %w", d.Name, err)
		}
		out.Operation = raw
	}
	return out, nil
}

// RouteDigest is of everything but the generation, which changes without meaning (suspend, replicas).
func RouteDigest(r contract.Route) (string, error) {
	r.Generation = 0
	return digest(r)
}

// Filters of a destination's durable consumer: the Route's sources and types, what Replays bring for this destination, and the mark that lets
// its floor move.
func Filters(r *v1alpha1.Route, destination string) []string {
	integration := string(r.Spec.IntegrationRef.Name)
	return append(EventFilters(r), contract.ReplayFilter(r.Namespace, integration, r.Name, destination), contract.MarkSubject(r.Namespace, integration))
}

// EventFilters are the subjects of the events that a Route reads: its sources and types.
func EventFilters(r *v1alpha1.Route) []string {
	integration := string(r.Spec.IntegrationRef.Name)
	var out []string
	for _, f := range r.Spec.From {
		types, token := f.Types, string(f.Connector)
		if f.Events != nil {
			types, token = f.Events.Types, contract.RelayToken
		}
		if len(types) == 0 {
			types = []string{""}
		}
		for _, t := range types {
			out = append(out, contract.EventFilter(r.Namespace, integration, token, t))
		}
	}
	return withoutCovered(out)
}

// ReadsEvent tells whether a Route reads the Integration's own events of a type.
func ReadsEvent(r *v1alpha1.Route, eventType string) bool {
	for _, f := range r.Spec.From {
		if f.Events == nil {
			continue
		}
		if len(f.Events.Types) == 0 || slices.ContainsFunc(f.Events.Types, func(t string) bool { return covers(t, eventType) }) {
			return true
		}
	}
	return false
}

// RouteKey names a destination of a Route in the annotation of a ConfigMap.
func RouteKey(route, destination string) string { return route + "/" + destination }

// RouteDigests is the annotation of a ConfigMap that says which Routes it holds.
func RouteDigests(routes []contract.Route) (string, error) {
	return digests(routes, func(r contract.Route) string { return RouteKey(r.Name, r.Destination) }, RouteDigest)
}

func digests[T any](list []T, key func(T) string, digest func(T) (string, error)) (string, error) {
	out := map[string]string{}
	for _, v := range list {
		d, err := digest(v)
		if err != nil {
			return "", err
		}
		out[key(v)] = d
	}
	raw, err := json.Marshal(out)
	return string(raw), err
}
