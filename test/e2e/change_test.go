package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/arrests"
)

var _ = Describe("A Route changed in mid-flow", func() {
	It("delivers each record once, by the old or the new transform", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records, 100)
		p.accepted(ctx, 250)
		f.changeRoute(ctx, func(r *busv1alpha1.Route) {
			jq := &r.Spec.Steps[0].Transform.JQ
			*jq = strings.Replace(*jq, "arrestId,", "arrestId, revision: 2,", 1)
		})
		p.wait(ctx, time.Minute)
		f.ready(ctx)
		f.settles(ctx, time.Minute)
		revisions := map[int]int{}
		for id := range f.due() {
			c, err := f.CaseAPI.Case(ctx, id)
			Expect(err).NotTo(HaveOccurred())
			var body struct{ Revision int }
			Expect(json.Unmarshal(c.Body, &body)).To(Succeed())
			revisions[body.Revision]++
		}
		report("by revision: %v", revisions)
		Expect(revisions).To(And(HaveLen(2), HaveKey(0), HaveKey(2)))
	}, SpecTimeout(4*time.Minute))

	It("delivers what the new filter lets through, and loses nothing that both let through", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records[:500], 100)
		p.accepted(ctx, 150)
		f.changeRoute(ctx, func(r *busv1alpha1.Route) {
			r.Spec.Filter = `data.disposal == "court" || data.disposal == "caution"`
			// a caution has no court, and the court's systems want a code and a hearing
			jq := &r.Spec.Steps[0].Transform.JQ
			*jq = strings.Replace(*jq, "court: {code: .court.code, hearingAt: .court.hearingAt}",
				`court: {code: (if .disposal == "caution" then "CAUTION" else .court.code end), hearingAt: (.court.hearingAt // .arrest.at)}`, 1)
		})
		p.wait(ctx, time.Minute)
		f.ready(ctx)
		f.post(ctx, records[500:], 0).wait(ctx, time.Minute)

		must, may := f.due(), map[string]bool{}
		for _, s := range f.sent[:500] {
			may[s.CaseID()] = s.Disposal == arrests.DisposalCaution
		}
		for _, s := range f.sent[500:] {
			if s.Disposal == arrests.DisposalCaution {
				must[s.CaseID()] = true
			}
		}
		Eventually(ctx, func() ([]string, error) {
			cases, err := f.CaseAPI.Cases(ctx)
			missing := map[string]bool{}
			for id := range must {
				missing[id] = true
			}
			for _, c := range cases {
				Expect(must[c.CaseID] || may[c.CaseID]).To(BeTrue(), "%s should not have been delivered", c.CaseID)
				delete(missing, c.CaseID)
			}
			var ids []string
			for id := range missing {
				ids = append(ids, id)
			}
			return ids, err
		}).WithTimeout(time.Minute).Should(BeEmpty(), "records that are missing at the case API")
	}, SpecTimeout(4*time.Minute))
})

// due are the cases that the case API must have.
func (f *testFlow) due() map[string]bool {
	ids := map[string]bool{}
	for _, s := range f.sent {
		if fate := s.Fate(); !fate.Filtered && !fate.CaseAPIRefuses {
			ids[s.CaseID()] = true
		}
	}
	return ids
}

func (f *testFlow) changeRoute(ctx context.Context, change func(*busv1alpha1.Route)) {
	GinkgoHelper()
	route := f.route()
	Expect(on.Client.Get(ctx, client.ObjectKeyFromObject(route), route)).To(Succeed())
	before := route.DeepCopy()
	change(route)
	Expect(route.Spec).NotTo(Equal(before.Spec), "the change changes something")
	Expect(on.Client.Patch(ctx, route, client.MergeFrom(before))).To(Succeed())
}

func (f *testFlow) changeConnector(ctx context.Context, name string, change func(*busv1alpha1.Connector)) {
	GinkgoHelper()
	connector := f.connector(name)
	Expect(on.Client.Get(ctx, client.ObjectKeyFromObject(connector), connector)).To(Succeed())
	before := connector.DeepCopy()
	change(connector)
	Expect(on.Client.Patch(ctx, connector, client.MergeFrom(before))).To(Succeed())
}
