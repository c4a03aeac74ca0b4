package operator_test

import (
	"strings"

	"github.com/nats-io/nats.go"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func enrichBy(service string) v1alpha1.Step {
	return v1alpha1.Step{Enrich: &v1alpha1.Enrich{Call: &v1alpha1.EnrichCall{Connector: v1alpha1.ObjectName(service), Path: "/{data.id}"}, Into: "case"}}
}

var _ = Describe("A Route that enriches", func() {
	It("lets the pods that run its steps ask its services, and nobody else", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		service, other := newService(ns, "cases"), newService(ns, "persons")
		route, event := newRoute(ns, "arrests", "custody", "court"), eventRoute(ns, "publish", "custody", "police.arrest.v1")
		route.Spec.Steps = []v1alpha1.Step{enrichBy("cases")}
		event.Spec.To[0].Steps = []v1alpha1.Step{enrichBy("persons")}
		create(ctx, newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court"), newSink(ns, "other"), newRoute(ns, "plain", "custody", "other"), service, other, route, event)
		expectReady(ctx, route, event, service, other)
		Expect(*service.Status.AttachedRoutes).To(BeEquivalentTo(1))
		heard := make(chan string, 16)
		for _, asked := range []string{"cases", "persons"} {
			responder, subject := loginAs(ctx, ns, asked), contract.ServiceSubject(ns, "default", asked)
			hear := func(m *nats.Msg) { heard <- m.Subject + " " + string(m.Data) }
			_, err := responder.QueueSubscribe(subject, subject, hear)
			Expect(err).NotTo(HaveOccurred())
			_, err = responder.Subscribe(subject+".cancel", hear)
			Expect(err).NotTo(HaveOccurred())
			Expect(responder.Flush()).To(Succeed())
		}
		for _, name := range []string{"court", "default_relay", "other"} {
			for _, asked := range []string{"cases", "persons"} {
				may := name == "court" && asked == "cases" || name == "default_relay" && asked == "persons"
				for _, subject := range contract.CallSubjects(ns, contract.ServiceRef{Integration: "default", Service: asked}) {
					refused := make(chan error, 1)
					nc := loginAs(ctx, ns, name, nats.ErrorHandler(errorsTo(refused)))
					Expect(nc.Publish(subject, []byte(name))).To(Succeed())
					if may {
						Eventually(heard).Should(Receive(Equal(subject + " " + name)))
					} else {
						Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))), "%s asks %s", name, subject)
					}
				}
			}
		}
		Expect(heard).To(BeEmpty())

		By("taking the permission away with the step")
		former, err := credentialsOf(ctx, ns, "court")
		Expect(err).NotTo(HaveOccurred())
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Steps = nil })
		Eventually(func() error { return accepted(former) }).ShouldNot(Succeed())
		expectReady(ctx, route)
		refused := make(chan error, 1)
		nc := loginAs(ctx, ns, "court", nats.ErrorHandler(errorsTo(refused)))
		Expect(nc.Publish(contract.ServiceSubject(ns, "default", "cases"), []byte("x"))).To(Succeed())
		Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))))
	})

	It("says what is wrong with a service that its steps ask", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, service := newIntegration(ns), newService(ns, "cases")
		foreign := newService(ns, "foreign")
		foreign.Spec.IntegrationRef.Name = "other"
		route := newRoute(ns, "arrests", "custody", "court")
		route.Spec.Steps = []v1alpha1.Step{enrichBy("cases")}
		sink := newSink(ns, "court")
		create(ctx, integration, newSource(ns, "custody"), sink, foreign, route)
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix("False/ConnectorNotFound: there is no Connector cases"))
		expectReady(ctx, sink)
		_, before := configOf(ctx, ns, "court")
		create(ctx, service)
		expectReady(ctx, route, service)
		_, after := configOf(ctx, ns, "court")
		Expect(after.Name).To(Equal(before.Name), "no pod is replaced for a service that comes")

		for asked, want := range map[string]string{
			"court": "False/WrongRole: Connector court is a sink: enrich asks a service", "foreign": "False/WrongIntegration: Connector foreign belongs to Integration other",
		} {
			wrong := newRoute(ns, "by-"+asked, "custody", "court")
			wrong.Spec.To[0].Steps = []v1alpha1.Step{enrichBy(asked)}
			create(ctx, wrong)
			Eventually(condition(ctx, wrong, "ResolvedRefs")).Should(HavePrefix(want))
			remove(ctx, wrong)
		}

		By("showing that the service does not work, or does not answer a message")
		dataside.say(ns, "cases", contract.State{Reason: contract.ReasonConnectionFailed, Message: "http://court.example:8443: connection refused"})
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/ConnectionFailed: Connector cases: http://court.example:8443: connection refused"))
		dataside.say(ns, "cases", contract.State{OK: true})
		expectReady(ctx, route)
		dataside.sayRoutes(ns, "court", contract.RouteState{Route: "arrests", Destination: "court", State: contract.State{
			Reason: contract.ReasonConnectionFailed, Message: "steps[0]: service cases: no pod of service cases takes requests",
		}})
		Eventually(condition(ctx, route, "Connected")).Should(And(HavePrefix("False/ConnectionFailed: destination court"), ContainSubstring("steps[0]: service cases")))
		dataside.sayRoutes(ns, "court")
		expectReady(ctx, route)

		change(ctx, service, func(c *v1alpha1.Connector) { c.Spec.Suspend = new(true) })
		Eventually(condition(ctx, route, "Suspended")).Should(HavePrefix("True/BacklogHeld: Connector cases is suspended, which a step asks: messages wait on the bus"))
		change(ctx, service, func(c *v1alpha1.Connector) { c.Spec.Suspend = nil })
		expectReady(ctx, route)

		By("refusing a step where nobody could wait for the answer")
		call := newCall(ns, "lookup", "ask", "cases")
		call.Spec.Steps = []v1alpha1.Step{enrichBy("cases")}
		create(ctx, newAsker(ns, "ask"), call)
		Eventually(condition(ctx, call, "Accepted")).Should(Satisfy(func(s string) bool {
			return strings.HasPrefix(s, "False/InvalidSpec: spec.steps[0].enrich: a call is answered by one service")
		}))
	})
})
