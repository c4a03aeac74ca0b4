package operator_test

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func newService(ns, name string) *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: v1alpha1.ConnectorSpec{
			Service: &v1alpha1.Service{HTTP: &v1alpha1.HTTPService{URL: "http://court.example:8443/api", HealthPath: "/healthz"}},
			Auth:    &v1alpha1.Auth{Bearer: &v1alpha1.BearerAuth{Token: v1alpha1.SecretKey{Name: "court-token", Key: "token"}}},
		},
	}
}

// newAsker is a source whose requests are answered.
func newAsker(ns, name string) *v1alpha1.Connector {
	c := newSource(ns, name)
	c.Spec.Source.HTTP = &v1alpha1.HTTPSource{Path: "/cases", Exchange: v1alpha1.ExchangeRequestReply}
	return c
}

func newCall(ns, name, from, service string) *v1alpha1.Route {
	r := newRoute(ns, name, from)
	r.Spec.Call = &v1alpha1.Call{Connector: v1alpha1.ObjectName(service)}
	return r
}

func deploymentOf(ctx context.Context, ns, connector string) *appsv1.Deployment {
	GinkgoHelper()
	d := named(&appsv1.Deployment{}, ns, connector+"-connector")
	Expect(api.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
	return d
}

// loginAs a connector, with what the operator wrote for it.
func loginAs(ctx context.Context, ns, connector string, options ...nats.Option) *nats.Conn {
	GinkgoHelper()
	creds, err := credentialsOf(ctx, ns, connector)
	Expect(err).NotTo(HaveOccurred())
	nc, err := dial(creds, append(options, nats.CustomInboxPrefix(contract.InboxPrefix(ns, connector)))...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(nc.Close)
	return nc
}

var _ = Describe("A service", func() {
	It("is called by the sources whose Routes name it, with the users that the operator made", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, asker, service := newIntegration(ns), newAsker(ns, "ask"), newService(ns, "cases")
		route := newCall(ns, "lookup", "ask", "cases")
		route.Spec.Filter = `headers.method == "GET"`
		route.Spec.Call.Response = &v1alpha1.CallResponse{Steps: []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: "{id}"}}}}
		create(ctx, integration, asker, service, route)
		expectReady(ctx, asker, service, route, integration)

		By("showing it to who looks for it")
		Expect(service.Status.Role).To(Equal("Service"))
		Expect(service.Status.Type).To(Equal("http"))
		Expect(service.Status.Endpoint).To(Equal("http://court.example:8443/api"))
		Expect(*service.Status.AttachedRoutes).To(BeEquivalentTo(1))
		Expect(asker.Status.Endpoint).To(Equal("http://ask." + ns + ".svc/cases"))
		Expect(route.Status.From).To(Equal("ask"))
		Expect(route.Status.To).To(Equal("cases"))
		Expect(route.Status.Destinations).To(BeEmpty())
		Expect(condition(ctx, route, "Connected")()).To(HavePrefix("True/Connected: the service is connected"))

		By("compiling the call into the source, and the function into the service")
		config, _ := configOf(ctx, ns, "ask")
		Expect(config.Source.Calls).To(HaveLen(1))
		call := config.Source.Calls[0]
		Expect([]string{call.Route, call.Integration, call.Service}).To(Equal([]string{"lookup", "default", "cases"}))
		Expect(call.Request).To(Equal([]contract.Step{{Name: "filter", Filter: `headers.method == "GET"`}}))
		Expect(call.Response).To(Equal([]contract.Step{{Name: "call.response.steps[0]", JQ: "{id}"}}))
		config, _ = configOf(ctx, ns, "cases")
		Expect(config.Service.System.Type).To(Equal("http"))
		Expect(config.Service.MaxConcurrent).To(BeEquivalentTo(64))
		Expect(time.Duration(config.Service.Timeout)).To(Equal(10 * time.Second))
		deployment := deploymentOf(ctx, ns, "cases")
		Expect(deployment.Spec.Template.Spec.Containers[0].Ports).To(HaveLen(1), "it is reached by the broker alone")
		Expect(gone(ctx, named(&corev1.Service{}, ns, "cases"))()).To(Succeed())
		policy := named(&networkingv1.NetworkPolicy{}, ns, deployment.Name)
		Expect(api.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(policy.Spec.Ingress).To(HaveLen(1), "metrics alone")
		Expect(policy.Spec.Egress[len(policy.Spec.Egress)-1].Ports).To(ContainElement(HaveField("Port.IntVal", BeEquivalentTo(8443))))

		By("carrying a request over the broker")
		responder, caller := loginAs(ctx, ns, "cases"), loginAs(ctx, ns, "ask")
		subject := contract.ServiceSubject(ns, "default", "cases")
		_, err := responder.QueueSubscribe(subject, subject, func(m *nats.Msg) { _ = m.Respond([]byte("answer to " + string(m.Data))) })
		Expect(err).NotTo(HaveOccurred())
		Expect(responder.Flush()).To(Succeed())
		answer, err := caller.Request(subject, []byte("C-1"), 10*time.Second)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(answer.Data)).To(Equal("answer to C-1"))

		By("making nothing in the stream")
		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.EventStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		Expect(stream.CachedInfo().State.Consumers).To(BeZero())
	})

	It("is out of reach for a source that no Route lets call it, and from when a Route is gone", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		asker, service := newAsker(ns, "ask"), newService(ns, "cases")
		route := newCall(ns, "lookup", "ask", "cases")
		create(ctx, newIntegration(ns), asker, service, newAsker(ns, "stranger"), newSource(ns, "custody"), route)
		expectReady(ctx, route)
		heard := make(chan string, 8)
		responder := loginAs(ctx, ns, "cases")
		subject := contract.ServiceSubject(ns, "default", "cases")
		_, err := responder.QueueSubscribe(subject, subject, func(m *nats.Msg) { heard <- string(m.Data) })
		Expect(err).NotTo(HaveOccurred())
		Expect(responder.Flush()).To(Succeed())
		for _, name := range []string{"stranger", "custody"} {
			expectReady(ctx, named(&v1alpha1.Connector{}, ns, name))
			refused := make(chan error, 1)
			nc := loginAs(ctx, ns, name, nats.ErrorHandler(errorsTo(refused)))
			Expect(nc.Publish(subject, []byte(name))).To(Succeed())
			Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))))
		}
		By("refusing the source to store anything")
		refused := make(chan error, 1)
		nc := loginAs(ctx, ns, "ask", nats.ErrorHandler(errorsTo(refused)))
		Expect(nc.Publish(contract.EventSubject(ns, "default", "ask", 0, "custody.arrest"), []byte("{}"))).To(Succeed())
		Eventually(refused).Should(Receive(MatchError(ContainSubstring("Permissions Violation"))))
		Expect(nc.Publish(subject, []byte("ask"))).To(Succeed())
		Eventually(heard).Should(Receive(Equal("ask")))

		By("revoking the source's user when the Route is gone")
		former, err := credentialsOf(ctx, ns, "ask")
		Expect(err).NotTo(HaveOccurred())
		remove(ctx, route)
		Eventually(func() error { return accepted(former) }).ShouldNot(Succeed())
		config, _ := configOf(ctx, ns, "ask")
		Expect(config.Source.Calls).To(BeEmpty())
		Eventually(func() int32 {
			Expect(api.Get(ctx, client.ObjectKeyFromObject(service), service)).To(Succeed())
			return *service.Status.AttachedRoutes
		}).Should(BeZero())
		Expect(heard).To(BeEmpty())
	})

	It("says what is wrong between Routes, sources and services, and how to put it right", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		foreign := newService(ns, "foreign")
		foreign.Spec.IntegrationRef.Name = "other"
		oneWay := newCall(ns, "one-way", "custody", "cases")
		create(ctx, newIntegration(ns), newSource(ns, "custody"), newAsker(ns, "ask"), newSink(ns, "court"), newService(ns, "cases"), foreign)
		for want, route := range map[string]*v1alpha1.Route{
			"False/ExchangeMismatch: Connector custody takes messages and answers no requests, and this Route calls a service: set source.http.exchange to RequestReply": oneWay,
			"False/ExchangeMismatch: the requests of Connector ask are answered (exchange: RequestReply), and this Route delivers messages: give the Route `call`":       newRoute(ns, "deliver", "ask", "court"),
			"False/WrongRole: Connector court is a sink: call needs a service":                                                                                           newCall(ns, "call-sink", "ask", "court"),
			"False/WrongRole: Connector cases is a service: from needs a source":                                                                                         newCall(ns, "from-service", "cases", "cases"),
			"False/WrongRole: Connector cases is a service: destination cases needs a sink; a Route":                                                                     newRoute(ns, "to-service", "custody", "cases"),
			"False/WrongIntegration: Connector foreign belongs to Integration other":                                                                                     newCall(ns, "foreign-call", "ask", "foreign"),
			"False/ConnectorNotFound: there is no Connector nobody":                                                                                                      newCall(ns, "nobody-there", "ask", "nobody"),
		} {
			create(ctx, route)
			Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix(want))
			Eventually(condition(ctx, route, "Ready")).Should(HavePrefix(want[:15]))
		}
		change(ctx, named(&v1alpha1.Connector{}, ns, "custody"), func(c *v1alpha1.Connector) {
			c.Spec.Source.HTTP.Exchange = v1alpha1.ExchangeRequestReply
		})
		expectReady(ctx, oneWay)

		By("letting who calls what is not there know at once, and rolling nothing when it comes")
		late := named(&v1alpha1.Route{}, ns, "nobody-there")
		config, before := configOf(ctx, ns, "ask")
		Expect(config.Source.Calls).To(ContainElement(HaveField("Service", "nobody")))
		create(ctx, newService(ns, "nobody"))
		expectReady(ctx, late)
		_, after := configOf(ctx, ns, "ask")
		Expect(after.Name).To(Equal(before.Name))
	})

	It("says on the Route which side does not work", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, asker, service := newIntegration(ns), newAsker(ns, "ask"), newService(ns, "cases")
		route := newCall(ns, "lookup", "ask", "cases")
		create(ctx, integration, asker, service, route)
		expectReady(ctx, route, integration)

		dataside.say(ns, "cases", contract.State{Reason: contract.ReasonConnectionFailed, Message: "http://court.example:8443: connection refused"})
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/ConnectionFailed: Connector cases: http://court.example:8443: connection refused"))
		Eventually(condition(ctx, integration, "Ready")).Should(HavePrefix("False/ConnectorsNotReady"))
		dataside.say(ns, "cases", contract.State{OK: true})
		expectReady(ctx, route, integration)

		dataside.sayRoutes(ns, "ask", contract.RouteState{Route: "lookup", Destination: contract.CallDestination, State: contract.State{
			Reason: contract.ReasonConnectionFailed, Message: "no pod of service cases takes requests",
		}})
		Eventually(condition(ctx, route, "Connected")).Should(Equal("False/ConnectionFailed: source Connector ask: no pod of service cases takes requests"))
		dataside.sayRoutes(ns, "ask")
		expectReady(ctx, route)

		By("waiting for the source's pods to take a change up")
		dataside.hold(ns, "ask", true)
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Call.Timeout = "2s" })
		Eventually(condition(ctx, route, "Connected")).Should(HavePrefix("Unknown/Pending"))
		Consistently(condition(ctx, route, "Ready")).WithTimeout(4 * time.Second).ShouldNot(HavePrefix("True/"))
		dataside.hold(ns, "ask", false)
		expectReady(ctx, route)
	})

	It("is suspended with its Connector, and calls with their Route", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, asker, service := newIntegration(ns), newAsker(ns, "ask"), newService(ns, "cases")
		route := newCall(ns, "lookup", "ask", "cases")
		create(ctx, integration, asker, service, route)
		expectReady(ctx, route)
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Suspend = new(true) })
		Eventually(condition(ctx, route, "Ready")).Should(Equal("False/Suspended: spec.suspend is set: requests are answered 503"))
		Eventually(func() bool {
			config, _ := configOf(ctx, ns, "ask")
			return config.Source.Calls[0].Suspended
		}).Should(BeTrue())
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Suspend = nil })
		expectReady(ctx, route)

		change(ctx, service, func(c *v1alpha1.Connector) { c.Spec.Suspend = new(true) })
		Eventually(condition(ctx, service, "Ready")).Should(HavePrefix("False/Suspended"))
		Eventually(condition(ctx, route, "Suspended")).Should(HavePrefix("True/Suspended: Connector cases is suspended"))
		Eventually(func() bool {
			config, _ := configOf(ctx, ns, "cases")
			return config.Service.Suspended
		}).Should(BeTrue())
		change(ctx, service, func(c *v1alpha1.Connector) { c.Spec.Suspend = nil })
		expectReady(ctx, service, route)
	})

	It("is scaled like every Connector, and has a user that ends with it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		service := newService(ns, "cases")
		service.Spec.Service = &v1alpha1.Service{Stub: &v1alpha1.StubService{Examples: []v1alpha1.StubExample{{Body: "{}"}, {Status: new(int32(404))}}}}
		service.Spec.Auth = nil
		create(ctx, newIntegration(ns), service)
		expectReady(ctx, service)
		Expect(service.Status.Type).To(Equal("stub"))
		Expect(service.Status.Endpoint).To(Equal("2 examples"))
		change(ctx, service, func(c *v1alpha1.Connector) { c.Spec.Replicas = new(int32(2)) })
		Eventually(func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(service), service)).To(Succeed())
			g.Expect(*deploymentOf(ctx, ns, "cases").Spec.Replicas).To(BeEquivalentTo(2))
			g.Expect(service.Status.Replicas).To(BeEquivalentTo(2))
		}).Should(Succeed())
		expectReady(ctx, service)
		creds, err := credentialsOf(ctx, ns, "cases")
		Expect(err).NotTo(HaveOccurred())
		remove(ctx, service)
		Eventually(func() error { return accepted(creds) }).ShouldNot(Succeed())
	})
})
