package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/controllers/broker"
	"github.com/metip/metip/controllers/connector"
	"github.com/metip/metip/controllers/integration"
	"github.com/metip/metip/controllers/internal/apply"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/metrics"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/schemas"
	"github.com/metip/metip/controllers/internal/signals"
	"github.com/metip/metip/controllers/internal/validate"
	"github.com/metip/metip/controllers/replay"
	"github.com/metip/metip/controllers/route"
	"github.com/metip/metip/controllers/webhook"
)

// Options of the control plane, from the manager's flags.
type Options struct {
	// OperatorNamespace is where the operator runs, keeps the brokers' keys, and looks for the Broker called default.
	OperatorNamespace string
	// Namespaces that the operator watches, as in CacheOptions.
	Namespaces []string
	// Image of every pod that the operator makes: it holds /connector and /nats-server.
	Image           string
	ImagePullPolicy corev1.PullPolicy
	// AllowedPodAnnotations that pod templates may have; an entry that ends in `/` allows all under it.
	AllowedPodAnnotations []string
	// CustomImages that Connectors may run as containers of their own; see validate.Allowed.
	CustomImages []string
	// Connector and Broker are defaults of their pods' resources; zero means the built-in ones.
	Connector, Broker corev1.ResourceRequirements
	// ConnectorEnv is added to every connector pod.
	ConnectorEnv []corev1.EnvVar
	// FixedGroup gives the broker's volumes to the image's group; not on OpenShift.
	FixedGroup bool
	// Workers of each controller; zero means 4.
	Workers int
	// Resync is how often what is on the broker is compared with what should be there; zero means half a minute.
	Resync time.Duration
	// Certificate serves the webhooks; nil when there are none.
	Certificate *webhook.Rotator
	// Metrics is where the operator's own metrics are registered; nil for nowhere. Each manager of a process needs its own.
	Metrics prometheus.Registerer
}

const (
	defaultWorkers = 4
	defaultResync  = 30 * time.Second
	// connectorResync: nothing of a Connector has to be polled but the age of its credential.
	connectorResync = 5 * time.Minute
)

func (o *Options) complete() {
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.Resync == 0 {
		o.Resync = defaultResync
	}
	if o.Connector.Limits == nil && o.Connector.Requests == nil {
		o.Connector = connector.DefaultResources()
	}
	if o.Broker.Limits == nil && o.Broker.Requests == nil {
		o.Broker = broker.DefaultResources()
	}
}

func (o *Options) allowed() validate.Allowed {
	return validate.Allowed{Annotations: o.AllowedPodAnnotations, Images: o.CustomImages}
}

// SetupAll adds every controller, and the webhooks where there is a certificate, to a manager whose cache has CacheOptions. ctx ends with the manager.
func SetupAll(ctx context.Context, mgr ctrl.Manager, o Options) error {
	o.complete()
	registry := bus.NewRegistry(ctx, ctrl.Log.WithName("bus"))
	hub := signals.NewHub(registry)
	for _, r := range []interface {
		Start(ctx context.Context) error
	}{registry, hub} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	if err := refs.Index(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	backlog := &metrics.Backlog{}
	if err := setupControllers(mgr, o, registry, hub, backlog); err != nil {
		return err
	}
	if o.Certificate != nil {
		if err := webhook.SetupWithManager(mgr, o.allowed()); err != nil {
			return fmt.Errorf("webhooks: %w", err)
		}
	}
	if o.Metrics != nil {
		c := &metrics.Collector{Reader: mgr.GetCache(), Backlog: backlog, Claims: registry.ClaimCounts}
		if o.Certificate != nil {
			c.Certificate = o.Certificate.Expires
		}
		return o.Metrics.Register(c)
	}
	return nil
}

func setupControllers(mgr ctrl.Manager, o Options, registry *bus.Registry, hub *signals.Hub, backlog *metrics.Backlog) error {
	var (
		applier  = apply.New(mgr.GetClient(), mgr.GetAPIReader())
		areas    = &refs.Areas{Client: mgr.GetClient(), Sessions: registry, OperatorNamespace: o.OperatorNamespace}
		valid    = validate.NewMemo(o.allowed())
		recorder = mgr.GetEventRecorder("metip")
	)
	configMaps, err := schemas.NewWatcher(mgr, o.OperatorNamespace, o.Namespaces)
	if err != nil {
		return err
	}
	texts := &schemas.Resolver{Watch: configMaps, Live: mgr.GetAPIReader(), Valid: valid}
	if err := (&broker.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Apply: applier, Events: recorder, Sessions: registry,
		OperatorNamespace: o.OperatorNamespace, AllowedAnnotations: o.AllowedPodAnnotations,
		Defaults: broker.Defaults{Image: o.Image, ImagePullPolicy: o.ImagePullPolicy, Resources: o.Broker, FixedGroup: o.FixedGroup},
	}).SetupWithManager(mgr, hub); err != nil {
		return fmt.Errorf("controller of Brokers: %w", err)
	}
	if err := (&integration.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Areas: areas, Hub: hub, Events: recorder, Backlog: backlog, Workers: o.Workers,
		Resync: o.Resync,
	}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller of Integrations: %w", err)
	}
	connectors := &connector.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Apply: applier, Areas: areas, Sessions: registry, Hub: hub, Events: recorder,
		Credentials: credentials.NewStore(mgr.GetClient(), mgr.GetAPIReader()), Valid: valid, Schemas: texts, ConfigMaps: configMaps, Workers: o.Workers, Resync: connectorResync,
		Defaults: connector.Defaults{Image: o.Image, ImagePullPolicy: o.ImagePullPolicy, Resources: o.Connector, Env: o.ConnectorEnv},
	}
	if err := connectors.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller of Connectors: %w", err)
	}
	if err := (&connector.RelayReconciler{Reconciler: connectors}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller of relays: %w", err)
	}
	if err := (&route.Reconciler{
		Client: mgr.GetClient(), Areas: areas, Hub: hub, Events: recorder, Valid: valid, Schemas: texts, ConfigMaps: configMaps, Workers: o.Workers, Resync: o.Resync,
	}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller of Routes: %w", err)
	}
	if err := (&replay.Reconciler{Client: mgr.GetClient(), Areas: areas, Hub: hub, Events: recorder, Workers: o.Workers}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller of Replays: %w", err)
	}
	return nil
}
