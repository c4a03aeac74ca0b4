package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/courtdb"
	"github.com/metip/metip/test/specs"
)

const (
	brokersNamespace = "metip-e2e"
	e2eLabel         = "e2e.metip.dev/suite"
	pollEvery        = 200 * time.Millisecond
)

// What the whole suite shares.
var (
	on           *cluster.Cluster
	database     *courtdb.Server
	sharedBroker = types.NamespacedName{Namespace: brokersNamespace, Name: "shared"}
	records      []arrests.Line
	measured     measures
)

func TestE2E(t *testing.T) {
	specs.Run(t, "MetIP on a real cluster")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyPollingInterval(pollEvery)
	SetDefaultEventuallyTimeout(time.Minute)
	EnforceDefaultTimeoutsWhenUsingContexts()

	var err error
	on, err = cluster.Open(ctx, cluster.OptionsFromEnvironment())
	Expect(err).NotTo(HaveOccurred())
	Expect(on.Local).To(BeTrue(), "the suite kills processes and runs a database beside the cluster: it needs the local cluster (make cluster-up)")
	installed, err := on.Exists(ctx, managerDeployment())
	Expect(err).NotTo(HaveOccurred())
	Expect(on.Install(ctx)).To(Succeed())
	if !installed {
		DeferCleanup(func(ctx SpecContext) { Expect(on.Uninstall(ctx)).To(Succeed()) }, NodeTimeout(3*time.Minute))
	}
	// What an administrator decides: the image of the spec of custom connectors may run.
	_, err = on.Run(ctx, "patch", "deployment", cluster.ManagerDeployment, "-n", cluster.OperatorNamespace, "--type=json",
		"-p", `[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["--custom-images=`+strings.TrimSuffix(registryImage, ":dev")+`"]}]`)
	Expect(err).NotTo(HaveOccurred())
	Expect(on.WaitDeployment(ctx, cluster.OperatorNamespace, cluster.ManagerDeployment)).To(Succeed())
	DeferCleanup(nothingIsLeft, NodeTimeout(4*time.Minute))
	DeferCleanup(func() { Expect(measured.write(filepath.Join(on.Root, "out", "e2e-measures.json"))).To(Succeed()) })

	host, err := on.HostAddress(ctx)
	Expect(err).NotTo(HaveOccurred())
	database, err = courtdb.Start(ctx, courtdb.Options{Dir: filepath.Join(on.Root, "out", "e2e", "pg"), Host: host, Report: report})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { Expect(database.Remove(ctx)).To(Succeed()) }, NodeTimeout(time.Minute))

	f, err := os.Open(filepath.Join(on.Root, "test", "demo", "data", "arrests.ndjson"))
	Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	records, err = arrests.Read(f)
	Expect(err).NotTo(HaveOccurred())

	makeNamespace(ctx, brokersNamespace)
	makeBroker(ctx, sharedBroker, 1)
}, NodeTimeout(5*time.Minute))

func managerDeployment() *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, Name: cluster.ManagerDeployment}}
}

// makeNamespace that demands restricted pods. When the spec ends its deletion begins, and at the end of the suite it must be gone:
// pods take their time, and the next spec need not wait for them.
func makeNamespace(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(on.DeleteNamespace(ctx, name)).To(Succeed(), "left over from an earlier run")
	Expect(on.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{e2eLabel: "yes", "pod-security.kubernetes.io/enforce": "restricted"},
	}})).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		_, err := on.Run(ctx, "delete", "namespace", name, "--wait=false", "--ignore-not-found")
		Expect(err).NotTo(HaveOccurred())
	}, NodeTimeout(time.Minute))
}

// nothingIsLeft of the suite in the cluster: registered first, hence run after everything else.
func nothingIsLeft(ctx SpecContext) {
	Eventually(ctx, func() ([]string, error) {
		namespaces, err := on.Clientset.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: e2eLabel})
		var names []string
		for _, n := range namespaces.Items {
			names = append(names, n.Name+": "+fmt.Sprint(n.Status.Conditions))
		}
		return names, err
	}).WithTimeout(3*time.Minute).Should(BeEmpty(), "namespaces that do not go away")
	Eventually(ctx, func() ([]string, error) {
		secrets, err := on.Clientset.CoreV1().Secrets(cluster.OperatorNamespace).List(ctx, metav1.ListOptions{})
		var names []string
		for _, s := range secrets.Items {
			if strings.HasPrefix(s.Name, "metip-broker.e2e-") || strings.HasPrefix(s.Name, "metip-broker."+brokersNamespace+".") {
				names = append(names, s.Name)
			}
		}
		return names, err
	}).WithTimeout(time.Minute).Should(BeEmpty(), "keys of Brokers that are gone, whose policy is Delete")
}

// makeBroker for the namespaces of this suite, and wait until it is Ready.
func makeBroker(ctx context.Context, key types.NamespacedName, replicas int32) {
	GinkgoHelper()
	broker := &busv1alpha1.Broker{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: busv1alpha1.BrokerSpec{
			Managed: &busv1alpha1.ManagedBroker{
				Replicas: &replicas, DeletionPolicy: busv1alpha1.DeletionPolicyDelete, Storage: busv1alpha1.BrokerStorage{Size: quantity("4Gi")},
			},
			AllowedNamespaces: &busv1alpha1.AllowedNamespaces{
				From: busv1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{e2eLabel: "yes"}},
			},
		},
	}
	Expect(on.Client.Create(ctx, broker)).To(Succeed())
	eventuallyReady(ctx, broker, 2*time.Minute)
}
