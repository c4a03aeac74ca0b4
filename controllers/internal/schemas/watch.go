package schemas

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/signals"
)

// watchPatience is how long the first reference waits for the list of ConfigMaps: while it cannot be had, others would wait behind it.
const watchPatience = 5 * time.Second

// Watcher watches the metadata of users' ConfigMaps: of each no more than its name and version, and nothing before somebody asks.
type Watcher struct {
	cache cache.Cache

	mu       sync.Mutex
	watching bool
	told     []func(types.NamespacedName)
}

// NewWatcher for a manager, which it is added to. namespaces limits it, beside the operator's own, as the manager's cache; none means all.
func NewWatcher(mgr ctrl.Manager, operatorNamespace string, namespaces []string) (*Watcher, error) {
	users, err := labels.NewRequirement(metadata.LabelManagedBy, selection.NotEquals, []string{metadata.ManagedBy})
	if err != nil {
		return nil, err
	}
	o := cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), DefaultTransform: nameAndVersion,
		ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {
			// Every namespace has that one, and no schema in it.
			Field: fields.OneTermNotEqualSelector("metadata.name", "kube-root-ca.crt"), Label: labels.NewSelector().Add(*users),
		}},
	}
	if len(namespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{operatorNamespace: {}}
		for _, n := range namespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	c, err := cache.New(mgr.GetConfig(), o)
	if err != nil {
		return nil, fmt.Errorf("a cache of ConfigMaps' metadata: %w", err)
	}
	w := &Watcher{cache: c}
	return w, mgr.Add(w)
}

// nameAndVersion is all that is kept of an object.
func nameAndVersion(o any) (any, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return o, nil //nolint:nilerr // a tombstone stays as it is
	}
	m.SetManagedFields(nil)
	m.SetAnnotations(nil)
	m.SetLabels(nil)
	m.SetOwnerReferences(nil)
	m.SetFinalizers(nil)
	return o, nil
}

// Start runs the cache until ctx ends (manager.Runnable).
func (w *Watcher) Start(ctx context.Context) error { return w.cache.Start(ctx) }

// NeedLeaderElection says no: it has to run before the controllers do.
func (*Watcher) NeedLeaderElection() bool { return false }

// ResourceVersion implements Watch.
func (w *Watcher) ResourceVersion(ctx context.Context, name types.NamespacedName) (string, error) {
	if err := w.watch(ctx); err != nil {
		return "", err
	}
	m := refs.Metadata("v1", "ConfigMap")
	err := w.cache.Get(ctx, name, m)
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	return m.ResourceVersion, err
}

// watch from the first reference on.
func (w *Watcher) watch(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	informer, err := w.cache.GetInformer(ctx, refs.Metadata("v1", "ConfigMap"))
	if err != nil {
		return fmt.Errorf("watch ConfigMaps, for which the operator needs the verbs get, list and watch: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if !initial {
				w.tell(o)
			}
		},
		UpdateFunc: func(_, o any) { w.tell(o) },
		DeleteFunc: w.tell,
	})
	w.watching = err == nil
	return err
}

func (w *Watcher) tell(o any) {
	if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	w.mu.Lock()
	told := w.told
	w.mu.Unlock()
	for _, f := range told {
		f(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()})
	}
}

// Changes is a source of ConfigMaps that have come, changed or gone.
func (w *Watcher) Changes(to signals.Map) source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, func(name types.NamespacedName) {
			for _, r := range to(ctx, name) {
				queue.Add(r)
			}
		})
		return nil
	})
}
