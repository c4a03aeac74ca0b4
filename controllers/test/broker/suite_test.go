package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/broker"
	"github.com/metip/metip/controllers/internal/apply"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/signals"
	"github.com/metip/metip/test/specs"
)

const (
	root              = "../../.."
	operatorNamespace = "metip-system"
)

var api client.Client

func TestBroker(t *testing.T) {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	specs.Run(t, "Broker controller")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(logr.Discard())
	env := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" { // make sets it; `go test` alone takes what `make envtest-assets` built
		env.BinaryAssetsDirectory = filepath.Join(root, "out", "bin")
	}
	config, err := env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(env.Stop)
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	api, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	ctx, cancel := context.WithCancel(context.Background())
	Expect(api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	mgr, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}})
	Expect(err).NotTo(HaveOccurred())
	sessions := bus.NewRegistry(ctx, logr.Discard())
	hub := signals.NewHub(sessions)
	Expect(mgr.Add(hub)).To(Succeed())
	Expect((&broker.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Apply: apply.New(mgr.GetClient(), mgr.GetAPIReader()),
		Events: mgr.GetEventRecorder("metip"), Sessions: sessions, OperatorNamespace: operatorNamespace,
		Defaults: broker.Defaults{Image: "metip:test", Resources: broker.DefaultResources(), FixedGroup: true},
	}).SetupWithManager(mgr, hub)).To(Succeed())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer GinkgoRecover()
		Expect(mgr.Start(ctx)).To(Succeed())
	}()
	DeferCleanup(func() {
		cancel()
		<-done
		sessions.Close()
	})
})

// newNamespace makes a namespace for one spec.
func newNamespace(ctx SpecContext) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "broker-"}}
	Expect(api.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

// condition of a Broker, as "status/reason: message"; empty when there is none.
func condition(ctx SpecContext, b *v1alpha1.Broker, name string) func() string {
	return func() string {
		if err := api.Get(ctx, client.ObjectKeyFromObject(b), b); err != nil {
			return err.Error()
		}
		c := meta.FindStatusCondition(b.Status.Conditions, name)
		if c == nil || c.ObservedGeneration != b.Generation {
			return ""
		}
		return string(c.Status) + "/" + c.Reason + ": " + c.Message
	}
}
