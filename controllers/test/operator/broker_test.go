package operator_test

import (
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var _ = Describe("What is on the broker", func() {
	It("is repaired: streams and durable consumers", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court")
		create(ctx, integration, newSource(ns, "custody"), newSink(ns, "court"), route)
		expectReady(ctx, integration, route)
		_, js := broker.Admin()
		stream, durable := contract.EventStream(ns, "default"), contract.DurableName(ns, "arrests", "court")
		has := func() error {
			_, err := js.Consumer(ctx, stream, durable)
			return err
		}
		Expect(js.DeleteConsumer(ctx, stream, durable)).To(Succeed())
		Eventually(has).Should(Succeed())
		Expect(js.DeleteStream(ctx, stream)).To(Succeed())
		Eventually(has).WithTimeout(30 * time.Second).Should(Succeed())
		expectReady(ctx, integration, route)
	})

	It("follows the Routes: removed destinations and Routes leave no durable consumer, and foreign ones stay", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court", "archive")
		other := newRoute(ns, "other", "custody", "court")
		create(ctx, integration, newSource(ns, "custody"), newSink(ns, "court"), newSink(ns, "archive"), route, other)
		expectReady(ctx, route, other)
		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.EventStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "someone-elses", AckPolicy: jetstream.AckExplicitPolicy})
		Expect(err).NotTo(HaveOccurred())
		names := func() []string {
			var out []string
			list := stream.ConsumerNames(ctx)
			for n := range list.Name() {
				out = append(out, n)
			}
			return out
		}
		court, archive := contract.DurableName(ns, "arrests", "court"), contract.DurableName(ns, "arrests", "archive")
		otherCourt := contract.DurableName(ns, "other", "court")
		Expect(names()).To(ConsistOf(court, archive, otherCourt, "someone-elses"))
		change(ctx, route, func(r *v1alpha1.Route) { r.Spec.To = r.Spec.To[:1] })
		Eventually(names).Should(ConsistOf(court, otherCourt, "someone-elses"))
		remove(ctx, other)
		Eventually(names).Should(ConsistOf(court, "someone-elses"))
		expectReady(ctx, route)
		Expect(route.Status.Destinations).To(HaveLen(1))
	})

	It("is paused by suspend, and goes on after it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court")
		source, sink := newSource(ns, "custody"), newSink(ns, "court")
		create(ctx, integration, source, sink, route)
		expectReady(ctx, route, integration)
		_, js := broker.Admin()
		paused := func() (bool, error) {
			c, err := js.Consumer(ctx, contract.EventStream(ns, "default"), contract.DurableName(ns, "arrests", "court"))
			if err != nil {
				return false, err
			}
			return c.CachedInfo().Paused, nil
		}
		suspended := func() bool {
			c, _ := configOf(ctx, ns, "custody")
			return c.Source.Suspended
		}
		for _, switchOn := range []func(*bool){
			func(on *bool) { change(ctx, route, func(r *v1alpha1.Route) { r.Spec.Suspend = on }) },
			func(on *bool) { change(ctx, sink, func(c *v1alpha1.Connector) { c.Spec.Suspend = on }) },
			func(on *bool) { change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Suspend = on }) },
		} {
			switchOn(new(true))
			Eventually(paused).Should(BeTrue())
			Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/Suspended"))
			Expect(condition(ctx, route, "Suspended")()).To(HavePrefix("True/BacklogHeld"))
			switchOn(nil)
			Eventually(paused).Should(BeFalse())
			expectReady(ctx, route, sink)
		}
		Eventually(suspended).Should(BeFalse())
		change(ctx, source, func(c *v1alpha1.Connector) { c.Spec.Suspend = new(true) })
		Eventually(suspended).Should(BeTrue())
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/Suspended"))
		Eventually(condition(ctx, integration, "Ready")).Should(And(HavePrefix("False/ConnectorsNotReady"), ContainSubstring("Suspended")))
	})

	It("says when it runs full", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration := newIntegration(ns)
		integration.Spec.Retention = &v1alpha1.Retention{Size: quantity("8Mi")}
		create(ctx, integration, newSource(ns, "custody"), newRoute(ns, "arrests", "custody", "court"))
		Eventually(condition(ctx, integration, "StorageHealthy")).Should(HavePrefix("True/Healthy"))
		_, js := broker.Admin()
		for range 8 {
			_, err := js.Publish(ctx, contract.EventSubject(ns, "default", "custody", 0, "custody.arrest"), make([]byte, 900<<10))
			Expect(err).NotTo(HaveOccurred())
		}
		Eventually(condition(ctx, integration, "Ready")).Should(HavePrefix("False/StorageLow: messages fill more than 8"))
	})
})

var _ = Describe("A broker user", func() {
	It("can do what its Connector needs and nothing else, and is revoked with it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source, sink := newSource(ns, "custody"), newSink(ns, "court")
		create(ctx, newIntegration(ns), source, sink, newRoute(ns, "arrests", "custody", "court"))
		expectReady(ctx, source, sink)
		creds, err := credentialsOf(ctx, ns, "custody")
		Expect(err).NotTo(HaveOccurred())
		nc, err := dial(creds)
		Expect(err).NotTo(HaveOccurred())
		refused := make(chan error, 10)
		nc.SetErrorHandler(errorsTo(refused))
		Expect(nc.Publish(contract.EventSubject(ns, "default", "someone-else", 0, "x"), nil)).To(Succeed())
		Eventually(refused).Should(Receive(MatchError(ContainSubstring("ermissions"))))
		nc.Close()

		remove(ctx, source)
		Eventually(func() error { return accepted(creds) }).WithTimeout(10 * time.Second).Should(MatchError(ContainSubstring("uthorization")))
		_, err = credentialsOf(ctx, ns, "court")
		Expect(err).NotTo(HaveOccurred(), "the neighbour keeps its own")
		Eventually(func() error { _, err := credentialsOf(ctx, ns, "custody"); return err }).ShouldNot(Succeed())
		remove(ctx, sink)
		Eventually(gone(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret))).Should(Succeed())
	})

	It("is revoked too when its Connector went while the operator was down", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		creds, err := credentialsOf(ctx, ns, "custody")
		Expect(err).NotTo(HaveOccurred())
		manager.stop()
		remove(ctx, source)
		manager = startOperator()
		Eventually(func() error { return accepted(creds) }).Should(MatchError(ContainSubstring("uthorization")))
		Eventually(gone(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret))).Should(Succeed())
	})

	It("is replaced when its permissions change, and the former one revoked when no pod uses it", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		sink := newSink(ns, "court")
		create(ctx, newIntegration(ns), newSource(ns, "custody"), sink, newRoute(ns, "one", "custody", "court"))
		expectReady(ctx, sink)
		former, err := credentialsOf(ctx, ns, "court")
		Expect(err).NotTo(HaveOccurred())
		revoked := func() error { return accepted(former) }
		dataside.hold(ns, "court", true)
		two := newRoute(ns, "two", "custody", "court")
		create(ctx, two)
		Eventually(func() ([]byte, error) { return credentialsOf(ctx, ns, "court") }).ShouldNot(Equal(former))
		Consistently(revoked).WithTimeout(3*time.Second).Should(Succeed(), "the pods that use it still run")
		dataside.hold(ns, "court", false)
		Eventually(revoked).Should(MatchError(ContainSubstring("uthorization")))
		expectReady(ctx, sink, two)
	})

	It("is renewed well before it ends, without a gap", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		former, err := credentialsOf(ctx, ns, "custody")
		Expect(err).NotTo(HaveOccurred())
		change(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret), func(s *corev1.Secret) { // as if twenty days had passed
			var record map[string]any
			Expect(json.Unmarshal([]byte(s.Annotations["user.bus.metip.dev/custody"]), &record)).To(Succeed())
			record["expires"] = time.Now().Add(9 * 24 * time.Hour)
			raw, err := json.Marshal(record)
			Expect(err).NotTo(HaveOccurred())
			s.Annotations["user.bus.metip.dev/custody"] = string(raw)
		})
		Eventually(func() ([]byte, error) { return credentialsOf(ctx, ns, "custody") }).ShouldNot(Equal(former))
		renewed, err := credentialsOf(ctx, ns, "custody")
		Expect(err).NotTo(HaveOccurred())
		Expect(accepted(renewed)).To(Succeed())
		Consistently(func() error { return accepted(former) }).WithTimeout(3*time.Second).Should(Succeed(), "pods move over in their own time")
		expectReady(ctx, source)
	})

	It("comes back when somebody removes or changes its key", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		secret := named(&corev1.Secret{}, ns, contract.CredentialsSecret)
		for _, how := range []func(*corev1.Secret){
			func(s *corev1.Secret) { delete(s.Data, "custody.creds") },
			func(s *corev1.Secret) { s.Data["custody.creds"] = []byte("rubbish") },
		} {
			change(ctx, secret, how)
			Eventually(func() error {
				creds, err := credentialsOf(ctx, ns, "custody")
				if err != nil {
					return err
				}
				return accepted(creds)
			}).Should(Succeed())
		}
		remove(ctx, secret)
		Eventually(func() error { _, err := credentialsOf(ctx, ns, "custody"); return err }).Should(Succeed())
		expectReady(ctx, source)
	})

	It("has its pods' Secrets read again at once when they say that some are missing", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		dataside.say(ns, "custody", contract.State{Reason: contract.ReasonCredentialsMissing, Message: "secret custody-token has no key token"})
		Eventually(condition(ctx, source, "Connected")).Should(Equal("False/CredentialsMissing: secret custody-token has no key token"))
		refreshed := func() (string, error) {
			var list corev1.PodList
			err := api.List(ctx, &list, client.InNamespace(ns), client.MatchingLabels{"bus.metip.dev/connector": "custody"})
			if err != nil || len(list.Items) == 0 {
				return "", err
			}
			return list.Items[0].Annotations[contract.PodAnnotationRefresh], nil
		}
		Eventually(refreshed).ShouldNot(BeEmpty())
		first, err := refreshed()
		Expect(err).NotTo(HaveOccurred())
		Consistently(refreshed).WithTimeout(5*time.Second).Should(Equal(first), "not more often than every ten seconds")
		Eventually(refreshed).WithTimeout(15 * time.Second).ShouldNot(Equal(first))
		dataside.say(ns, "custody", contract.State{OK: true})
		expectReady(ctx, source)
	})
})
