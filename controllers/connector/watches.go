package connector

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/refs"
)

// specChanged lets through what changed otherwise than in its status.
var specChanged = predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, deletionBegan)

var deletionBegan = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}}

// integrationChanged lets through what concerns the Connectors of an Integration: its spec, and whether its streams are there.
var integrationChanged = predicate.Or[client.Object](specChanged, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return programmed(e.ObjectOld) != programmed(e.ObjectNew)
}})

func programmed(o client.Object) bool {
	i, ok := o.(*v1alpha1.Integration)
	return ok && meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionProgrammed)
}

func request(namespace, name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}

func connectorItself(_ context.Context, name types.NamespacedName) []reconcile.Request {
	if isRelay(name.Name) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: name}}
}

func podToConnector(_ context.Context, pod client.Object) []reconcile.Request {
	if name := pod.GetLabels()[metadata.LabelConnector]; name != "" && !isRelay(name) {
		return []reconcile.Request{request(pod.GetNamespace(), name)}
	}
	return nil
}

func routeToConnectors(_ context.Context, route client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, name := range refs.Connectors(route.(*v1alpha1.Route)) {
		out = append(out, request(route.GetNamespace(), name))
	}
	return out
}

func (r *Reconciler) integrationToConnectors(ctx context.Context, integration client.Object) []reconcile.Request {
	list, err := refs.ConnectorsOf(ctx, r.Client, client.ObjectKeyFromObject(integration))
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping an Integration to its Connectors")
	}
	var out []reconcile.Request
	for i := range list {
		out = append(out, request(list[i].Namespace, list[i].Name))
	}
	return out
}

// brokerToConnectors maps a Broker whose session changed to the Connectors of its Integrations.
func (r *Reconciler) brokerToConnectors(ctx context.Context, broker types.NamespacedName) []reconcile.Request {
	var list v1alpha1.IntegrationList
	if err := r.Client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a Broker to its Connectors")
	}
	var out []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Status.Broker == broker.String() {
			out = append(out, r.integrationToConnectors(ctx, &list.Items[i])...)
		}
	}
	return out
}

// secretHandler maps a change of the credentials Secret to the Connectors that it concerns: all when the operator starts, afterwards
// those whose annotation or key changed.
type secretHandler struct {
	// relays: those of relays, else those of Connectors.
	relays bool
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func (h secretHandler) Create(_ context.Context, e event.CreateEvent, q queue) {
	h.enqueueUsers(e.Object, nil, q)
}
func (h secretHandler) Update(_ context.Context, e event.UpdateEvent, q queue) {
	h.enqueueUsers(e.ObjectNew, e.ObjectOld, q)
}
func (h secretHandler) Delete(_ context.Context, e event.DeleteEvent, q queue) {
	h.enqueueUsers(e.Object, nil, q)
}
func (secretHandler) Generic(context.Context, event.GenericEvent, queue) {}

func (h secretHandler) enqueueUsers(secret, former client.Object, q queue) {
	if secret == nil || secret.GetName() != contract.CredentialsSecret {
		return
	}
	now := credentials.ConnectorsIn(secret)
	was := map[string]string{}
	if former != nil {
		was = credentials.ConnectorsIn(former)
	}
	for name, state := range now {
		if was[name] != state {
			h.add(secret.GetNamespace(), name, q)
		}
		delete(was, name)
	}
	for name := range was {
		h.add(secret.GetNamespace(), name, q)
	}
}

func (h secretHandler) add(namespace, name string, q queue) {
	integration, relay := contract.RelayOf(name)
	switch {
	case relay != h.relays:
	case relay:
		q.Add(request(namespace, integration))
	default:
		q.Add(request(namespace, name))
	}
}

// isRelay tells the names that relays go by.
func isRelay(name string) bool {
	_, ok := contract.RelayOf(name)
	return ok
}
