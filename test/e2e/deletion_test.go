package e2e_test

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/test/demo/site"
)

var _ = Describe("Deleting", func() {
	It("everything leaves no child, no stream, no consumer and no finalizer", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		f.post(ctx, records[:100], 0).wait(ctx, time.Minute)
		f.settles(ctx, time.Minute)
		Expect(f.children(ctx)).NotTo(BeEmpty())

		By("a Route: its consumers go, the rest stays")
		_, err := on.Run(ctx, "delete", "-n", f.Namespace, "routes.bus.metip.dev", "--all", "--timeout=30s")
		Expect(err).NotTo(HaveOccurred())
		stream := contract.EventStream(f.Namespace, site.Integration)
		Eventually(ctx, func() (int, error) {
			consumers, err := f.admin.Consumers(ctx, stream)
			return len(consumers), err
		}).WithTimeout(time.Minute).Should(BeZero())

		By("the Connectors and the Integration: their children and streams go")
		_, err = on.Run(ctx, "delete", "-n", f.Namespace, "connectors.bus.metip.dev,integrations.bus.metip.dev", "--all", "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, f.children).WithArguments(ctx).WithTimeout(time.Minute).Should(BeEmpty())
		Eventually(ctx, f.streams).WithArguments(ctx).WithTimeout(time.Minute).Should(BeEmpty())
	}, SpecTimeout(4*time.Minute))

	It("the namespace with data on its way ends, in whatever order", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		postings, cancel := context.WithCancel(ctx)
		defer cancel()
		p := f.post(postings, records, 100)
		p.accepted(ctx, 100)
		_, err := on.Run(ctx, "delete", "namespace", f.Namespace, "--timeout=90s")
		Expect(err).NotTo(HaveOccurred())
		cancel()
		Eventually(ctx, p.done).Should(BeClosed())
		Eventually(ctx, f.streams).WithArguments(ctx).WithTimeout(time.Minute).Should(BeEmpty())
	}, SpecTimeout(4*time.Minute))

	It("an Integration whose broker is gone ends", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{broker: ownBroker(ctx, 1)})
		_, err := on.Run(ctx, "delete", "-n", f.broker.Namespace, "brokers.bus.metip.dev/"+f.broker.Name, "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() []string { return podNames(ctx, f.broker.Namespace, brokerSelector(f.broker)) }).WithTimeout(time.Minute).Should(BeEmpty())
		Expect(f.integrationDelete(ctx)).To(Succeed())
	}, SpecTimeout(4*time.Minute))
})

func (f *testFlow) integrationDelete(ctx context.Context) error {
	_, err := on.Run(ctx, "delete", "-n", f.Namespace, "metip", "--all", "--timeout=60s")
	return err
}

// children that the operator made in the namespace, as kind/name.
func (f *testFlow) children(ctx context.Context) ([]string, error) {
	text, err := on.Run(ctx, "get", "-n", f.Namespace, "-l", "app.kubernetes.io/managed-by=metip", "-o", "name", "--ignore-not-found",
		"deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets")
	return strings.Fields(text), err
}

// streams of the namespace on its broker.
func (f *testFlow) streams(ctx context.Context) ([]string, error) {
	all, err := f.admin.Streams(ctx)
	var mine []string
	for _, name := range all {
		if strings.HasPrefix(name, f.Namespace+"_") {
			mine = append(mine, name)
		}
	}
	return mine, err
}
