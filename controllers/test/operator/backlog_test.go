package operator_test

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/api/v1alpha1"
)

// backlog is what the operator's metrics say of a namespace: messages by "route/destination".
func backlog(ns string) map[string]float64 {
	GinkgoHelper()
	families, err := manager.metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "metip_route_destination_pending" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["namespace"] == ns {
				out[labels["route"]+"/"+labels["destination"]] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

var _ = Describe("The backlog of destinations", func() {
	It("is counted for each while it exists, and no longer", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		second := newRoute(a.ns, "copies", "custody", "court")
		second.Spec.Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey} // several durable consumers
		create(ctx, second)
		expectReady(ctx, second)
		Eventually(func() map[string]float64 { return backlog(a.ns) }).Should(Equal(map[string]float64{"arrests/court": 0, "copies/court": 0}))

		a.publish(ctx, "custody.arrest", 0, 40, 10)
		Eventually(func() map[string]float64 { return backlog(a.ns) }).Should(Equal(map[string]float64{"arrests/court": 40, "copies/court": 40}))

		taken := a.sink(ctx) // of the first alone
		Eventually(func() string { originals, _ := taken(); return fmt.Sprint(len(originals)) }).Should(Equal("40"))
		Eventually(func() map[string]float64 { return backlog(a.ns) }).Should(Equal(map[string]float64{"arrests/court": 0, "copies/court": 40}))

		remove(ctx, second)
		Eventually(func() string {
			var names []string
			for name := range backlog(a.ns) {
				names = append(names, name)
			}
			return strings.Join(names, ",")
		}).WithTimeout(30 * time.Second).Should(Equal("arrests/court"))
	})
})
