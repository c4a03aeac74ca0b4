package operator_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var _ = Describe("A flow", func() {
	It("becomes Ready in whatever order its manifests are applied, and loses nothing meanwhile", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		route := newRoute(ns, "arrests", "custody", "court")
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")

		create(ctx, route)
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix("False/IntegrationNotFound"))
		create(ctx, source)
		Eventually(condition(ctx, source, "ResolvedRefs")).Should(HavePrefix("False/IntegrationNotFound"))
		create(ctx, integration)
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix("False/ConnectorNotFound: there is no Connector court"))
		Eventually(condition(ctx, route, "Programmed")).Should(HavePrefix("True/"), "the durable consumer is made all the same")
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("True/"))

		_, js := broker.Admin()
		stream, durable := contract.EventStream(ns, "default"), contract.DurableName(ns, "arrests", "court")
		_, err := js.Publish(ctx, contract.EventSubject(ns, "default", "custody", 0, "custody.arrest"), []byte("{}"))
		Expect(err).NotTo(HaveOccurred())
		consumer, err := js.Consumer(ctx, stream, durable)
		Expect(err).NotTo(HaveOccurred())
		Expect(consumer.CachedInfo().Config.OptStartTime.UTC()).To(BeTemporally("==", route.CreationTimestamp.UTC()))
		Eventually(func() (uint64, error) {
			info, err := consumer.Info(ctx)
			return info.NumPending, err
		}).Should(BeNumerically(">=", 1))

		create(ctx, sink)
		expectReady(ctx, sink, route, integration)
		Expect(integration.Status.Connectors).To(Equal("2/2"))
		Expect(integration.Status.Routes).To(Equal("1/1"))
		Expect(integration.Status.Broker).To(Equal("metip-system/default"))
		Expect(route.Status.From).To(Equal("custody"))
		Expect(route.Status.To).To(Equal("court"))
		Expect(api.Get(ctx, client.ObjectKeyFromObject(source), source)).To(Succeed())
		Expect(source.Status.Role).To(Equal("Source"))
		Expect(source.Status.Type).To(Equal("http"))
		Expect(source.Status.Endpoint).To(Equal("http://custody." + ns + ".svc/arrests"))
		Expect(sink.Status.Endpoint).To(Equal("http://court.example:8080/api"))
		Expect(*sink.Status.AttachedRoutes).To(BeEquivalentTo(1))
		Expect(sink.Status.Replicas).To(BeEquivalentTo(1))
		Expect(sink.Status.CredentialExpiry.Time).To(BeTemporally("~", time.Now().Add(30*24*time.Hour), time.Hour))
	})

	It("says at once, everywhere, that its target is down, and that it is back", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")
		route := newRoute(ns, "arrests", "custody", "court")
		create(ctx, integration, source, sink, route)
		expectReady(ctx, route, integration)

		down := contract.State{Reason: contract.ReasonConnectionFailed, Message: "http://court.example:8080/api: connection refused"}
		dataside.say(ns, "court", down)
		Eventually(condition(ctx, sink, "Connected")).Should(Equal("False/ConnectionFailed: http://court.example:8080/api: connection refused"))
		Eventually(condition(ctx, route, "Ready")).Should(And(HavePrefix("False/ConnectionFailed"), ContainSubstring("destination court: Connector court: http://court.example")))
		Eventually(condition(ctx, integration, "Ready")).Should(And(HavePrefix("False/ConnectorsNotReady"), ContainSubstring("connection refused")))
		Expect(integration.Status.Connectors).To(Equal("1/2"))
		Eventually(func(g Gomega) {
			var list eventsv1.EventList
			g.Expect(api.List(ctx, &list, client.InNamespace(ns))).To(Succeed())
			g.Expect(list.Items).To(ContainElement(And(
				HaveField("Regarding.Name", "court"), HaveField("Reason", "ConnectionFailed"), HaveField("Type", "Warning"))))
		}).Should(Succeed())

		dataside.say(ns, "court", contract.State{OK: true})
		expectReady(ctx, sink, route, integration)
	})

	It("says what its pods say is wrong, rather than that they are not ready", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		dataside.fail(ns, "custody", true)
		dataside.say(ns, "custody", contract.State{Reason: contract.ReasonSystemError, Message: "the configuration cannot work: schema"})
		create(ctx, newIntegration(ns), source)
		Eventually(condition(ctx, source, "Deployed")).Should(HavePrefix("False/Progressing: 0 of 1 pods"))
		Eventually(condition(ctx, source, "Ready")).Should(Equal("False/SystemError: the configuration cannot work: schema"))
		dataside.say(ns, "custody", contract.State{OK: true})
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/Progressing: 0 of 1 pods"))
		dataside.fail(ns, "custody", false)
		expectReady(ctx, source)
	})

	It("tells a Route's own trouble from its Connector's", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")
		good, bad := newRoute(ns, "good", "custody", "court"), newRoute(ns, "bad", "custody", "court")
		create(ctx, integration, source, sink, good, bad)
		expectReady(ctx, good, bad, integration)

		dataside.sayRoutes(ns, "court", contract.RouteState{Route: "bad", Destination: "court", State: contract.State{
			Reason: contract.ReasonSystemError, Message: `relation "cases" does not exist`,
		}})
		Eventually(condition(ctx, bad, "Ready")).Should(And(HavePrefix("False/SystemError"), ContainSubstring(`relation "cases"`)))
		Expect(condition(ctx, sink, "Connected")()).To(HavePrefix("True/"))
		Expect(condition(ctx, good, "Ready")()).To(HavePrefix("True/"))
		Eventually(condition(ctx, integration, "Ready")).Should(And(HavePrefix("False/RoutesNotReady"), ContainSubstring("Route bad")))
		dataside.sayRoutes(ns, "court")
		expectReady(ctx, bad, integration)
	})

	It("is never called Ready on the word of pods that have not taken a change up", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")
		route := newRoute(ns, "arrests", "custody", "court")
		create(ctx, integration, source, sink, route)
		expectReady(ctx, route)

		dataside.hold(ns, "court", true)
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Filter = "data.severity > 3" })
		Eventually(condition(ctx, route, "Connected")).Should(HavePrefix("Unknown/Pending"))
		Consistently(condition(ctx, route, "Ready")).WithTimeout(4 * time.Second).ShouldNot(HavePrefix("True/"))
		Eventually(condition(ctx, sink, "Deployed")).Should(HavePrefix("False/Progressing"))
		Expect(condition(ctx, sink, "Connected")()).To(HavePrefix("True/"), "the former pods go on")
		dataside.hold(ns, "court", false)
		expectReady(ctx, route, sink)
	})

	It("is never called Ready while a pod works by what it said before", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")
		route, other := newRoute(ns, "arrests", "custody", "court"), newRoute(ns, "other", "custody", "court")
		create(ctx, integration, source, sink, route, other)
		expectReady(ctx, route, other)

		dataside.linger(ns, "court", true)
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Filter = "data.severity > 3" })
		Eventually(condition(ctx, route, "Connected")).Should(And(HavePrefix("Unknown/Pending"), ContainSubstring("works by what the Route said before")))
		expectReady(ctx, other, sink)
		Consistently(condition(ctx, route, "Ready")).WithTimeout(4 * time.Second).ShouldNot(HavePrefix("True/"))
		dataside.linger(ns, "court", false)
		expectReady(ctx, route)
	})

	It("says Unknown, never a stale True, when the pods fall silent", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		create(ctx, newIntegration(ns))
		source := newSource(ns, "custody")
		create(ctx, source)
		expectReady(ctx, source)
		dataside.silence(ns, "custody", true)
		Eventually(condition(ctx, source, "Connected")).WithTimeout(contract.ReportTimeout + 15*time.Second).Should(HavePrefix("Unknown/NoReport"))
		dataside.silence(ns, "custody", false)
		expectReady(ctx, source)
	})
})
