package operator_test

import (
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var _ = Describe("Deletion", func() {
	streamsOf := func(ctx SpecContext, ns string) func() []string {
		return func() []string {
			_, js := broker.Admin()
			var out []string
			for _, n := range []string{contract.EventStream(ns, "default"), contract.DeadStream(ns, "default")} {
				if _, err := js.Stream(ctx, n); err == nil {
					out = append(out, n)
				}
			}
			return out
		}
	}

	for _, order := range []string{"integration first", "routes first", "all at once"} {
		It("ends and leaves nothing behind, "+order, func(ctx SpecContext) {
			ns := newNamespace(ctx)
			integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court")
			source, sink := newSource(ns, "custody"), newSink(ns, "court")
			create(ctx, integration, source, sink, route)
			expectReady(ctx, integration, route)
			Expect(integration.Finalizers).To(ConsistOf("bus.metip.dev/integration"))
			Expect(append(append(source.Finalizers, sink.Finalizers...), route.Finalizers...)).To(BeEmpty())
			switch order {
			case "integration first":
				remove(ctx, integration)
				Eventually(gone(ctx, integration)).Should(Succeed())
				remove(ctx, route, source, sink)
			case "routes first":
				remove(ctx, route)
				Eventually(gone(ctx, route)).Should(Succeed())
				remove(ctx, source, sink, integration)
			default:
				remove(ctx, source, integration, route, sink)
			}
			for _, obj := range []client.Object{integration, route, source, sink} {
				Eventually(gone(ctx, obj)).Should(Succeed())
			}
			Eventually(streamsOf(ctx, ns)).Should(BeEmpty())
			Eventually(gone(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret))).Should(Succeed())
		})
	}

	It("keeps the data and the places of Routes with deletionPolicy Retain", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court")
		integration.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		create(ctx, integration, newSource(ns, "custody"), newSink(ns, "court"), route)
		expectReady(ctx, integration, route)
		remove(ctx, integration)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Expect(streamsOf(ctx, ns)()).To(HaveLen(2))
		Eventually(condition(ctx, route, "Ready")).Should(HavePrefix("False/IntegrationNotFound"))
		again := newIntegration(ns)
		create(ctx, again)
		expectReady(ctx, again, route)
	})

	It("waits for a broker that does not answer, says so, and goes on when it does", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source := newIntegration(ns), newSource(ns, "custody")
		create(ctx, integration, source)
		expectReady(ctx, integration, source)
		broker.Stop(0)
		DeferCleanup(func() { broker.Restart(0) })
		Eventually(condition(ctx, source, "Connected")).Should(HavePrefix("Unknown/BrokerUnreachable"))
		Expect(condition(ctx, source, "Deployed")()).To(HavePrefix("True/"))
		Eventually(condition(ctx, integration, "Programmed")).Should(HavePrefix("Unknown/BrokerNotReady"))
		remove(ctx, integration, source)
		Eventually(gone(ctx, source)).Should(Succeed())
		Eventually(condition(ctx, integration, "Ready")).Should(HavePrefix("False/Deleting"))
		broker.Restart(0)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Eventually(gone(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret))).Should(Succeed())
	})

	It("is not held up by a Broker that is gone: what is left behind is said", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		own := externalBroker()
		own.Namespace = ns
		secret := named(&corev1.Secret{}, operatorNamespace, "own-"+ns)
		secret.Data = broker.Credentials()
		own.Spec.External.Credentials.Name = secret.Name
		integration, source := newIntegration(ns), newSource(ns, "custody")
		create(ctx, secret, own, integration, source)
		expectReady(ctx, own, integration, source)
		Expect(integration.Status.Broker).To(Equal(ns+"/default"), "the namespace's own is preferred")

		// Broker and Integration at once: the Broker has no finalizer that waits for anybody
		remove(ctx, own)
		Eventually(gone(ctx, own)).WithTimeout(30 * time.Second).Should(Succeed())
		remove(ctx, integration, source)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Eventually(gone(ctx, source)).Should(Succeed())
		Eventually(func(g Gomega) {
			var list eventsv1.EventList
			g.Expect(api.List(ctx, &list, client.InNamespace(ns))).To(Succeed())
			g.Expect(list.Items).To(ContainElement(HaveField("Reason", "DataLeftBehind")))
		}).Should(Succeed())
		Eventually(gone(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret))).Should(Succeed())
	})

	It("waits a while for a broker that does not answer when its namespace goes, too", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration := newIntegration(ns)
		create(ctx, integration)
		expectReady(ctx, integration)
		broker.Stop(0)
		DeferCleanup(func() { broker.Restart(0) })
		Eventually(condition(ctx, integration, "Programmed")).Should(HavePrefix("Unknown/BrokerNotReady"))
		remove(ctx, named(&corev1.Namespace{}, "", ns), integration)
		Eventually(condition(ctx, integration, "Ready")).Should(HavePrefix("False/Deleting"))
		broker.Restart(0)
		Eventually(gone(ctx, integration)).Should(Succeed())
		Eventually(streamsOf(ctx, ns)).Should(BeEmpty())
	})

	It("goes quietly with its namespace, whatever goes first", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, route := newIntegration(ns), newRoute(ns, "arrests", "custody", "court")
		source, sink := newSource(ns, "custody"), newSink(ns, "court")
		create(ctx, integration, source, sink, route)
		expectReady(ctx, integration, route)
		creds, err := credentialsOf(ctx, ns, "custody")
		Expect(err).NotTo(HaveOccurred())
		namespace := named(&corev1.Namespace{}, "", ns)
		remove(ctx, namespace)
		Eventually(func() (corev1.NamespacePhase, error) {
			err := api.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)
			return namespace.Status.Phase, err
		}).Should(Equal(corev1.NamespaceTerminating))
		time.Sleep(time.Second)
		manager.writes.reset()
		// as the namespace controller does: Secrets and children before or after the kinds
		remove(ctx, named(&corev1.Secret{}, ns, contract.CredentialsSecret), named(&corev1.Service{}, ns, "custody"))
		remove(ctx, source, integration, route, sink)
		for _, obj := range []client.Object{integration, route, source, sink} {
			Eventually(gone(ctx, obj)).Should(Succeed())
		}
		Eventually(streamsOf(ctx, ns)).Should(BeEmpty())
		Eventually(func() error { return accepted(creds) }).Should(MatchError(ContainSubstring("uthorization")))
		writes := slices.DeleteFunc(manager.writes.list(), func(w string) bool { return !strings.Contains(w, ns) })
		Expect(writes).To(ConsistOf("PATCH /apis/bus.metip.dev/v1alpha1/namespaces/"+ns+"/integrations/default"), "the finalizer")
	})
})
