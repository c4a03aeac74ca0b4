package route

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
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
	"github.com/metip/metip/controllers/internal/schemas"
	"github.com/metip/metip/controllers/internal/signals"
	"github.com/metip/metip/controllers/internal/validate"
)

// Reconciler reconciles Routes.
type Reconciler struct {
	Client client.Client
	Areas  *refs.Areas
	Hub    *signals.Hub
	Events events.EventRecorder
	Valid  *validate.Memo
	// Schemas that Routes keep in ConfigMaps, which ConfigMaps watches.
	Schemas    *schemas.Resolver
	ConfigMaps *schemas.Watcher
	Workers    int
	// Resync is how often the durable consumers are looked at when nothing happens.
	Resync time.Duration
}

// SetupWithManager adds the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Route{}).
		Watches(&v1alpha1.Connector{}, handler.EnqueueRequestsFromMapFunc(r.connectorToRoutes), builder.WithPredicates(connectorChanged)).
		Watches(&v1alpha1.Integration{}, handler.EnqueueRequestsFromMapFunc(r.integrationToRoutes), builder.WithPredicates(integrationChanged)).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.labelToRoutes), builder.WithPredicates(createdOnly)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.labelToRoutes), builder.WithPredicates(deletedOnly)).
		WatchesRawSource(r.Hub.Connectors(r.reportToRoutes)).
		WatchesRawSource(r.ConfigMaps.Changes(r.schemaToRoutes)).
		WatchesRawSource(r.Hub.Brokers(r.brokerToRoutes)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers}).
		Complete(r.lifecycle())
}

func (r *Reconciler) lifecycle() *reconcile.Reconciler[*v1alpha1.Route, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Route, *scope]{
		Client: r.Client,
		Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Route, *scope]{
			New: func() *v1alpha1.Route { return &v1alpha1.Route{} },
			Status: func(o *v1alpha1.Route) (*[]metav1.Condition, *int64) {
				return &o.Status.Conditions, &o.Status.ObservedGeneration
			},
			Scope:     newScope,
			Phases:    r.phases(),
			SetStatus: setStatus,
			Resync:    r.Resync,
		},
	}
}

// connectorChanged lets through what concerns Routes: the spec, the conditions, the configuration.
var connectorChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.(*v1alpha1.Connector), e.ObjectNew.(*v1alpha1.Connector)
	return was.Generation != is.Generation || was.DeletionTimestamp.IsZero() != is.DeletionTimestamp.IsZero() ||
		was.Status.ConfigHash != is.Status.ConfigHash || !equality.Semantic.DeepEqual(was.Status.Conditions, is.Status.Conditions)
}}

var integrationChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.(*v1alpha1.Integration), e.ObjectNew.(*v1alpha1.Integration)
	return was.Generation != is.Generation || was.DeletionTimestamp.IsZero() != is.DeletionTimestamp.IsZero() ||
		meta.IsStatusConditionTrue(was.Status.Conditions, v1alpha1.ConditionProgrammed) !=
			meta.IsStatusConditionTrue(is.Status.Conditions, v1alpha1.ConditionProgrammed) ||
		!equality.Semantic.DeepEqual(was.Status.Relay, is.Status.Relay)
}}

// createdOnly: a ConfigMap of a Connector never changes, and its deletion concerns no Route.
var createdOnly = predicate.Funcs{
	UpdateFunc: func(event.UpdateEvent) bool { return false },
	DeleteFunc: func(event.DeleteEvent) bool { return false },
}

// deletedOnly: a pod tells how it is in its reports, until it is gone.
var deletedOnly = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(event.UpdateEvent) bool { return false },
}

func (r *Reconciler) connectorToRoutes(ctx context.Context, o client.Object) []ctrl.Request {
	return r.reportToRoutes(ctx, client.ObjectKeyFromObject(o))
}

// labelToRoutes maps what belongs to a Connector.
func (r *Reconciler) labelToRoutes(ctx context.Context, o client.Object) []ctrl.Request {
	name := o.GetLabels()[metadata.LabelConnector]
	if name == "" {
		return nil
	}
	return r.reportToRoutes(ctx, types.NamespacedName{Namespace: o.GetNamespace(), Name: name})
}

// reportToRoutes maps a Connector, or an Integration's relay, to the Routes that name it.
func (r *Reconciler) reportToRoutes(ctx context.Context, connector types.NamespacedName) []ctrl.Request {
	if integration, ok := contract.RelayOf(connector.Name); ok {
		return requests(ctx)(refs.RelayedRoutes(ctx, r.Client, types.NamespacedName{Namespace: connector.Namespace, Name: integration}))
	}
	return requests(ctx)(refs.RoutesNaming(ctx, r.Client, connector))
}

// schemaToRoutes maps a ConfigMap of a user to the Routes whose schemas are in it.
func (r *Reconciler) schemaToRoutes(ctx context.Context, configMap types.NamespacedName) []ctrl.Request {
	return requests(ctx)(refs.RoutesWithSchema(ctx, r.Client, configMap))
}

func (r *Reconciler) integrationToRoutes(ctx context.Context, o client.Object) []ctrl.Request {
	return requests(ctx)(refs.RoutesOf(ctx, r.Client, client.ObjectKeyFromObject(o)))
}

func (r *Reconciler) brokerToRoutes(ctx context.Context, broker types.NamespacedName) []ctrl.Request {
	var list v1alpha1.IntegrationList
	if err := r.Client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a Broker to its Routes")
	}
	var out []ctrl.Request
	for i := range list.Items {
		if list.Items[i].Status.Broker == broker.String() {
			out = append(out, r.integrationToRoutes(ctx, &list.Items[i])...)
		}
	}
	return out
}

func requests(ctx context.Context) func([]v1alpha1.Route, error) []ctrl.Request {
	return func(list []v1alpha1.Route, err error) []ctrl.Request {
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "mapping to Routes")
		}
		var out []ctrl.Request
		for i := range list {
			out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list[i])})
		}
		return out
	}
}
