package connector

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/systems"
)

// RelayReconciler reconciles the relays of Integrations. A relay is made while a Route of the Integration makes events, by the same phases as
// a Connector's pods; what was found of it is in the Integration's status.relay.
type RelayReconciler struct {
	// Reconciler of Connectors that was set up before; both share what they remember.
	*Reconciler
	lifecycle *reconcile.Reconciler[*v1alpha1.Integration, *scope]
}

// SetupWithManager adds the controller.
func (r *RelayReconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.lifecycle = r.relays()
	return ctrl.NewControllerManagedBy(mgr).
		Named("relay").
		For(&v1alpha1.Integration{}, builder.WithPredicates(predicate.Or[client.Object](integrationChanged, relayChanged))).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&corev1.ConfigMap{}, builder.OnlyMetadata).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(podToRelay)).
		Watches(&v1alpha1.Route{}, handler.EnqueueRequestsFromMapFunc(routeToRelay), builder.WithPredicates(specChanged)).
		WatchesMetadata(&corev1.Secret{}, secretHandler{relays: true}).
		WatchesRawSource(r.Hub.Connectors(relayItself)).
		WatchesRawSource(r.ConfigMaps.Changes(r.schemaToRelays)).
		WatchesRawSource(r.Hub.Brokers(r.brokerToRelays)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers}).
		Complete(r)
}

func (r *RelayReconciler) relays() *reconcile.Reconciler[*v1alpha1.Integration, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Integration, *scope]{
		Client: r.Client,
		Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Integration, *scope]{
			New: func() *v1alpha1.Integration { return &v1alpha1.Integration{} },
			Status: func(i *v1alpha1.Integration) (*[]metav1.Condition, *int64) {
				if i.Status.Relay == nil {
					i.Status.Relay = &v1alpha1.RelayStatus{}
				}
				return &i.Status.Relay.Conditions, &i.Status.Relay.ObservedGeneration
			},
			Scope: func(i *v1alpha1.Integration) *scope {
				return &scope{connector: refs.Relay(i), relayOf: i, system: systems.Relay(), now: time.Now()}
			},
			Phases:    r.phases()[1:], // there is no spec to accept
			SetStatus: setRelayStatus,
			Requeue:   func(s *scope) time.Duration { return s.requeue },
			Resync:    r.Resync,
		},
	}
}

// setRelayStatus is setStatus, written into the Integration.
func setRelayStatus(s *scope, err error, failed string) {
	setStatus(s, err, failed)
	is := s.connector.Status
	s.relayOf.Status.Relay = &v1alpha1.RelayStatus{
		ObservedGeneration: is.ObservedGeneration, Conditions: is.Conditions, AttachedRoutes: is.AttachedRoutes,
		Replicas: is.Replicas, ConfigHash: is.ConfigHash, CredentialExpiry: is.CredentialExpiry,
	}
}

// Reconcile is one pass over an Integration: its relay is made, kept or taken away.
func (r *RelayReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	i := &v1alpha1.Integration{}
	err := r.Client.Get(ctx, req.NamespacedName, i)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	key := types.NamespacedName{Namespace: req.Namespace, Name: contract.RelayName(req.Name)}
	if err != nil {
		return ctrl.Result{}, r.gone(ctx, key)
	}
	if i.DeletionTimestamp.IsZero() {
		routes, err := refs.RelayedRoutes(ctx, r.Client, req.NamespacedName)
		if err != nil {
			return ctrl.Result{}, err
		}
		if len(routes) == 0 {
			return ctrl.Result{}, r.remove(ctx, i, key)
		}
		if i.Status.Relay == nil { // the note that there are children to remove some day
			return ctrl.Result{}, r.note(ctx, i, &v1alpha1.RelayStatus{})
		}
	}
	return r.lifecycle.Reconcile(ctx, req)
}

// remove the relay of an Integration that needs none: its children, its broker user, its status.
func (r *RelayReconciler) remove(ctx context.Context, i *v1alpha1.Integration, key types.NamespacedName) error {
	if i.Status.Relay == nil { // which is written before the first child is made, and taken away after the last is gone
		return nil
	}
	name := metav1.ObjectMeta{Namespace: key.Namespace, Name: metadata.ConnectorName(key.Name)}
	list := []client.Object{
		&appsv1.Deployment{ObjectMeta: name}, &networkingv1.NetworkPolicy{ObjectMeta: name}, &corev1.ServiceAccount{ObjectMeta: name},
	}
	maps, err := r.configMaps(ctx, key)
	if err != nil {
		return err
	}
	for n := range maps {
		list = append(list, &maps[n])
	}
	for _, child := range list {
		if _, err := r.Apply.Delete(ctx, i, child); err != nil {
			return fmt.Errorf("removing the relay of Integration %s: %w", i.Name, err)
		}
		r.Apply.Forget(child.GetNamespace(), child.GetName())
	}
	r.settler.forget(key)
	r.refreshed.forget(key)
	record, retired, err := r.Credentials.Find(ctx, key)
	if err != nil {
		return err
	}
	if record == nil && retired == nil {
		record, retired = r.Credentials.Known(key)
	}
	if err := r.discard(ctx, key, record, retired); err != nil {
		return err
	}
	return r.note(ctx, i, nil)
}

// note in the Integration whether there is a relay.
func (r *RelayReconciler) note(ctx context.Context, i *v1alpha1.Integration, relay *v1alpha1.RelayStatus) error {
	before := i.DeepCopy()
	i.Status.Relay = relay
	err := r.Client.Status().Patch(ctx, i, client.MergeFrom(before))
	return client.IgnoreNotFound(err)
}

// relayChanged lets through what others did to status.relay.
var relayChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.(*v1alpha1.Integration), e.ObjectNew.(*v1alpha1.Integration)
	return (was.Status.Relay == nil) != (is.Status.Relay == nil)
}}

func podToRelay(_ context.Context, pod client.Object) []ctrl.Request {
	if integration, ok := contract.RelayOf(pod.GetLabels()[metadata.LabelConnector]); ok {
		return []ctrl.Request{request(pod.GetNamespace(), integration)}
	}
	return nil
}

// routeToRelay maps every Route, for one that made events and makes none any more may have been the last.
func routeToRelay(_ context.Context, route client.Object) []ctrl.Request {
	return []ctrl.Request{request(route.GetNamespace(), string(route.(*v1alpha1.Route).Spec.IntegrationRef.Name))}
}

func relayItself(_ context.Context, name types.NamespacedName) []ctrl.Request {
	if integration, ok := contract.RelayOf(name.Name); ok {
		return []ctrl.Request{request(name.Namespace, integration)}
	}
	return nil
}

func (r *RelayReconciler) brokerToRelays(ctx context.Context, broker types.NamespacedName) []ctrl.Request {
	var list v1alpha1.IntegrationList
	if err := r.Client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a Broker to relays")
	}
	var out []ctrl.Request
	for i := range list.Items {
		if list.Items[i].Status.Broker == broker.String() && list.Items[i].Status.Relay != nil {
			out = append(out, request(list.Items[i].Namespace, list.Items[i].Name))
		}
	}
	return out
}
