package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/conformance/registrytest"
)

// registryImage is the custom connector of docs/connectors/custom.md, in Node.js.
const registryImage = "localhost/metip-registry:dev"

// registryFlow takes records out of a registry and puts them into the same one, by containers that know nothing of MetIP but the contract.
const registryFlow = `
apiVersion: v1
kind: Secret
metadata: {name: registry}
type: kubernetes.io/basic-auth
stringData: {username: %[2]s, password: %[3]s}
---
apiVersion: bus.metip.dev/v1alpha1
kind: Integration
metadata: {name: default}
spec:
  brokerRef: {name: %[4]s, namespace: %[5]s}
---
apiVersion: bus.metip.dev/v1alpha1
kind: Connector
metadata: {name: from-registry}
spec:
  source:
    eventType: registry.record
    custom:
      image: %[6]s
      args: [/app/registry.mjs]
      env: [{name: REGISTRY, value: "%[1]s"}]
      ports: [%[7]s]
  auth: {basic: {secret: {name: registry}}}
---
apiVersion: bus.metip.dev/v1alpha1
kind: Connector
metadata: {name: to-registry}
spec:
  replicas: 2
  sink:
    custom:
      image: %[6]s
      args: [/app/registry.mjs]
      env: [{name: REGISTRY, value: "%[1]s"}]
      ports: [%[7]s]
  auth: {basic: {secret: {name: registry}}}
---
apiVersion: bus.metip.dev/v1alpha1
kind: Route
metadata: {name: records}
spec:
  from: [{connector: from-registry}]
  to: [{name: registry, connector: to-registry}]
`

var _ = Describe("A connector of somebody's own", func() {
	It("in Node.js, written from the contract, brings each record once while pods and the registry are killed", func(ctx SpecContext) {
		const count = 600
		host, err := on.HostAddress(ctx)
		Expect(err).NotTo(HaveOccurred())
		registry, err := registrytest.Listen(host + ":0")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(registry.Stop)

		namespace := "e2e-custom"
		makeNamespace(ctx, namespace)
		DeferCleanup(func(ctx SpecContext) {
			if CurrentSpecReport().Failed() {
				tell(ctx, namespace, sharedBroker)
			}
		}, NodeTimeout(time.Minute))
		_, port, _ := strings.Cut(registry.Address(), ":")
		apply := func(password, image string) error {
			manifest := fmt.Sprintf(registryFlow, registry.Address(), registrytest.User, password, sharedBroker.Name, sharedBroker.Namespace, image, port)
			_, err := on.RunInput(ctx, manifest, "apply", "-n", namespace, "-f", "-")
			return err
		}
		source, sink := customConnector(namespace, "from-registry"), customConnector(namespace, "to-registry")
		route := &busv1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "records"}}

		By("saying what the container says of its system")
		Expect(apply("a-wrong-password", registryImage)).To(Succeed())
		for _, c := range []client.Object{source, sink} {
			eventuallySays(ctx, 2*time.Minute, c, "Connected=False AuthenticationFailed:", registry.Address(), "wrong password")
		}
		Expect(apply(registrytest.Password, registryImage)).To(Succeed())
		for _, o := range []client.Object{source, sink, route} {
			eventuallyReady(ctx, o, 3*time.Minute) // the kubelet brings the Secret
		}

		By("losing nothing, and doubling nothing")
		want := map[string]int{}
		records := make([]registrytest.Record, count)
		for i := range records {
			body := fmt.Sprintf(`{"id":%d}`, i)
			records[i] = registrytest.Record{ID: fmt.Sprintf("r%d", i), Body: func() string { return body }}
			want[body] = 1
		}
		registry.Offer(records...)
		arrived := func(n int) {
			GinkgoHelper()
			Eventually(ctx, func() int { return len(registry.Stored()) }).WithTimeout(2 * time.Minute).Should(BeNumerically(">=", n))
		}
		arrived(50)
		killOne(ctx, namespace, "from-registry")
		arrived(200)
		killOne(ctx, namespace, "to-registry")
		registry.Stop()
		eventuallySays(ctx, time.Minute, source, "Connected=False ConnectionFailed:", registry.Address())
		Expect(registry.Start()).To(Succeed())
		Eventually(ctx, func() map[string]int {
			got := map[string]int{}
			for _, body := range registry.Stored() {
				got[body]++
			}
			return got
		}).WithTimeout(4 * time.Minute).Should(Equal(want))
		Eventually(ctx, registry.Left).Should(BeZero())
		for _, o := range []client.Object{source, sink, route} {
			eventuallyReady(ctx, o, 2*time.Minute)
		}

		By("running no image that the operator was not told of")
		Expect(apply(registrytest.Password, "docker.io/library/miner:1")).To(MatchError(ContainSubstring("--custom-images")))
	}, SpecTimeout(10*time.Minute))
})

func customConnector(namespace, name string) *busv1alpha1.Connector {
	return &busv1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

// killOne pod of a Connector: both of its containers.
func killOne(ctx context.Context, namespace, connector string) {
	GinkgoHelper()
	pods := podNames(ctx, namespace, "bus.metip.dev/connector="+connector)
	Expect(pods).NotTo(BeEmpty())
	Expect(on.Kill(ctx, namespace, runningPod(ctx, namespace, pods[0]))).To(Succeed())
}
