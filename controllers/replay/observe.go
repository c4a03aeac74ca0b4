package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// observe reads the Route and finds its destination, Integration and Broker.
func (r *Reconciler) observe(ctx context.Context, s *scope) error {
	name := s.replay.Spec.To.Route
	route := &v1alpha1.Route{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: s.replay.Namespace, Name: string(name)}, route)
	if apierrors.IsNotFound(err) || err == nil && !route.DeletionTimestamp.IsZero() {
		return unresolved(v1alpha1.ReasonRouteNotFound, "there is no Route %s in namespace %s: create it, or delete this Replay", name, s.replay.Namespace)
	}
	if err != nil {
		return fmt.Errorf("reading Route %s: %w", name, err)
	}
	plan := s.replay.Status.Plan
	if plan != nil && plan.RouteUID != route.UID {
		return failed(v1alpha1.ReasonRouteReplaced, "Route %s is another than when this Replay began: create another Replay", name)
	}
	s.route = route
	if s.destination, err = destinationOf(s.replay, route); err != nil {
		return err
	}
	s.area, err = r.Areas.Of(ctx, types.NamespacedName{Namespace: route.Namespace, Name: string(route.Spec.IntegrationRef.Name)})
	return err
}

// destinationOf a Replay: the one that it began with, else the one that it names, else the Route's only one.
func destinationOf(o *v1alpha1.Replay, route *v1alpha1.Route) (v1alpha1.ObjectName, error) {
	want := o.Spec.To.Destination
	if o.Status.Plan != nil {
		want = o.Status.Plan.Destination
	}
	var names []string
	for _, d := range route.Spec.To {
		if d.Name == want {
			return want, nil
		}
		names = append(names, string(d.Name))
	}
	switch {
	case want != "":
		return want, unresolved(v1alpha1.ReasonDestinationNotFound, "Route %s has no destination %s: it has %s", route.Name, want, list(names))
	case len(names) == 1:
		return v1alpha1.ObjectName(names[0]), nil
	}
	return "", unresolved(v1alpha1.ReasonDestinationNotFound, "Route %s has %s: name one in spec.to.destination of another Replay", route.Name, list(names))
}

func list(names []string) string {
	if len(names) == 0 {
		return "no destination that is a sink"
	}
	return "the destinations " + strings.Join(names, ", ")
}

// observeTarget finds the durable consumers of the destination, and makes sure that between them they take copies of every slot: what is
// put into the stream before is never delivered.
func (r *Reconciler) observeTarget(ctx context.Context, s *scope) error {
	if err := s.area.Programmed(); err != nil {
		return err
	}
	stream := contract.EventStream(s.route.Namespace, s.area.Integration.Name)
	all, err := s.area.Session.Durables(ctx, stream)
	if err != nil {
		return refs.BusOutcome(err)
	}
	s.durables = slices.DeleteFunc(all, func(d bus.DurableState) bool {
		return d.RouteUID != s.route.UID || d.Destination != string(s.destination)
	})
	if takesCopies(s.durables, s.route.Namespace, s.area.Integration.Name, s.route.Name, string(s.destination)) {
		return nil
	}
	return outcome.Wait(v1alpha1.ReasonPending, "waits for Route %s to have its durable consumer for destination %s", s.route.Name, s.destination).
		On(v1alpha1.ConditionProgrammed).AsUnknown()
}

// takesCopies tells whether durable consumers filter copies of every slot.
func takesCopies(durables []bus.DurableState, namespace, integration, route, destination string) bool {
	for slot := range contract.Slots {
		if !slices.ContainsFunc(durables, func(d bus.DurableState) bool {
			return slices.Contains(d.Filters, contract.ReplayFilter(namespace, integration, route, destination)) ||
				slices.Contains(d.Filters, contract.ReplaySubject(namespace, integration, route, destination, slot))
		}) {
			return false
		}
	}
	return true
}

func unresolved(reason, format string, a ...any) error {
	return outcome.Wait(reason, format, a...).On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
}

// failed for good.
func failed(reason, format string, a ...any) error {
	return outcome.Refuse(reason, format, a...).On(v1alpha1.ConditionFailed)
}
