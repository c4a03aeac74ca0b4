package broker

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	ctrlreconcile "sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/apply"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/signals"
)

// Reconciler of Brokers.
type Reconciler struct {
	Client client.Client
	// Live reads from the API server: Secrets of the operator's namespace and volume claims are not in the cache.
	Live     client.Reader
	Apply    *apply.Applier
	Events   events.EventRecorder
	Sessions *bus.Registry
	// OperatorNamespace holds the keys of managed Brokers and the credentials of external ones.
	OperatorNamespace string
	Defaults          Defaults
	// AllowedAnnotations of pods.
	AllowedAnnotations []string
}

// How often a Broker is looked at: its servers' storage and copies cannot be watched.
const (
	steadyInterval    = 15 * time.Second
	unsettledInterval = 3 * time.Second
	// workers: asking the servers of one Broker must not hold another up.
	workers = 4
)

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, hub *signals.Hub) error {
	mine := func(_ context.Context, broker types.NamespacedName) []ctrlreconcile.Request {
		return []ctrlreconcile.Request{{NamespacedName: broker}}
	}
	secrets := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Broker{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.StatefulSet{}).
		Owns(&corev1.Service{}).
		Owns(&policyv1.PodDisruptionBudget{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&networkingv1.NetworkPolicy{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(podToBroker)).
		Watches(&v1alpha1.Integration{}, integrationToBroker()).
		WatchesMetadata(secrets, handler.EnqueueRequestsFromMapFunc(secretToBrokers)).
		WatchesRawSource(hub.Brokers(mine)).
		WatchesRawSource(source.Func(r.sweepSource)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r.kind())
}

func (r *Reconciler) kind() *reconcile.Reconciler[*v1alpha1.Broker, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Broker, *scope]{
		Client: r.Client, Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Broker, *scope]{
			New: func() *v1alpha1.Broker { return &v1alpha1.Broker{} },
			Status: func(b *v1alpha1.Broker) (*[]metav1.Condition, *int64) {
				return &b.Status.Conditions, &b.Status.ObservedGeneration
			},
			Scope: func(b *v1alpha1.Broker) *scope { return &scope{broker: b, now: time.Now()} },
			Phases: []reconcile.Phase[*scope]{
				{Condition: v1alpha1.ConditionAccepted, Run: r.observe},
				{Condition: v1alpha1.ConditionAccepted, Run: r.accept},
				{Condition: v1alpha1.ConditionResolvedRefs, Run: r.resolve},
				{Condition: v1alpha1.ConditionDeployed, Run: r.deploy},
				{Condition: v1alpha1.ConditionConnected, Run: await},
			},
			SetStatus: setStatus,
			Gone:      r.gone,
			Requeue: func(s *scope) time.Duration {
				if settled(s) {
					return steadyInterval
				}
				return unsettledInterval
			},
		},
	}
}

// gone ends the session of a Broker and removes what has no owner reference. Everything else Kubernetes collects.
func (r *Reconciler) gone(ctx context.Context, broker types.NamespacedName) error {
	r.Sessions.Remove(broker)
	r.Apply.Forget(broker.Namespace, broker.Name, headlessName(broker.Name), serversName(broker.Name))
	if err := r.removeSettings(ctx, broker); err != nil {
		return fmt.Errorf("removing the settings of Broker %s: %w", broker, err)
	}
	if err := r.sweepKeys(ctx, broker); err != nil {
		return fmt.Errorf("removing the keys of Broker %s: %w", broker, err)
	}
	return nil
}

// sweepSource looks once, at the start, at every Broker that there are keys of.
func (r *Reconciler) sweepSource(ctx context.Context, queue workqueue.TypedRateLimitingInterface[ctrlreconcile.Request]) error {
	names, err := r.brokersWithKeys(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		queue.Add(ctrlreconcile.Request{NamespacedName: name})
	}
	return nil
}

// podToBroker maps a server's pod.
func podToBroker(_ context.Context, o client.Object) []ctrlreconcile.Request {
	l := o.GetLabels()
	if l[metadata.LabelComponent] != component || l[metadata.LabelBroker] == "" {
		return nil
	}
	return []ctrlreconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: l[metadata.LabelBroker]}}}
}

// secretToBrokers maps the credentials Secret of a namespace to the Brokers whose files are in it.
func secretToBrokers(_ context.Context, o client.Object) []ctrlreconcile.Request {
	var out []ctrlreconcile.Request
	for broker := range settingsIn(o.GetAnnotations()) {
		out = append(out, ctrlreconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: broker}})
	}
	return out
}

// integrationToBroker tells a Broker of Integrations that come and go.
func integrationToBroker() handler.EventHandler {
	add := func(q workqueue.TypedRateLimitingInterface[ctrlreconcile.Request], objects ...client.Object) {
		for _, o := range objects {
			if key, ok := parseKey(o.(*v1alpha1.Integration).Status.Broker); ok {
				q.Add(ctrlreconcile.Request{NamespacedName: key})
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[ctrlreconcile.Request]) {
			add(q, e.Object)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[ctrlreconcile.Request]) {
			if e.ObjectOld.(*v1alpha1.Integration).Status.Broker != e.ObjectNew.(*v1alpha1.Integration).Status.Broker {
				add(q, e.ObjectOld, e.ObjectNew)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[ctrlreconcile.Request]) {
			add(q, e.Object)
		},
	}
}
