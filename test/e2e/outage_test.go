package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/test/demo/caseapi"
	"github.com/metip/metip/test/demo/site"
)

// A failure must show within this time, and what follows from it soon after.
const (
	showsWithin   = 10 * time.Second
	followsWithin = 5 * time.Second
	outage        = time.Minute
)

var _ = Describe("A target that is down for a minute", func() {
	It("is told truthfully, and nothing is lost: the database", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records, 60)
		p.accepted(ctx, 100)
		Expect(database.Stop(ctx)).To(Succeed())
		down := time.Now()
		restarted := false
		DeferCleanup(func(ctx SpecContext) {
			if !restarted {
				Expect(database.Restart(ctx)).To(Succeed())
			}
		}, NodeTimeout(time.Minute))

		took := eventuallySays(ctx, showsWithin, f.connector(site.CourtDB), "Connected=False ConnectionFailed", "court-db:5432", "refused")
		measured.add("database stopped, until Connected=False", took.Seconds(), "s")
		f.notReady(ctx, site.CourtDB)
		Expect(says(ctx, f.connector(site.CaseAPI), "Ready")()).To(HavePrefix("Ready=True"), "the other destination is not concerned")
		p.wait(ctx, time.Minute)

		// the other destination gets everything meanwhile
		Eventually(ctx, f.owedToCaseAPI).WithArguments(ctx).WithTimeout(time.Minute).Should(BeZero())
		Eventually(ctx, time.Since).WithArguments(down).WithTimeout(2 * outage).Should(BeNumerically(">", outage))
		Expect(database.Restart(ctx)).To(Succeed())
		restarted = true
		back := time.Now()
		f.ready(ctx)
		measured.add("database started again, until all is Ready", time.Since(back).Seconds(), "s")
		f.settles(ctx, time.Minute)
	}, SpecTimeout(6*time.Minute))

	It("is told truthfully, and nothing is lost: the case API", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records[:600], 60)
		p.accepted(ctx, 100)
		Expect(f.scaleCaseAPI(ctx, 0)).To(Succeed())
		took := eventuallySays(ctx, showsWithin, f.connector(site.CaseAPI), "Connected=False ConnectionFailed", "court-case-api")
		measured.add("case API gone, until Connected=False", took.Seconds(), "s")
		f.notReady(ctx, site.CaseAPI)
		p.wait(ctx, time.Minute)
		Expect(f.scaleCaseAPI(ctx, 1)).To(Succeed())
		f.ready(ctx)
		// what it held in memory went with its pod: only what came after is there, and the bus owes nothing
		Eventually(ctx, f.owedToCaseAPI).WithArguments(ctx).WithTimeout(time.Minute).Should(BeZero())
	}, SpecTimeout(5*time.Minute))

	It("or misbehaves in any other way costs nothing", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		for i, mode := range []caseapi.Mode{caseapi.ModeFail, caseapi.ModeBusy, caseapi.ModeHang, caseapi.ModeDown, caseapi.ModeStoreThenFail} {
			By("a case API that is in mode " + string(mode))
			Expect(f.CaseAPI.SetMode(ctx, mode)).To(Succeed())
			before, err := f.CaseAPI.Stats(ctx)
			Expect(err).NotTo(HaveOccurred())
			p := f.post(ctx, records[i*100:(i+1)*100], 0)
			Eventually(ctx, func() (int, error) {
				stats, err := f.CaseAPI.Stats(ctx)
				return stats.Failed - before.Failed, err
			}).WithTimeout(time.Minute).Should(BeNumerically(">", 1), "requests that failed")
			p.wait(ctx, time.Minute)
			Expect(f.CaseAPI.SetMode(ctx, caseapi.ModeOK)).To(Succeed())
			f.settles(ctx, time.Minute)
		}
		f.ready(ctx)
	}, SpecTimeout(6*time.Minute))
})

var _ = Describe("A broker that is down", Serial, func() {
	It("is told truthfully, pushes back, and nothing is lost", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{broker: ownBroker(ctx, 1)})
		f.post(ctx, records[:200], 0).wait(ctx, time.Minute)
		pod := podNames(ctx, f.broker.Namespace, brokerSelector(f.broker))[0]
		cordon(ctx, "cordon")
		DeferCleanup(func(ctx SpecContext) { cordon(ctx, "uncordon") }, NodeTimeout(time.Minute))
		_, err := on.Run(ctx, "delete", "pod", "-n", f.broker.Namespace, pod, "--grace-period=1")
		Expect(err).NotTo(HaveOccurred())

		Eventually(ctx, says(ctx, f.connector(site.Custody), "Connected")).WithTimeout(30 * time.Second).Should(Or(
			HavePrefix("Connected=Unknown BrokerUnreachable"), HavePrefix("Connected=False BrokerUnreachable"), HavePrefix("Connected=Unknown NoReport")))
		Eventually(ctx, says(ctx, f.integration(), "Ready")).WithTimeout(30 * time.Second).ShouldNot(HavePrefix("Ready=True"))
		Eventually(ctx, func() int { return f.request(ctx, `{"disposal": "none"}`, nil).status }).WithTimeout(30 * time.Second).Should(Equal(http.StatusServiceUnavailable))
		cordon(ctx, "uncordon")
		f.ready(ctx)
		f.poster.Stamp = ".after"
		f.post(ctx, records[200:400], 0).wait(ctx, time.Minute)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(6*time.Minute))
})

// notReady checks that Route and Integration follow a Connector that is not connected, and that Events were recorded.
func (f *testFlow) notReady(ctx context.Context, connector string) {
	GinkgoHelper()
	c, r, i := f.connector(connector), f.route(), f.integration()
	eventuallySays(ctx, followsWithin, c, "Ready=False")
	eventuallySays(ctx, followsWithin, r, "Ready=False", connector)
	eventuallySays(ctx, followsWithin, i, "Ready=False")
	eventuallyEvent(ctx, c, "ConnectionFailed")
}

// owedToCaseAPI is how many messages are not settled there yet.
func (f *testFlow) owedToCaseAPI(ctx context.Context) (int, error) {
	return f.admin.Owed(ctx, f.Namespace, site.Integration, site.Route, site.ToCaseAPI)
}

func (f *testFlow) scaleCaseAPI(ctx context.Context, replicas int) error {
	_, err := on.Run(ctx, "scale", "-n", f.Namespace, "deployment/"+site.CaseAPIService, fmt.Sprintf("--replicas=%d", replicas))
	if err != nil {
		return err
	}
	return on.WaitDeployment(ctx, f.Namespace, site.CaseAPIService)
}

// cordon (or uncordon) the node, so that a pod that is deleted does not come back.
func cordon(ctx context.Context, verb string) {
	GinkgoHelper()
	_, err := on.Run(ctx, verb, "-l", "kubernetes.io/os=linux")
	Expect(err).NotTo(HaveOccurred())
}
