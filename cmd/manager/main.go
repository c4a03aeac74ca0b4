// Command manager is the operator: it reconciles Brokers, Integrations, Connectors and Routes, and serves their webhooks. Flags and wiring only.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/metip/metip/controllers"
	metipwebhook "github.com/metip/metip/controllers/webhook"
)

// shutdownTimeout in which controllers finish their passes.
const shutdownTimeout = 20 * time.Second

func main() {
	f := parseFlags()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&f.log)))
	if err := run(ctrl.SetupSignalHandler(), f); err != nil {
		ctrl.Log.Error(err, "the manager ends")
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = float32(f.qps), 2*f.qps
	if f.qps <= 0 {
		config.QPS = -1
	}
	lock, err := leaderLock(config, f.operatorNamespace)
	if err != nil {
		return err
	}
	scheme := controllers.NewScheme()
	// The certificate is needed before the cache is there, and its Secret must never be in the cache.
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	if o.Image == "" {
		if o.Image, err = ownImage(ctx, direct, f.operatorNamespace); err != nil {
			return err
		}
	}
	certificate := metipwebhook.NewRotator(direct, f.operatorNamespace)
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Cache:   controllers.CacheOptions(f.operatorNamespace, split(f.watchNamespaces)),
		Metrics: f.metricsOptions(certificate),
		WebhookServer: webhook.NewServer(webhook.Options{
			Port: f.webhookPort, TLSOpts: serving(f, certificate),
		}),
		HealthProbeBindAddress:        f.probeAddress,
		LeaderElection:                f.leaderElect,
		LeaderElectionReleaseOnCancel: true,
		// A lock of our own, because the usual one records an Event at each start.
		LeaderElectionResourceLockInterface: lock,
		GracefulShutdownTimeout:             new(shutdownTimeout),
	})
	if err != nil {
		return err
	}
	if f.webhooks {
		o.Certificate = certificate
		if err := mgr.Add(certificate); err != nil {
			return err
		}
	}
	if err := addChecks(mgr, f); err != nil {
		return err
	}
	if err := controllers.SetupAll(ctx, mgr, o); err != nil {
		return err
	}
	if err := addMeter(mgr, f.operatorNamespace, crmetrics.Registry); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func addChecks(mgr ctrl.Manager, f flags) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	ready := healthz.Ping
	if f.webhooks {
		ready = mgr.GetWebhookServer().StartedChecker()
	}
	return mgr.AddReadyzCheck("webhook", ready)
}

// flags of the manager.
type flags struct {
	operatorNamespace, watchNamespaces    string
	image, pullPolicy, allowedAnnotations string
	customImages                          string
	connectorResources, brokerResources   resources
	connectorEnv                          env
	fixedGroup                            bool
	leaderElect, webhooks, metricsSecure  bool
	metricsAddress, probeAddress          string
	webhookPort, workers, qps             int
	resync                                time.Duration
	log                                   zap.Options
}

func parseFlags() flags {
	var f flags
	flag.StringVar(&f.operatorNamespace, "operator-namespace", os.Getenv("POD_NAMESPACE"), "namespace that the operator runs in, where it keeps the keys of brokers; by default POD_NAMESPACE")
	flag.StringVar(&f.watchNamespaces, "watch-namespaces", "", "comma separated namespaces to look after beside the operator's own; all when empty")
	flag.StringVar(&f.image, "image", "", "image of connector and broker pods; by default that of the operator's own pod, POD_NAME")
	flag.StringVar(&f.pullPolicy, "image-pull-policy", string(corev1.PullIfNotPresent), "pull policy of that image")
	flag.StringVar(&f.allowedAnnotations, "allowed-pod-annotations", "", "comma separated annotations that spec.template may set; one that ends in / allows all under it")
	flag.StringVar(&f.customImages, "custom-images", "", "comma separated images that custom connectors may run: whole ones, names that allow each tag and digest, and prefixes that end in /; none when empty")
	flag.Var(&f.connectorResources, "connector-resources", "resources of connector pods whose template has none, as requests.cpu=10m,requests.memory=32Mi,limits.memory=256Mi")
	flag.Var(&f.brokerResources, "broker-resources", "resources of broker pods whose template has none, in the same form")
	flag.Var(&f.connectorEnv, "connector-env", "NAME=value that is added to every connector pod (a proxy, say); may be given several times")
	flag.BoolVar(&f.fixedGroup, "fixed-group", true, "give the broker's volumes to the image's group; switch it off on OpenShift, which chooses the group itself")
	flag.BoolVar(&f.leaderElect, "leader-elect", true, "let one of several replicas work at a time")
	flag.BoolVar(&f.webhooks, "webhooks", true, "serve the validating webhooks")
	flag.IntVar(&f.webhookPort, "webhook-port", 9443, "port of the webhooks")
	flag.StringVar(&f.metricsAddress, "metrics-bind-address", ":8443", "address of the metrics; 0 for none")
	flag.BoolVar(&f.metricsSecure, "metrics-secure", true, "serve metrics over TLS, to those whom RBAC lets get /metrics")
	flag.StringVar(&f.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flag.IntVar(&f.workers, "workers", 4, "objects of each kind that are worked on at a time")
	flag.IntVar(&f.qps, "api-qps", 0, "requests a second to the API server at most; 0 leaves it to the API server's own fairness")
	flag.DurationVar(&f.resync, "resync", 30*time.Second, "how often what is on the brokers is compared with what should be there")
	f.log.BindFlags(flag.CommandLine)
	flag.Parse()
	return f
}

// options of the controllers.
func (f flags) options() (controllers.Options, error) {
	if f.operatorNamespace == "" {
		return controllers.Options{}, fmt.Errorf("--operator-namespace or POD_NAMESPACE must be set")
	}
	return controllers.Options{
		OperatorNamespace: f.operatorNamespace, Image: f.image, ImagePullPolicy: corev1.PullPolicy(f.pullPolicy),
		AllowedPodAnnotations: split(f.allowedAnnotations),
		CustomImages:          split(f.customImages),
		Namespaces:            split(f.watchNamespaces),
		Connector:             f.connectorResources.ResourceRequirements, Broker: f.brokerResources.ResourceRequirements,
		ConnectorEnv: f.connectorEnv, FixedGroup: f.fixedGroup, Workers: f.workers, Resync: f.resync, Metrics: crmetrics.Registry,
	}, nil
}

func (f flags) metricsOptions(certificate *metipwebhook.Rotator) metricsserver.Options {
	o := metricsserver.Options{BindAddress: f.metricsAddress, SecureServing: f.metricsSecure}
	if f.metricsSecure {
		o.FilterProvider = filters.WithAuthenticationAndAuthorization
		o.TLSOpts = serving(f, certificate)
	}
	return o
}

func split(list string) []string {
	var out []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
