package replay

import (
	"context"
	"sync"
	"time"

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
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/signals"
)

// Reconciler reconciles Replays.
type Reconciler struct {
	Client  client.Client
	Areas   *refs.Areas
	Hub     *signals.Hub
	Events  events.EventRecorder
	Workers int

	mu   sync.Mutex
	runs map[types.NamespacedName]*run
}

// run is what this process knows of a Replay and its status does not say. Losing it costs a look at the stream.
type run struct {
	uid   types.UID
	count bus.ReplayCount
	pace  bus.Pace
	// progress is ahead of the status until the status is written. It means something once recovered.
	progress  bus.ReplayProgress
	recovered bool
	// cleared is the sequence up to which copied dead letters were removed.
	cleared uint64
	// delivering since when nothing is left to do but to wait.
	delivering time.Time
}

// runOf an object; a new one for an object that this process has not worked on.
func (r *Reconciler) runOf(o *v1alpha1.Replay) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.runs == nil {
		r.runs = map[types.NamespacedName]*run{}
	}
	key := client.ObjectKeyFromObject(o)
	if r.runs[key] == nil || r.runs[key].uid != o.UID {
		r.runs[key] = &run{uid: o.UID}
	}
	return r.runs[key]
}

func (r *Reconciler) forget(_ context.Context, key types.NamespacedName) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, key)
	return nil
}

// SetupWithManager adds the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Replay{}).
		Watches(&v1alpha1.Route{}, handler.EnqueueRequestsFromMapFunc(r.routeToReplays), builder.WithPredicates(routeChanged)).
		WatchesRawSource(r.Hub.Brokers(r.brokerToReplays)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers}).
		Complete(r.lifecycle())
}

func (r *Reconciler) lifecycle() *reconcile.Reconciler[*v1alpha1.Replay, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Replay, *scope]{
		Client: r.Client,
		Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Replay, *scope]{
			New: func() *v1alpha1.Replay { return &v1alpha1.Replay{} },
			Status: func(o *v1alpha1.Replay) (*[]metav1.Condition, *int64) {
				return &o.Status.Conditions, &o.Status.ObservedGeneration
			},
			Scope:     func(o *v1alpha1.Replay) *scope { return &scope{replay: o, run: r.runOf(o), now: time.Now()} },
			Phases:    r.phases(),
			SetStatus: setStatus,
			Gone:      r.forget,
			Requeue:   func(s *scope) time.Duration { return s.next },
		},
	}
}

// routeChanged lets through what a Replay waits for: the Route is there, is another, or has its durable consumers.
var routeChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.(*v1alpha1.Route), e.ObjectNew.(*v1alpha1.Route)
	return was.Generation != is.Generation || was.DeletionTimestamp.IsZero() != is.DeletionTimestamp.IsZero() ||
		meta.IsStatusConditionTrue(was.Status.Conditions, v1alpha1.ConditionProgrammed) !=
			meta.IsStatusConditionTrue(is.Status.Conditions, v1alpha1.ConditionProgrammed)
}}

func (r *Reconciler) routeToReplays(ctx context.Context, o client.Object) []ctrl.Request {
	return r.list(ctx, func(replay *v1alpha1.Replay) bool { return string(replay.Spec.To.Route) == o.GetName() }, client.InNamespace(o.GetNamespace()))
}

// brokerToReplays: few Replays run at a time, and one that is looked at in vain costs nothing.
func (r *Reconciler) brokerToReplays(ctx context.Context, _ types.NamespacedName) []ctrl.Request {
	return r.list(ctx, func(*v1alpha1.Replay) bool { return true })
}

func (r *Reconciler) list(ctx context.Context, want func(*v1alpha1.Replay) bool, opts ...client.ListOption) []ctrl.Request {
	var list v1alpha1.ReplayList
	if err := r.Client.List(ctx, &list, opts...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping to Replays")
	}
	var out []ctrl.Request
	for i := range list.Items {
		if o := &list.Items[i]; !finished(o) && want(o) {
			out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
	}
	return out
}
