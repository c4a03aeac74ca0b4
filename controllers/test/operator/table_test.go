package operator_test

import (
	"context"

	"github.com/nats-io/nats.go"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// tableRoute fills the table wards.
func tableRoute(ns, name, from string) *v1alpha1.Route {
	r := newRoute(ns, name, from)
	r.Spec.To = []v1alpha1.Destination{{Name: "known", Table: &v1alpha1.TableDestination{Name: "wards", Key: "data.code"}}}
	return r
}

func lookUp(table string) v1alpha1.Step {
	return v1alpha1.Step{Enrich: &v1alpha1.Enrich{Table: &v1alpha1.EnrichTable{Name: v1alpha1.ObjectName(table), Key: "data.ward"}, Into: "ward"}}
}

// tableStream of a table of the Integration default, as the broker has it.
func tableStream(ctx context.Context, ns, table string) func() error {
	_, js := broker.Admin()
	return func() error {
		_, err := js.Stream(ctx, contract.TableStream(ns, "default", table))
		return err
	}
}

var _ = Describe("A lookup table", func() {
	It("is written by the relay, and read by the pods whose Routes name it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, size := newIntegration(ns), resource.MustParse("2Mi")
		integration.Spec.Tables = []v1alpha1.Table{{Name: "wards", Size: &size}, {Name: "codes", MaxAge: new(v1alpha1.Duration("1h"))}}
		fill, read := tableRoute(ns, "fill", "custody"), newRoute(ns, "arrests", "custody", "court")
		read.Spec.Steps = []v1alpha1.Step{lookUp("wards")}
		plain := newRoute(ns, "plain", "custody", "other")
		create(ctx, integration, newSource(ns, "custody"), newSink(ns, "court"), newSink(ns, "other"), fill, read, plain)
		expectReady(ctx, fill, read, plain, integration)
		Expect(fill.Status.To).To(Equal("table/wards"))
		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.TableStream(ns, "default", "wards"))
		Expect(err).NotTo(HaveOccurred())
		Expect(stream.CachedInfo().Config.MaxBytes).To(BeEquivalentTo(2 << 20))

		prefix := contract.TablePrefix(ns, "default", "wards")
		_, err = js.Publish(ctx, prefix+contract.StateToken("N1"), []byte("entry"))
		Expect(err).NotTo(HaveOccurred())
		for name, may := range map[string]struct{ read, write bool }{"default_relay": {true, true}, "court": {true, false}, "other": {}, "custody": {}} {
			for subject, allowed := range map[string]bool{
				contract.TableGet(ns, "default", "wards", prefix+contract.StateToken("N1")):                 may.read,
				prefix + contract.StateToken(name):                                                          may.write,
				contract.TableGet(ns, "default", "codes", contract.TablePrefix(ns, "default", "codes")+"x"): false,
				contract.TablePrefix(ns, "default", "codes") + "x":                                          false,
			} {
				refused := make(chan error, 1)
				nc := loginAs(ctx, ns, name, nats.ErrorHandler(errorsTo(refused)))
				inbox := nc.NewInbox()
				answers, err := nc.SubscribeSync(inbox)
				Expect(err).NotTo(HaveOccurred())
				Expect(nc.PublishRequest(subject, inbox, nil)).To(Succeed())
				if allowed {
					_, err := answers.NextMsgWithContext(ctx)
					Expect(err).NotTo(HaveOccurred(), "%s: %s", name, subject)
				} else {
					Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))), "%s: %s", name, subject)
				}
			}
		}

		By("taking the permission away with the step")
		former, err := credentialsOf(ctx, ns, "court")
		Expect(err).NotTo(HaveOccurred())
		change(ctx, read, func(r *v1alpha1.Route) { r.Spec.Steps = nil })
		Eventually(func() error { return accepted(former) }).ShouldNot(Succeed())
		expectReady(ctx, read)
		refused := make(chan error, 1)
		nc := loginAs(ctx, ns, "court", nats.ErrorHandler(errorsTo(refused)))
		Expect(nc.Publish(contract.TableGet(ns, "default", "wards", prefix+"x"), nil)).To(Succeed())
		Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))))

		By("growing with its spec")
		size = resource.MustParse("4Mi")
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Tables[0].Size = &size })
		Eventually(func() (int64, error) {
			info, err := stream.Info(ctx)
			if err != nil {
				return 0, err
			}
			return info.Config.MaxBytes, nil
		}).Should(BeEquivalentTo(4 << 20))
	})

	It("is missed where it is named, and goes when nobody names it any more", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, sink := newIntegration(ns), newSink(ns, "court")
		fill, read := tableRoute(ns, "fill", "custody"), newRoute(ns, "arrests", "custody", "court")
		read.Spec.To[0].Steps = []v1alpha1.Step{lookUp("wards")}
		create(ctx, integration, newSource(ns, "custody"), sink, fill, read)
		for _, r := range []*v1alpha1.Route{fill, read} {
			Eventually(condition(ctx, r, "ResolvedRefs")).Should(HavePrefix("False/TableNotFound: Integration default has no table wards: add it to its spec.tables (`tables: [{name: wards}]`)"))
		}
		expectReady(ctx, sink)
		_, before := configOf(ctx, ns, "court")
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Tables = []v1alpha1.Table{{Name: "wards"}, {Name: "spare"}} })
		expectReady(ctx, fill, read, integration)
		_, after := configOf(ctx, ns, "court")
		Expect(after.Name).To(Equal(before.Name), "no pod is replaced for a table that comes")
		Expect(tableStream(ctx, ns, "wards")()).To(Succeed())
		Expect(tableStream(ctx, ns, "spare")()).To(Succeed())

		By("taking both off the list")
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Tables = nil })
		Eventually(tableStream(ctx, ns, "spare")).ShouldNot(Succeed())
		Eventually(condition(ctx, read, "ResolvedRefs")).Should(HavePrefix("False/TableNotFound"))
		Expect(tableStream(ctx, ns, "wards")()).To(Succeed(), "Routes still name it")
		remove(ctx, fill)
		change(ctx, read, func(r *v1alpha1.Route) { r.Spec.To[0].Steps = nil })
		Eventually(tableStream(ctx, ns, "wards")).ShouldNot(Succeed())
		expectReady(ctx, read, integration)

		By("showing a table that is full")
		route := tableRoute(ns, "again", "custody")
		size := resource.MustParse("1Mi")
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Tables = []v1alpha1.Table{{Name: "wards", Size: &size}} })
		create(ctx, route)
		expectReady(ctx, route, integration)
		dataside.sayRoutes(ns, "default_relay", contract.RouteState{Route: "again", Destination: "known", State: contract.State{
			Reason: contract.ReasonTableFull, Message: "table wards is full",
		}})
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/TableFull: destination known: table wards is full"))
		_, js := broker.Admin()
		_, err := js.Publish(ctx, contract.TablePrefix(ns, "default", "wards")+"x", make([]byte, 900<<10))
		Expect(err).NotTo(HaveOccurred())
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Owner.Contact = "somebody" }) // a look at the streams
		Eventually(condition(ctx, integration, "StorageHealthy")).Should(HavePrefix("False/StorageLow: table wards is more than 85% full of 1 MiB: raise spec.tables[wards].size"))

		By("going with its Integration")
		remove(ctx, integration)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Eventually(tableStream(ctx, ns, "wards")).ShouldNot(Succeed())
	})
})
