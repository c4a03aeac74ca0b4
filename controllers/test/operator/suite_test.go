package operator_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers"
	"github.com/metip/metip/controllers/internal/bus/bustest"
	metipwebhook "github.com/metip/metip/controllers/webhook"
	"github.com/metip/metip/test/specs"
)

const (
	root              = "../../.."
	operatorNamespace = "metip-system"
	serviceAccount    = "system:serviceaccount:metip-system:metip-manager"
	brokerSecret      = "broker-credentials"
	// resync of the operator in these tests.
	resync = time.Second
)

var (
	// api is an administrator's client; as is the configuration of the operator's service account.
	api      client.Client
	admin    *rest.Config
	as       *rest.Config
	broker   *bustest.Broker
	manager  *operator
	dataside *pods
)

func TestOperator(t *testing.T) {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	specs.Run(t, "Operator")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	if os.Getenv("METIP_TEST_LOG") != "" {
		ctrl.SetLogger(zap.New(zap.WriteTo(os.Stderr), zap.UseDevMode(true)))
	} else {
		ctrl.SetLogger(logr.Discard())
	}
	env := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" { // make sets it; `go test` alone takes what `make envtest-assets` built
		env.BinaryAssetsDirectory = filepath.Join(root, "out", "bin")
	}
	var err error
	admin, err = env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(env.Stop)
	admin.QPS = -1
	api, err = client.New(admin, client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())

	Expect(api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	applyRBAC(ctx)
	as = rest.CopyConfig(admin)
	as.Impersonate = rest.ImpersonationConfig{
		UserName: serviceAccount, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace, "system:authenticated"},
	}

	broker = bustest.Start(GinkgoTB(), bustest.Options{MaxFileStore: 1 << 40}) // every Integration reserves its size
	Expect(api.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: brokerSecret}, Data: broker.Credentials(),
	})).To(Succeed())
	Expect(api.Create(ctx, externalBroker())).To(Succeed())
	manager = startOperator()
	dataside = startPods()
	DeferCleanup(func() {
		manager.stop()
		dataside.stop()
	})
})

// externalBroker is the suite's broker, for every namespace.
func externalBroker() *v1alpha1.Broker {
	return &v1alpha1.Broker{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "default"},
		Spec: v1alpha1.BrokerSpec{
			External:          &v1alpha1.ExternalBroker{URL: broker.URL(), Credentials: v1alpha1.SecretName{Name: brokerSecret}},
			AllowedNamespaces: &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll},
		},
	}
}

// applyRBAC installs the operator's rights as config/rbac has them.
func applyRBAC(ctx context.Context) {
	GinkgoHelper()
	files, err := filepath.Glob(filepath.Join(root, "config", "rbac", "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	for _, f := range files {
		if filepath.Base(f) == "kustomization.yaml" {
			continue
		}
		for _, obj := range readManifests(f) {
			Expect(api.Create(ctx, obj)).To(Succeed(), f)
		}
	}
}

// operator is a running manager, which can be stopped and started again.
type operator struct {
	cancel context.CancelFunc
	done   chan struct{}
	writes *writeCounter
	cert   *metipwebhook.Rotator
	port   int
	// metrics are the operator's own.
	metrics *prometheus.Registry
}

// startOperator with the rights of its service account.
func startOperator() *operator {
	GinkgoHelper()
	o := &operator{done: make(chan struct{}), writes: &writeCounter{}, port: freePort(), metrics: prometheus.NewRegistry()}
	cfg := rest.CopyConfig(as)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return o.writes.wrap(next) })
	direct, err := client.New(cfg, client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	o.cert = metipwebhook.NewRotator(direct, operatorNamespace)
	o.cert.Hosts = []string{"localhost"}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: controllers.NewScheme(), Cache: controllers.CacheOptions(operatorNamespace, nil),
		Metrics:       metricsserver.Options{BindAddress: "0"},
		Controller:    config.Controller{SkipNameValidation: new(true)},
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: o.port, TLSOpts: []func(*tlsConfig){o.cert.Configure}}),
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(mgr.Add(o.cert)).To(Succeed())
	var ctx context.Context
	ctx, o.cancel = context.WithCancel(context.Background())
	Expect(controllers.SetupAll(ctx, mgr, controllers.Options{
		OperatorNamespace: operatorNamespace, Image: "localhost/metip:test", Resync: resync, Certificate: o.cert, Metrics: o.metrics,
		AllowedPodAnnotations: []string{"example.com/allowed"}, CustomImages: []string{"registry.example/own"},
	})).To(Succeed())
	go func() {
		defer close(o.done)
		defer GinkgoRecover()
		Expect(mgr.Start(ctx)).To(Succeed())
	}()
	return o
}

func (o *operator) stop() {
	o.cancel()
	<-o.done
}

// writeCounter counts the requests that write, but for reviews of access.
type writeCounter struct {
	mu    sync.Mutex
	calls []string
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w *writeCounter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			w.mu.Lock()
			w.calls = append(w.calls, r.Method+" "+r.URL.Path)
			w.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// reset forgets what was counted, and count tells it.
func (w *writeCounter) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = nil
}

func (w *writeCounter) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.calls...)
}

// installWebhooks applies config/webhook, calling the operator of the test instead of its Service.
func installWebhooks(ctx context.Context) {
	GinkgoHelper()
	data, err := os.ReadFile(filepath.Join(root, "config", "webhook", "webhooks.yaml"))
	Expect(err).NotTo(HaveOccurred())
	c := &admissionv1.ValidatingWebhookConfiguration{}
	Expect(yaml.UnmarshalStrict(data, c)).To(Succeed())
	for i := range c.Webhooks {
		url := fmt.Sprintf("https://localhost:%d%s", manager.port, *c.Webhooks[i].ClientConfig.Service.Path)
		c.Webhooks[i].ClientConfig = admissionv1.WebhookClientConfig{URL: &url}
	}
	Expect(api.Create(ctx, c)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		err := api.Delete(ctx, c)
		Expect(client.IgnoreNotFound(err)).To(Succeed())
	})
	Expect(manager.cert.Ensure(ctx)).To(Succeed())
}

func freePort() int {
	GinkgoHelper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// newNamespace for one spec, under the restricted Pod Security standard.
func newNamespace(ctx SpecContext) string {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "op-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	Expect(api.Create(ctx, ns)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		for _, obj := range all(ctx) {
			if obj.GetNamespace() == ns.Name {
				remove(ctx, obj)
			}
		}
		for _, obj := range all(ctx) {
			if obj.GetNamespace() == ns.Name {
				Eventually(gone(ctx, obj)).WithTimeout(30 * time.Second).Should(Succeed())
			}
		}
	})
	return ns.Name
}

// gone is nil when an object does not exist.
func gone(ctx context.Context, obj client.Object) func() error {
	return func() error {
		err := api.Get(ctx, client.ObjectKeyFromObject(obj), obj)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%T %s is still there", obj, obj.GetName())
		}
		return err
	}
}
