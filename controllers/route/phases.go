package route

import (
	"context"
	"fmt"
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/validate"
)

func (r *Reconciler) phases() []reconcile.Phase[*scope] {
	return []reconcile.Phase[*scope]{
		{Condition: v1alpha1.ConditionAccepted, Run: r.reconcileAccepted},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: r.observe},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.reconcileProgrammed},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: func(_ context.Context, s *scope) error { return s.unresolved }},
	}
}

// reconcileAccepted compiles the expressions. The durable consumers of a Route that is edited into an invalid one stay, and keep its place.
func (r *Reconciler) reconcileAccepted(ctx context.Context, s *scope) error {
	invalid := validate.Outcome(r.Valid.Route(s.route))
	if invalid == nil {
		return nil
	}
	if err := r.observe(ctx, s); isHold(err) { // for the rest of the status
		return err
	}
	return invalid
}

// reconcileProgrammed makes what the Route needs on the broker. A call needs permissions, which the sources' Connectors see to.
func (r *Reconciler) reconcileProgrammed(ctx context.Context, s *scope) error {
	if s.call != nil {
		return s.callProgrammed()
	}
	return r.reconcileDurables(ctx, s)
}

// reconcileDurables makes or repairs the durable consumers of each destination.
func (r *Reconciler) reconcileDurables(ctx context.Context, s *scope) error {
	if err := s.area.Programmed(); err != nil {
		return err
	}
	for i := range s.destinations {
		d := &s.destinations[i]
		for _, durable := range buildDurables(s, d) {
			if _, err := s.area.Session.EnsureDurable(ctx, durable); err != nil {
				return refs.BusOutcome(fmt.Errorf("destination %s: %w", d.spec.Name, err))
			}
		}
		d.programmed = true
	}
	return nil
}

// buildDurables are the durable consumers of a destination. They begin with the Route, however late they are made.
func buildDurables(s *scope, d *destination) []bus.Durable {
	route, integration := s.route, s.area.Integration
	start := route.CreationTimestamp.Time
	if route.Spec.Start == v1alpha1.RouteStartEarliest {
		start = time.Time{}
	}
	paused := compile.Suspended(integration.Spec.Suspend, route.Spec.Suspend)
	if d.connector != nil {
		paused = paused || compile.Suspended(d.connector.Spec.Suspend)
	}
	var out []bus.Durable
	for _, durable := range compile.Durables(route, d.spec) {
		out = append(out, bus.Durable{
			Stream: contract.EventStream(route.Namespace, integration.Name), Name: durable.Name, Filters: durable.Filters, Start: start,
			RouteUID: route.UID, Route: route.Name, Destination: string(d.spec.Name),
			AckWait: compile.AckWait, Lanes: durable.Lanes, Window: durable.Window, OnePod: durable.OnePod,
			Paused: paused,
		})
	}
	return out
}
