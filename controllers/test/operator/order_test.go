package operator_test

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var _ = Describe("An ordered destination", func() {
	It("has its lanes on the broker, which are granted, paused and removed with it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		route := newRoute(ns, "arrests", "custody", "court", "archive", "log")
		route.Spec.Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: 2}
		route.Spec.To[1].Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderStrict}
		route.Spec.To[2].Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderNone}
		source, integration := newSource(ns, "custody"), newIntegration(ns)
		source.Spec.Source.PartitionKey = "data.personId"
		create(ctx, integration, source, newSink(ns, "court"), newSink(ns, "archive"), newSink(ns, "log"), route)
		expectReady(ctx, route, integration)

		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.EventStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		names := func() []string {
			var out []string
			list := stream.ConsumerNames(ctx)
			for n := range list.Name() {
				out = append(out, n)
			}
			return out
		}
		court, archive, log := contract.DurableName(ns, "arrests", "court"), contract.DurableName(ns, "arrests", "archive"), contract.DurableName(ns, "arrests", "log")
		Expect(names()).To(ConsistOf(court+"_p0", court+"_p1", archive+"_p0", log))
		settings := func(durable string) jetstream.ConsumerConfig {
			c, err := stream.Consumer(ctx, durable)
			Expect(err).NotTo(HaveOccurred())
			return c.CachedInfo().Config
		}
		lane := settings(court + "_p1")
		Expect(lane.PriorityPolicy).To(Equal(jetstream.PriorityPolicyPinned))
		Expect(lane.PinnedTTL).To(Equal(5 * time.Second))
		Expect(lane.MaxAckPending).To(Equal(64))
		Expect(lane.AckWait).To(BeNumerically("<", 10*time.Second))
		Expect(lane.OptStartTime.UTC()).To(BeTemporally("==", route.CreationTimestamp.UTC()))
		Expect(lane.FilterSubjects).To(ContainElements(
			contract.EventSubject(ns, "default", "custody", 1, ">"), contract.EventSubject(ns, "default", "custody", 15, ">"), contract.MarkSubject(ns, "default"),
		))
		Expect(lane.FilterSubjects).NotTo(ContainElement(contract.EventSubject(ns, "default", "custody", 0, ">")))
		Expect(settings(archive + "_p0").MaxAckPending).To(Equal(1))
		Expect(settings(log).PriorityPolicy).To(Equal(jetstream.PriorityPolicyNone))

		By("compiling them for the pods, with the permissions that they need")
		config, _ := configOf(ctx, ns, "court")
		Expect(config.Sink.Routes).To(HaveLen(1))
		Expect(config.Sink.Routes[0].Delivery.Order).To(Equal(contract.OrderPerKey))
		Expect(config.Sink.Routes[0].Delivery.Lanes).To(Equal(2))
		Expect(config.Sink.Routes[0].Durable).To(Equal(court))
		config, _ = configOf(ctx, ns, "custody")
		Expect(config.Source.PartitionKey).To(Equal("data.personId"))
		creds, err := credentialsOf(ctx, ns, "court")
		Expect(err).NotTo(HaveOccurred())
		nc, err := dial(creds, nats.CustomInboxPrefix(contract.InboxPrefix(ns, "court")))
		Expect(err).NotTo(HaveOccurred())
		defer nc.Close()
		refused := make(chan error, 10)
		nc.SetErrorHandler(errorsTo(refused))
		reset := contract.APIPrefix + ".CONSUMER.RESET." + contract.EventStream(ns, "default") + "."
		for _, mine := range []string{court + "_p0", court + "_p1"} {
			answer, err := nc.Request(reset+mine, nil, 10*time.Second)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(answer.Data)).NotTo(ContainSubstring(`"error"`))
		}
		Expect(nc.PublishRequest(reset+archive+"_p0", nc.NewInbox(), nil)).To(Succeed())
		Expect(nc.Flush()).To(Succeed())
		Eventually(refused).Should(Receive(MatchError(ContainSubstring(archive + "_p0"))))

		By("pausing all of them")
		paused := func() (n int) {
			for _, name := range names() {
				if c, err := stream.Consumer(ctx, name); err == nil && c.CachedInfo().Paused {
					n++
				}
			}
			return n
		}
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Suspend = new(true) })
		Eventually(paused).Should(Equal(4))
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Suspend = nil })
		Eventually(paused).Should(Equal(0))
		expectReady(ctx, route)

		By("repairing what somebody removed")
		Expect(stream.DeleteConsumer(ctx, court+"_p1")).To(Succeed())
		Eventually(names).Should(ContainElement(court + "_p1"))

		By("refusing another order, and expressions that do not compile")
		err = api.Get(ctx, client.ObjectKeyFromObject(route), route)
		Expect(err).NotTo(HaveOccurred())
		route.Spec.Delivery.Lanes = 4
		Expect(api.Update(ctx, route)).To(MatchError(ContainSubstring("order, lanes and key of a destination cannot change")))
		wrong := newRoute(ns, "wrong", "custody", "court")
		wrong.Spec.Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Key: "data."}
		create(ctx, wrong)
		Eventually(condition(ctx, wrong, "Accepted")).Should(HavePrefix("False/InvalidExpression: spec.delivery.key: line 1"))
		remove(ctx, wrong)

		By("removing those of a destination that goes, and of a Route")
		change(ctx, route, func(r *v1alpha1.Route) {
			r.Spec.To = slices.DeleteFunc(r.Spec.To, func(d v1alpha1.Destination) bool { return d.Name == "court" })
		})
		Eventually(names).Should(ConsistOf(archive+"_p0", log))
		remove(ctx, route)
		Eventually(names).Should(BeEmpty())
	})

	It("never has a lane that reads other slots than it did", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		route, integration := newRoute(ns, "arrests", "custody", "court", "archive"), newIntegration(ns)
		route.Spec.To[0].Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: 2}
		create(ctx, integration, newSource(ns, "custody"), newSink(ns, "court"), newSink(ns, "archive"), route)
		expectReady(ctx, route)
		_, js := broker.Admin()
		durable := contract.DurableName(ns, "arrests", "court") + "_p0"
		created := func() (time.Time, error) {
			c, err := js.Consumer(ctx, contract.EventStream(ns, "default"), durable)
			if err != nil {
				return time.Time{}, err
			}
			return c.CachedInfo().Created, nil
		}
		first, err := created()
		Expect(err).NotTo(HaveOccurred())
		// Removed and made again with more lanes, perhaps before anybody has swept up.
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.To = r.Spec.To[1:] })
		change(ctx, route, func(r *v1alpha1.Route) {
			r.Spec.To = append(r.Spec.To, v1alpha1.Destination{Name: "court", Connector: "court", Delivery: &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: 8}})
		})
		Eventually(created).Should(BeTemporally(">", first))
		c, err := js.Consumer(ctx, contract.EventStream(ns, "default"), durable)
		Expect(err).NotTo(HaveOccurred())
		Expect(c.CachedInfo().Config.FilterSubjects).To(HaveLen(2*2 + 1))
	})
})
