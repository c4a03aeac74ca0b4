package operator_test

import (
	"encoding/json"

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

// eventRoute makes events of a Connector's messages.
func eventRoute(ns, name, from, eventType string) *v1alpha1.Route {
	r := newRoute(ns, name, from)
	r.Spec.To = []v1alpha1.Destination{{Name: "public", Event: &v1alpha1.EventDestination{Type: eventType}}}
	return r
}

var _ = Describe("The relay of an Integration", func() {
	It("is there while a Route makes events, and delivers for it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "custody"), newSink(ns, "court")
		plain := newRoute(ns, "plain", "custody", "court")
		create(ctx, integration, source, sink, plain)
		expectReady(ctx, integration, plain)
		relay := named(&appsv1.Deployment{}, ns, "default-relay")
		Expect(gone(ctx, relay)()).To(Succeed(), "nobody needs it")
		Expect(integration.Status.Relay).To(BeNil())

		publish := eventRoute(ns, "publish", "custody", "police.arrest.v1")
		read := newRoute(ns, "read", "", "court")
		read.Spec.From = []v1alpha1.RouteFrom{{Events: &v1alpha1.RouteEvents{Types: []string{"police.arrest.v1"}}}}
		create(ctx, publish, read)
		expectReady(ctx, publish, read, integration)
		Expect(publish.Status.To).To(Equal("police.arrest.v1"))
		Expect(read.Status.From).To(Equal("police.arrest.v1"))

		Expect(api.Get(ctx, client.ObjectKeyFromObject(relay), relay)).To(Succeed())
		Expect(metav1.IsControlledBy(relay, integration)).To(BeTrue())
		pod := relay.Spec.Template.Spec
		Expect(*pod.AutomountServiceAccountToken).To(BeFalse())
		Expect(pod.ServiceAccountName).To(Equal("default-relay"))
		var config contract.Config
		for _, v := range pod.Volumes {
			if v.ConfigMap != nil {
				m := named(&corev1.ConfigMap{}, ns, v.ConfigMap.Name)
				Expect(api.Get(ctx, client.ObjectKeyFromObject(m), m)).To(Succeed())
				Expect(json.Unmarshal([]byte(m.Data["config.json"]), &config)).To(Succeed())
			}
			if v.Secret != nil {
				Expect(v.Secret.Items).To(ConsistOf(corev1.KeyToPath{Key: "default_relay.creds", Path: "user.creds"}))
			}
		}
		Expect(config.Sink.System.Type).To(Equal("event"))
		Expect(config.Sink.Routes).To(HaveLen(1))
		Expect(config.Sink.Routes[0].Name).To(Equal("publish"))
		Expect(string(config.Sink.Routes[0].Operation)).To(Equal(`{"type":"police.arrest.v1"}`))
		policy := named(&networkingv1.NetworkPolicy{}, ns, "default-relay")
		Expect(api.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(policy.Spec.Ingress).To(HaveLen(1), "metrics alone")

		_, js := broker.Admin()
		consumer, err := js.Consumer(ctx, contract.EventStream(ns, "default"), contract.DurableName(ns, "read", "court"))
		Expect(err).NotTo(HaveOccurred())
		Expect(consumer.CachedInfo().Config.FilterSubjects).To(ContainElement("evt." + ns + ".default._relay.*.police.arrest.v1"))
		creds, err := credentialsOf(ctx, ns, "default_relay")
		Expect(err).NotTo(HaveOccurred())
		Expect(accepted(creds)).To(Succeed())
		Expect(integration.Status.Connectors).To(Equal("2/2"), "the relay is no Connector")
		Expect(*integration.Status.Relay.AttachedRoutes).To(BeEquivalentTo(1))

		By("going with the last such Route")
		remove(ctx, publish)
		for _, obj := range []client.Object{relay, policy, named(&corev1.ServiceAccount{}, ns, "default-relay")} {
			Eventually(gone(ctx, obj)).Should(Succeed(), "%T", obj)
		}
		Eventually(func() error { _, err := credentialsOf(ctx, ns, "default_relay"); return err }).Should(MatchError(ContainSubstring("no key")))
		Eventually(func() error { return accepted(creds) }).ShouldNot(Succeed(), "its user is revoked")
		var maps corev1.ConfigMapList
		Eventually(func(g Gomega) {
			g.Expect(api.List(ctx, &maps, client.InNamespace(ns), client.MatchingLabels{"bus.metip.dev/connector": "default_relay"})).To(Succeed())
			g.Expect(maps.Items).To(BeEmpty())
		}).Should(Succeed())
		expectReady(ctx, integration, plain, read)
		Expect(integration.Status.Relay).To(BeNil())

		By("coming back with the next")
		again := eventRoute(ns, "again", "custody", "police.arrest.v2")
		create(ctx, again)
		expectReady(ctx, again, integration)
		Expect(api.Get(ctx, client.ObjectKeyFromObject(relay), relay)).To(Succeed())
	})

	It("says what keeps it from making events, on the Route and on the Integration", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source := newIntegration(ns), newSource(ns, "custody")
		route := eventRoute(ns, "publish", "custody", "police.arrest.v1")
		create(ctx, integration, source, route)
		expectReady(ctx, route, integration)

		full := contract.State{Reason: contract.ReasonStreamFull, Message: "the bus of Integration default is full"}
		dataside.say(ns, "default_relay", full)
		dataside.sayRoutes(ns, "default_relay", contract.RouteState{Route: "publish", Destination: "public", State: full})
		Eventually(condition(ctx, route, "Connected")).Should(HavePrefix("False/StreamFull: destination public: the relay of Integration default: the bus of"))
		Eventually(condition(ctx, integration, "Ready")).Should(HavePrefix("False/RelayNotReady: the relay, which makes the events and tables of Routes: StreamFull"))
		dataside.say(ns, "default_relay", contract.State{OK: true})
		dataside.sayRoutes(ns, "default_relay")
		expectReady(ctx, route, integration)

		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Suspend = new(true) })
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/Suspended"))
		_, js := broker.Admin()
		Eventually(func() (bool, error) {
			c, err := js.Consumer(ctx, contract.EventStream(ns, "default"), contract.DurableName(ns, "publish", "public"))
			if err != nil {
				return false, err
			}
			return c.CachedInfo().Paused, nil
		}).Should(BeTrue())
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Suspend = nil })
		expectReady(ctx, route, integration)
	})

	It("goes with its Integration, and its user is worth nothing then", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source := newIntegration(ns), newSource(ns, "custody")
		route := eventRoute(ns, "publish", "custody", "police.arrest.v1")
		create(ctx, integration, source, route)
		expectReady(ctx, route, integration)
		creds, err := credentialsOf(ctx, ns, "default_relay")
		Expect(err).NotTo(HaveOccurred())
		remove(ctx, integration)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Eventually(func() error { return accepted(creds) }).ShouldNot(Succeed())
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/IntegrationNotFound"))
	})

	It("has a place for the state of steps that keep some, which goes with them", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source := newIntegration(ns), newSource(ns, "custody")
		route := eventRoute(ns, "orders", "custody", "police.order")
		route.Spec.Steps = []v1alpha1.Step{{Aggregate: &v1alpha1.Aggregate{Key: "data.order", Count: new(int32(3))}}}
		create(ctx, integration, source, route)
		expectReady(ctx, route, integration)
		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.StateStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		Expect(stream.CachedInfo().Config.MaxBytes).To(BeEquivalentTo(256 << 20))
		subject := contract.StatePrefix(ns, "default", string(route.UID), "public") + "aggregate.x"
		_, err = js.Publish(ctx, subject, []byte("{}"))
		Expect(err).NotTo(HaveOccurred())
		remove(ctx, route)
		Eventually(func() error { _, err := stream.GetLastMsgForSubject(ctx, subject); return err }).ShouldNot(Succeed())

		misplaced := newRoute(ns, "misplaced", "custody", "court")
		misplaced.Spec.Steps = []v1alpha1.Step{{Deduplicate: &v1alpha1.Deduplicate{Key: "data.id"}}}
		create(ctx, misplaced)
		Eventually(condition(ctx, misplaced, "Accepted")).Should(And(HavePrefix("False/InvalidSpec"), ContainSubstring("deliver to an event")))
	})

	It("is refused a Route that would feed itself", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		route := eventRoute(ns, "circle", "", "police.arrest.v1")
		route.Spec.From = []v1alpha1.RouteFrom{{Events: &v1alpha1.RouteEvents{Types: []string{"police.*.v1"}}}}
		create(ctx, newIntegration(ns), route)
		Eventually(condition(ctx, route, "Accepted")).Should(And(HavePrefix("False/InvalidSpec"), ContainSubstring("would go round in a circle")))
	})
})
