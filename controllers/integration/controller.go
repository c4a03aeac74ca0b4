package integration

import (
	"context"
	"sync"
	"time"

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
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/metrics"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/signals"
)

// Reconciler reconciles Integrations.
type Reconciler struct {
	Client client.Client
	Live   client.Reader
	Areas  *refs.Areas
	Hub    *signals.Hub
	Events events.EventRecorder
	// Backlog is told what waits for the destinations; nil when nobody asks.
	Backlog *metrics.Backlog
	Workers int
	// Resync is how often the streams are looked at when nothing happens.
	Resync time.Duration

	// finalizing says since when this process finalizes.
	finalizing func() time.Time
}

// SetupWithManager adds the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.finalizing = sync.OnceValue(time.Now)
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Integration{}).
		Watches(&v1alpha1.Connector{}, handler.EnqueueRequestsFromMapFunc(toIntegration), builder.WithPredicates(memberChanged)).
		Watches(&v1alpha1.Route{}, handler.EnqueueRequestsFromMapFunc(toIntegration), builder.WithPredicates(memberChanged)).
		Watches(&v1alpha1.Broker{}, handler.EnqueueRequestsFromMapFunc(r.anyIntegration), builder.WithPredicates(brokerChanged)).
		WatchesMetadata(refs.NamespaceMetadata(), handler.EnqueueRequestsFromMapFunc(r.namespaceToIntegrations), builder.WithPredicates(namespaceChanged)).
		WatchesRawSource(r.Hub.Brokers(r.brokerToIntegrations)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers}).
		Complete(r.lifecycle())
}

func (r *Reconciler) lifecycle() *reconcile.Reconciler[*v1alpha1.Integration, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Integration, *scope]{
		Client: r.Client,
		Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Integration, *scope]{
			New: func() *v1alpha1.Integration { return &v1alpha1.Integration{} },
			Status: func(i *v1alpha1.Integration) (*[]metav1.Condition, *int64) {
				return &i.Status.Conditions, &i.Status.ObservedGeneration
			},
			Scope:     func(i *v1alpha1.Integration) *scope { return &scope{integration: i, now: time.Now()} },
			Phases:    r.phases(),
			SetStatus: setStatus,
			Finalizer: metadata.FinalizerIntegration,
			Finalize:  r.finalize,
			Gone:      r.gone,
			Resync:    r.Resync,
		},
	}
}

func inNamespace(name string) client.ListOption { return client.InNamespace(name) }

// memberChanged lets through what concerns the summary and the durable consumers: the spec, Ready, the beginning of a deletion.
var memberChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() ||
		!equality.Semantic.DeepEqual(ready(e.ObjectOld), ready(e.ObjectNew))
}}

func ready(o client.Object) *metav1.Condition {
	switch o := o.(type) {
	case *v1alpha1.Connector:
		return meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	case *v1alpha1.Route:
		return meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	}
	return nil
}

var brokerChanged = predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}})

// namespaceChanged: its labels decide whether a Broker lets it in, and its deletion releases the Integrations.
var namespaceChanged = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	DeleteFunc: func(event.DeleteEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) ||
			e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
	},
}

func toIntegration(_ context.Context, o client.Object) []ctrl.Request {
	var name v1alpha1.ObjectName
	switch o := o.(type) {
	case *v1alpha1.Connector:
		name = o.Spec.IntegrationRef.Name
	case *v1alpha1.Route:
		name = o.Spec.IntegrationRef.Name
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: string(name)}}}
}

// anyIntegration: a Broker that appears, goes or lets others in may concern any of them.
func (r *Reconciler) anyIntegration(ctx context.Context, _ client.Object) []ctrl.Request {
	return r.list(ctx, func(*v1alpha1.Integration) bool { return true })
}

func (r *Reconciler) brokerToIntegrations(ctx context.Context, broker types.NamespacedName) []ctrl.Request {
	return r.list(ctx, func(i *v1alpha1.Integration) bool { return i.Status.Broker == broker.String() || i.Status.Broker == "" })
}

func (r *Reconciler) namespaceToIntegrations(ctx context.Context, ns client.Object) []ctrl.Request {
	return r.list(ctx, func(*v1alpha1.Integration) bool { return true }, client.InNamespace(ns.GetName()))
}

func (r *Reconciler) list(ctx context.Context, want func(*v1alpha1.Integration) bool, opts ...client.ListOption) []ctrl.Request {
	var list v1alpha1.IntegrationList
	if err := r.Client.List(ctx, &list, opts...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping to Integrations")
	}
	var out []ctrl.Request
	for i := range list.Items {
		if want(&list.Items[i]) {
			out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}
