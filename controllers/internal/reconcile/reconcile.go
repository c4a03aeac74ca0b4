package reconcile

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// Phase of a pass. Phases run in order and share the scope; the first error ends the pass.
type Phase[S any] struct {
	// Condition that the phase is answerable for, unless its error says otherwise.
	Condition string
	Run       func(ctx context.Context, scope S) error
}

// Kind is what the lifecycle has to know of a kind T (a pointer type) whose phases share a scope S.
type Kind[T client.Object, S any] struct {
	// New object of the kind.
	New func() T
	// Status gives access to the conditions and to status.observedGeneration.
	Status func(T) (*[]metav1.Condition, *int64)
	// Scope of a pass over the object. It holds this very object.
	Scope func(T) S
	// Phases of a pass.
	Phases []Phase[S]
	// SetStatus computes the status from the scope and writes it into the object, conditions included. failed is the condition that
	// err, which ended the phases, is about. It is pure.
	SetStatus func(scope S, err error, failed string)
	// Finalizer that objects get, or empty; Finalize does what must be done before the object goes.
	Finalizer string
	Finalize  func(ctx context.Context, scope S) error
	// Gone, if set, is told of keys without object.
	Gone func(ctx context.Context, key types.NamespacedName) error
	// Requeue, if set, says when the scope wants to be looked at again; zero means whenever.
	Requeue func(scope S) time.Duration
	// Resync is how often an object is looked at when nothing happens, because what it needs of the broker cannot be watched. Zero means never.
	Resync time.Duration
}

// Reconciler runs the lifecycle of a kind.
type Reconciler[T client.Object, S any] struct {
	Kind[T, S]
	Client client.Client
	Events events.EventRecorder

	mu      sync.Mutex
	patched map[types.NamespacedName]written
}

// written is what was written to an object last.
type written struct {
	version uint64
	// released is the UID of an object whose finalizer was removed: it is gone, whatever the cache says.
	released types.UID
}

// Reconcile is one pass.
func (r *Reconciler[T, S]) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := r.New()
	if err := r.Client.Get(ctx, req.NamespacedName, obj); err != nil {
		if !apierrors.IsNotFound(err) {
			return ctrl.Result{}, err
		}
		r.forget(req.NamespacedName)
		if r.Gone == nil {
			return ctrl.Result{}, nil
		}
		return r.result(r.Gone(ctx, req.NamespacedName), 0)
	}
	if r.behind(obj) { // the event of our own last write is on its way
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	before := obj.DeepCopyObject().(T)
	scope := r.Scope(obj)
	leaving, err := r.namespaceLeaves(ctx, req.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !obj.GetDeletionTimestamp().IsZero() {
		return r.finalize(ctx, before, obj, scope, leaving)
	}
	if leaving { // nothing can be made there any more, and the object's own turn comes
		return ctrl.Result{}, nil
	}
	if r.Finalizer != "" && controllerutil.AddFinalizer(obj, r.Finalizer) {
		if err := r.patchMetadata(ctx, before, obj); err != nil {
			return again(client.IgnoreNotFound(err))
		}
		before = obj.DeepCopyObject().(T)
		scope = r.Scope(obj)
	}
	failed, err := r.runPhases(ctx, scope)
	if _, e := outcome.Of(err); e != nil && e.Hold && r.seen(obj) {
		return ctrl.Result{RequeueAfter: e.After}, nil
	}
	r.SetStatus(scope, err, failed)
	r.setProgress(obj, err)
	if patchErr := r.patchStatus(ctx, before, obj); patchErr != nil {
		return again(client.IgnoreNotFound(patchErr))
	}
	r.record(before, obj)
	return r.result(err, r.next(scope))
}

func (r *Reconciler[T, S]) runPhases(ctx context.Context, scope S) (failed string, err error) {
	for _, p := range r.Phases {
		if err := p.Run(ctx, scope); err != nil {
			if _, e := outcome.Of(err); e != nil && e.Condition != "" {
				return e.Condition, err
			}
			return p.Condition, err
		}
	}
	return "", nil
}

// seen tells whether the status speaks of the present generation.
func (r *Reconciler[T, S]) seen(obj T) bool {
	_, observed := r.Status(obj)
	return *observed == obj.GetGeneration()
}

// namespaceLeaves tells whether a namespace is being deleted.
func (r *Reconciler[T, S]) namespaceLeaves(ctx context.Context, name string) (bool, error) {
	ns := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, ns)
	if apierrors.IsNotFound(err) { // or too new for the cache
		return false, nil
	}
	return err == nil && !ns.DeletionTimestamp.IsZero(), err
}

// finalize lets the object go once Finalize says so. A namespace that leaves takes no Events.
func (r *Reconciler[T, S]) finalize(ctx context.Context, before, obj T, scope S, leaving bool) (ctrl.Result, error) {
	if r.Finalizer == "" || !controllerutil.ContainsFinalizer(obj, r.Finalizer) || r.released(obj) {
		return ctrl.Result{}, nil
	}
	if err := r.Finalize(ctx, scope); err != nil {
		list, observed := r.Status(obj)
		*observed = obj.GetGeneration()
		set := conditions.For(list, obj.GetGeneration())
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonDeleting, err.Error())
		set.True(v1alpha1.ConditionReconciling, v1alpha1.ReasonDeleting, err.Error())
		set.Remove(v1alpha1.ConditionStalled)
		if patchErr := r.patchStatus(ctx, before, obj); patchErr != nil {
			return again(client.IgnoreNotFound(patchErr))
		}
		if !leaving {
			r.record(before, obj)
		}
		return r.result(err, 0)
	}
	controllerutil.RemoveFinalizer(obj, r.Finalizer)
	if err := r.patchMetadata(ctx, before, obj); err != nil {
		return again(client.IgnoreNotFound(err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.patched[client.ObjectKeyFromObject(obj)] = written{released: obj.GetUID()}
	return ctrl.Result{}, nil
}

// setProgress sets status.observedGeneration, Reconciling and Stalled.
func (r *Reconciler[T, S]) setProgress(obj T, err error) {
	list, observed := r.Status(obj)
	*observed = obj.GetGeneration()
	set := conditions.For(list, obj.GetGeneration())
	ready := set.Get(v1alpha1.ConditionReady)
	class, e := outcome.Of(err)
	switch {
	case err != nil && class == outcome.Terminal:
		set.True(v1alpha1.ConditionStalled, e.Reason, err.Error())
		set.Remove(v1alpha1.ConditionReconciling)
	case ready != nil && ready.Status != metav1.ConditionTrue && (err != nil || underWay[ready.Reason] || ready.Reason == v1alpha1.ReasonPodsNotReady):
		set.Remove(v1alpha1.ConditionStalled)
		set.True(v1alpha1.ConditionReconciling, v1alpha1.ReasonProgressing, ready.Message)
	default:
		set.Remove(v1alpha1.ConditionStalled)
		set.Remove(v1alpha1.ConditionReconciling)
	}
}

// underWay are the reasons for not being Ready that pass by themselves: the operator, or Kubernetes on its behalf, is at work.
var underWay = map[string]bool{
	v1alpha1.ReasonPending:                  true,
	v1alpha1.ReasonProgressing:              true,
	v1alpha1.ReasonBrokerNotReady:           true,
	v1alpha1.ReasonIntegrationNotProgrammed: true,
	v1alpha1.ReasonCounting:                 true,
	v1alpha1.ReasonReplaying:                true,
	v1alpha1.ReasonDelivering:               true,
}

// UnderWay tells whether an object with this condition Ready is on its way there, as far as anybody knows.
func UnderWay(ready *metav1.Condition) bool { return ready == nil || underWay[ready.Reason] }

// patchStatus writes the status when it changed, and only what changed of it.
func (r *Reconciler[T, S]) patchStatus(ctx context.Context, before, obj T) error {
	if equality.Semantic.DeepEqual(before, obj) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, obj, patch); err != nil {
		return err
	}
	r.remember(obj)
	return nil
}

func (r *Reconciler[T, S]) patchMetadata(ctx context.Context, before, obj T) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, obj, patch); err != nil {
		return err
	}
	r.remember(obj)
	return nil
}

// record an Event when Ready turned, or is False for another reason. What passes by itself on the way up is no event.
func (r *Reconciler[T, S]) record(before, obj T) {
	was, _ := r.Status(before)
	is, _ := r.Status(obj)
	old, now := meta.FindStatusCondition(*was, v1alpha1.ConditionReady), meta.FindStatusCondition(*is, v1alpha1.ConditionReady)
	if now == nil || old != nil && old.Status == now.Status && old.Reason == now.Reason {
		return
	}
	wasReady := old != nil && old.Status == metav1.ConditionTrue
	switch {
	case now.Status == metav1.ConditionTrue:
		Record(r.Events, obj, corev1.EventTypeNormal, now.Reason, now.Message)
	case underWay[now.Reason], now.Status == metav1.ConditionUnknown && !wasReady:
	case now.Reason == v1alpha1.ReasonSuspended, now.Reason == v1alpha1.ReasonDeleting:
		Record(r.Events, obj, corev1.EventTypeNormal, now.Reason, now.Message)
	default:
		Record(r.Events, obj, corev1.EventTypeWarning, now.Reason, now.Message)
	}
}

// maxNote is the longest note that the API server takes in an Event.
const maxNote = 1024

// Record an Event about an object.
func Record(recorder events.EventRecorder, obj client.Object, eventType, reason, message string) {
	if len(message) > maxNote {
		message = message[:maxNote-3] + "..."
	}
	recorder.Eventf(obj, nil, eventType, reason, "Reconcile", "%s", message)
}

// result of a pass that ended with err and otherwise wants to be run again after next.
func (r *Reconciler[T, S]) result(err error, next time.Duration) (ctrl.Result, error) {
	if err == nil {
		return ctrl.Result{RequeueAfter: next}, nil
	}
	class, e := outcome.Of(err)
	if class == outcome.Transient {
		return again(err)
	}
	return ctrl.Result{RequeueAfter: e.After}, nil
}

// next look: what the scope wants, or the resync with a jitter of a tenth, whichever is sooner.
func (r *Reconciler[T, S]) next(scope S) time.Duration {
	next := r.Resync
	if next > 0 {
		next += time.Duration(rand.Int64N(int64(next)/10 + 1))
	}
	if r.Requeue != nil {
		if d := r.Requeue(scope); d > 0 && (next == 0 || d < next) {
			next = d
		}
	}
	return next
}

// conflictDelay is how soon a pass that met a conflict is run again: the cache needs that long to hear of the other write.
const conflictDelay = 200 * time.Millisecond

// again maps an error of a write or of a transient phase. A conflict is a reason to look again, and no error.
func again(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, err
}

func (r *Reconciler[T, S]) remember(obj T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.patched == nil {
		r.patched = map[types.NamespacedName]written{}
	}
	r.patched[client.ObjectKeyFromObject(obj)] = written{version: version(obj)}
}

// released tells whether the finalizer was removed already, although the cache still has it.
func (r *Reconciler[T, S]) released(obj T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.patched[client.ObjectKeyFromObject(obj)].released == obj.GetUID()
}

func (r *Reconciler[T, S]) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.patched, key)
}

// behind tells whether the cache has not seen our own last write yet.
func (r *Reconciler[T, S]) behind(obj T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return version(obj) < r.patched[client.ObjectKeyFromObject(obj)].version
}

func version(obj client.Object) uint64 {
	v, _ := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	return v
}
