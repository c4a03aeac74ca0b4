package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/metrics"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
)

func (r *Reconciler) phases() []reconcile.Phase[*scope] {
	return []reconcile.Phase[*scope]{
		{Condition: v1alpha1.ConditionResolvedRefs, Run: r.observe},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.reconcileStreams},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.reconcileDurables},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.reconcilePositions},
	}
}

// observe reads what names the Integration, and which Broker it uses.
func (r *Reconciler) observe(ctx context.Context, s *scope) error {
	connectors, err := refs.ConnectorsOf(ctx, r.Client, s.key())
	if err != nil {
		return err
	}
	routes, err := refs.RoutesOf(ctx, r.Client, s.key())
	if err != nil {
		return err
	}
	s.connectors = slices.DeleteFunc(connectors, func(c v1alpha1.Connector) bool { return !c.DeletionTimestamp.IsZero() })
	s.routes = slices.DeleteFunc(routes, func(o v1alpha1.Route) bool { return !o.DeletionTimestamp.IsZero() })
	slices.SortFunc(s.connectors, func(a, b v1alpha1.Connector) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.routes, func(a, b v1alpha1.Route) int { return strings.Compare(a.Name, b.Name) })
	s.area, err = r.Areas.At(ctx, s.integration)
	return err
}

// reconcileStreams makes or repairs the streams, and looks at how full they are.
func (r *Reconciler) reconcileStreams(ctx context.Context, s *scope) error {
	if s.area.Session == nil {
		return refs.Unreachable(s.area.Unreachable)
	}
	i := s.integration
	events, dead := compile.Sizes(i.Spec.Retention)
	kept := int64(0)
	if slices.ContainsFunc(s.routes, func(r v1alpha1.Route) bool { return compile.NeedsState(&r) }) ||
		slices.ContainsFunc(s.connectors, func(c v1alpha1.Connector) bool { return compile.KeepsPosition(&c) }) {
		kept = compile.StateSize(i.Spec.Retention)
	}
	claims := int64(0)
	if slices.ContainsFunc(s.connectors, func(c v1alpha1.Connector) bool { return compile.TakesClaims(&c) }) {
		claims = compile.ClaimsSize(i.Spec.Retention)
	}
	if _, err := s.area.Session.EnsureStreams(ctx, bus.Streams{
		Namespace: i.Namespace, Integration: i.Name, UID: i.UID, MaxBytes: events, DeadMaxBytes: dead, StateMaxBytes: kept, ClaimsMaxBytes: claims,
		Tables: wantedTables(i), Retention: compile.Retention(i.Spec.Retention), DeduplicationWindow: compile.DeduplicationWindow(i),
	}); err != nil {
		return refs.BusOutcome(err)
	}
	state, err := s.area.Session.StreamsState(ctx, i.Namespace, i.Name)
	if err != nil {
		return refs.BusOutcome(err)
	}
	s.storage = &state
	return r.reconcileTables(ctx, s)
}

// reconcileDurables removes the durable consumers that no Route has any more, and counts what waits for the others. What is not MetIP's (no Route in the metadata) stays.
func (r *Reconciler) reconcileDurables(ctx context.Context, s *scope) error {
	stream := contract.EventStream(s.integration.Namespace, s.integration.Name)
	durables, err := s.area.Session.Durables(ctx, stream)
	if err != nil {
		return refs.BusOutcome(err)
	}
	pending := map[metrics.Destination]uint64{}
	for _, d := range durables {
		if d.RouteUID == "" {
			continue
		}
		wanted, err := r.wanted(ctx, s, d)
		if err != nil {
			return err
		}
		if wanted {
			pending[metrics.Destination{Route: d.Route, Name: d.Destination}] += d.Pending + uint64(d.AckPending)
			continue
		}
		if !s.delivers(d) {
			if err := s.area.Session.PurgeState(ctx, s.integration.Namespace, s.integration.Name, d.RouteUID, d.Destination); err != nil {
				return refs.BusOutcome(err)
			}
		}
		if err := s.area.Session.DeleteDurable(ctx, stream, d.Name); err != nil {
			return refs.BusOutcome(err)
		}
		ctrl.LoggerFrom(ctx).Info("removed a durable consumer that no route has any more", "stream", stream, "durable", d.Name)
	}
	if r.Backlog != nil && s.integration.DeletionTimestamp.IsZero() {
		r.Backlog.Set(s.key(), pending, s.now)
	}
	return nil
}

// gone: nothing waits any more that anybody knows of.
func (r *Reconciler) gone(_ context.Context, integration types.NamespacedName) error {
	if r.Backlog != nil {
		r.Backlog.Forget(integration)
	}
	return nil
}

// wanted tells whether a Route has a durable consumer. The cache may lag behind another operator's work, so that the API server has the
// last word before anything is removed.
func (r *Reconciler) wanted(ctx context.Context, s *scope, d bus.DurableState) (bool, error) {
	for i := range s.routes {
		if has(&s.routes[i], d) {
			return true, nil
		}
	}
	var list v1alpha1.RouteList
	err := r.Live.List(ctx, &list, inNamespace(s.integration.Namespace))
	if err != nil {
		return true, fmt.Errorf("listing Routes: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp.IsZero() && has(&list.Items[i], d) {
			return true, nil
		}
	}
	return false, nil
}

// delivers tells whether a Route still has the destination of a durable consumer, which then has another: what waits in its state is owed.
func (s *scope) delivers(d bus.DurableState) bool {
	return slices.ContainsFunc(s.routes, func(r v1alpha1.Route) bool {
		return r.UID == d.RouteUID && slices.ContainsFunc(r.Spec.To, func(to v1alpha1.Destination) bool { return string(to.Name) == d.Destination })
	})
}

func has(route *v1alpha1.Route, d bus.DurableState) bool {
	if route.UID != d.RouteUID {
		return false
	}
	for i := range route.Spec.To {
		if slices.ContainsFunc(compile.Durables(route, &route.Spec.To[i]), func(want compile.Durable) bool { return want.Name == d.Name }) {
			return true
		}
	}
	return false
}

// brokerOf an Integration that is being deleted: the one that holds its streams according to the status, else the one that it would use.
func (r *Reconciler) brokerOf(ctx context.Context, i *v1alpha1.Integration) (types.NamespacedName, bool, error) {
	if namespace, name, ok := strings.Cut(i.Status.Broker, "/"); ok {
		key := types.NamespacedName{Namespace: namespace, Name: name}
		err := r.Client.Get(ctx, key, &v1alpha1.Broker{})
		return key, err == nil, ignoreNotFound(err)
	}
	broker, err := refs.Broker(ctx, r.Client, r.Areas.OperatorNamespace, i)
	if broker == nil || err != nil {
		return types.NamespacedName{}, false, nil //nolint:nilerr // no Broker was ever resolved, so that it has nothing of ours
	}
	return types.NamespacedName{Namespace: broker.Namespace, Name: broker.Name}, true, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

var errNoBroker = errors.New("its Broker does not exist any more")
