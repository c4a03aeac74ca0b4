package e2e_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/site"
)

// What is killed in mid-flow costs nothing: every accepted record arrives, none twice, none invented.
var _ = Describe("Kill -9 in mid-flow", func() {
	// the rate is such that records are on their way at each kill
	const perSecond, kills = 250, 2

	killed := func(ctx context.Context, f *testFlow, victim func() (namespace, pod string)) {
		GinkgoHelper()
		p := f.post(ctx, records, perSecond)
		for i := range kills {
			p.accepted(ctx, 100+i*250)
			namespace, pod := victim()
			Expect(on.Kill(ctx, namespace, pod)).To(Succeed())
		}
		p.wait(ctx, 2*time.Minute)
		f.settles(ctx, 2*time.Minute)
		f.ready(ctx)
	}

	DescribeTable("of a connector pod loses nothing", func(ctx SpecContext, connector string) {
		f := newFlow(ctx, flowOptions{})
		killed(ctx, f, func() (string, string) {
			pods := f.pods(ctx, connector)
			Expect(pods).To(HaveLen(1))
			return f.Namespace, runningPod(ctx, f.Namespace, pods[0])
		})
	},
		Entry("the source", SpecTimeout(5*time.Minute), site.Custody),
		Entry("the database's sink", SpecTimeout(5*time.Minute), site.CourtDB),
		Entry("the case API's sink", SpecTimeout(5*time.Minute), site.CaseAPI),
	)

	It("of the operator disturbs nothing", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		killed(ctx, f, func() (string, string) {
			pods := podNames(ctx, cluster.OperatorNamespace, operatorSelector)
			Expect(pods).To(HaveLen(1))
			return cluster.OperatorNamespace, runningPod(ctx, cluster.OperatorNamespace, pods[0])
		})
	}, SpecTimeout(5*time.Minute))

	It("of the only broker pod loses nothing", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{broker: ownBroker(ctx, 1)})
		killed(ctx, f, func() (string, string) {
			pods := podNames(ctx, f.broker.Namespace, brokerSelector(f.broker))
			Expect(pods).To(HaveLen(1))
			return f.broker.Namespace, runningPod(ctx, f.broker.Namespace, pods[0])
		})
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("A broker pod deleted in mid-flow", func() {
	DescribeTable("loses nothing", func(ctx SpecContext, servers int) {
		f := newFlow(ctx, flowOptions{broker: ownBroker(ctx, int32(servers))})
		p := f.post(ctx, records, 150)
		for i := range servers {
			p.accepted(ctx, 100+i*250)
			pods := podNames(ctx, f.broker.Namespace, brokerSelector(f.broker))
			Expect(pods).To(HaveLen(servers))
			before, err := on.PodUID(ctx, f.broker.Namespace, pods[i])
			Expect(err).NotTo(HaveOccurred())
			_, err = on.Run(ctx, "delete", "pod", "-n", f.broker.Namespace, pods[i], "--wait=false")
			Expect(err).NotTo(HaveOccurred())
			Eventually(ctx, func() (types.UID, error) { return on.ReadyPodUID(ctx, f.broker.Namespace, pods[i]) }).
				WithTimeout(time.Minute).ShouldNot(BeElementOf(types.UID(""), before), "the server comes back")
		}
		p.wait(ctx, 2*time.Minute)
		f.settles(ctx, 2*time.Minute)
		f.ready(ctx)
	},
		Entry("of one server", SpecTimeout(5*time.Minute), 1),
		Entry("of three servers, one after the other", SpecTimeout(7*time.Minute), 3),
	)
})

const operatorSelector = "app.kubernetes.io/name=metip-manager"

func brokerSelector(broker types.NamespacedName) string {
	return "bus.metip.dev/broker=" + broker.Name
}

// ownBroker for a spec that harms it, in a namespace of its own.
func ownBroker(ctx context.Context, replicas int32) types.NamespacedName {
	GinkgoHelper()
	key := types.NamespacedName{Namespace: "e2e-broker-" + time.Now().Format("150405"), Name: "own"}
	makeNamespace(ctx, key.Namespace)
	makeBroker(ctx, key, replicas)
	return key
}

// runningPod waits until a pod's container runs: it may have been killed a moment ago.
func runningPod(ctx context.Context, namespace, pod string) string {
	GinkgoHelper()
	Eventually(ctx, func() ([]cluster.Process, error) { return on.Processes(ctx, namespace, pod) }).WithTimeout(time.Minute).ShouldNot(BeEmpty())
	return pod
}
