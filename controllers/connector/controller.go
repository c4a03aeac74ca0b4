package connector

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/apply"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/schemas"
	"github.com/metip/metip/controllers/internal/signals"
	"github.com/metip/metip/controllers/internal/validate"
)

// Reconciler reconciles Connectors.
type Reconciler struct {
	Client      client.Client
	Live        client.Reader
	Apply       *apply.Applier
	Sessions    bus.Sessions
	Hub         *signals.Hub
	Events      events.EventRecorder
	Credentials *credentials.Store
	Valid       *validate.Memo
	// Schemas that Connectors and Routes keep in ConfigMaps, which ConfigMaps watches.
	Schemas    *schemas.Resolver
	ConfigMaps *schemas.Watcher
	Areas      *refs.Areas
	Defaults   Defaults
	Workers    int
	// Resync is how often a Connector is looked at when nothing happens; users are renewed then.
	Resync time.Duration

	settler   *settler
	refreshed *refresher
}

// SetupWithManager adds the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.settler, r.refreshed = newSettler(), newRefresher()
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Connector{}).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&corev1.Service{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&corev1.ConfigMap{}, builder.OnlyMetadata).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(podToConnector)).
		Watches(&v1alpha1.Route{}, handler.EnqueueRequestsFromMapFunc(routeToConnectors), builder.WithPredicates(specChanged)).
		Watches(&v1alpha1.Integration{}, handler.EnqueueRequestsFromMapFunc(r.integrationToConnectors), builder.WithPredicates(integrationChanged)).
		WatchesMetadata(&corev1.Secret{}, secretHandler{}).
		WatchesRawSource(r.Hub.Connectors(connectorItself)).
		WatchesRawSource(r.ConfigMaps.Changes(r.schemaToConnectors)).
		WatchesRawSource(r.Hub.Brokers(r.brokerToConnectors)).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers}).
		Complete(r.lifecycle())
}

func (r *Reconciler) lifecycle() *reconcile.Reconciler[*v1alpha1.Connector, *scope] {
	return &reconcile.Reconciler[*v1alpha1.Connector, *scope]{
		Client: r.Client,
		Events: r.Events,
		Kind: reconcile.Kind[*v1alpha1.Connector, *scope]{
			New: func() *v1alpha1.Connector { return &v1alpha1.Connector{} },
			Status: func(c *v1alpha1.Connector) (*[]metav1.Condition, *int64) {
				return &c.Status.Conditions, &c.Status.ObservedGeneration
			},
			Scope:     func(c *v1alpha1.Connector) *scope { return &scope{connector: c, now: time.Now()} },
			Phases:    r.phases(),
			SetStatus: setStatus,
			Gone:      r.gone,
			Requeue:   func(s *scope) time.Duration { return s.requeue },
			Resync:    r.Resync,
		},
	}
}
