package broker_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

func managedBroker(namespace string, replicas int32, policy v1alpha1.DeletionPolicy) *v1alpha1.Broker {
	return &v1alpha1.Broker{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bus"},
		Spec: v1alpha1.BrokerSpec{Managed: &v1alpha1.ManagedBroker{
			Replicas: new(replicas), DeletionPolicy: policy, Storage: v1alpha1.BrokerStorage{Size: resource.MustParse("1Gi")},
		}},
	}
}

func get[T client.Object](ctx SpecContext, namespace, name string, obj T) func(Gomega) T {
	return func(g Gomega) T {
		g.Expect(api.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, obj)).To(Succeed())
		return obj
	}
}

func keysOf(namespace string) string { return "metip-broker." + namespace + ".bus" }

var _ = Describe("A managed Broker", func() {
	It("gets its servers, keys and settings, and is left alone then", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		b := managedBroker(ns, 3, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(condition(ctx, b, "Deployed")).Should(HavePrefix("False/PodsNotReady: 0 of 3 servers"))
		Expect(condition(ctx, b, "Accepted")()).To(HavePrefix("True/"))
		Expect(condition(ctx, b, "ResolvedRefs")()).To(HavePrefix("True/"))
		Expect(condition(ctx, b, "Reconciling")()).To(HavePrefix("True/"))
		Eventually(condition(ctx, b, "Connected")).WithTimeout(10 * time.Second).Should(And(
			HavePrefix("False/BrokerUnreachable"), ContainSubstring("tls://bus."+ns+".svc:4222"), ContainSubstring("bus-broker")))

		children := []client.Object{
			&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "bus-broker"}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "bus"}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "bus-servers"}},
			&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "bus-broker"}},
			&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "bus-broker"}},
		}
		for _, o := range children {
			Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: o.GetName()}, o)).To(Succeed())
			Expect(metav1.IsControlledBy(o, b)).To(BeTrue())
		}
		settings, keys := &corev1.Secret{}, &corev1.Secret{}
		Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: "metip-credentials"}, settings)).To(Succeed())
		Expect(settings.Data).To(And(HaveKey("broker.bus.nats.conf"), HaveKey("broker.bus.tls.crt"), HaveKey("broker.bus.tls.key"), HaveKey("broker.bus.ca.crt")))
		Expect(api.Get(ctx, types.NamespacedName{Namespace: operatorNamespace, Name: keysOf(ns)}, keys)).To(Succeed())
		Expect(keys.OwnerReferences).To(BeEmpty())
		for name, value := range keys.Data {
			if strings.HasSuffix(name, ".seed") || name == "ca.key" {
				for _, file := range settings.Data {
					Expect(strings.Contains(string(file), string(value))).To(BeFalse(), "%s is among the servers' files", name)
				}
			}
		}

		By("writing nothing while nothing changes")
		all := append(children, settings, keys, b)
		Expect(api.Get(ctx, client.ObjectKeyFromObject(b), b)).To(Succeed())
		versions := func() (out []string) {
			for _, o := range all {
				if err := api.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
					return []string{err.Error()}
				}
				out = append(out, o.GetName()+" "+o.GetResourceVersion())
			}
			return out
		}
		Consistently(versions).WithTimeout(8 * time.Second).WithPolling(time.Second).Should(Equal(versions()))

		By("repairing what somebody changed")
		Expect(api.Delete(ctx, children[1])).To(Succeed())
		Eventually(get(ctx, ns, "bus", &corev1.Service{})).Should(HaveField("Spec.Ports", HaveLen(1)))
		patch := client.RawPatch(types.MergePatchType, []byte(`{"data":{"broker.bus.nats.conf":"YmFk"}}`))
		Expect(api.Patch(ctx, settings, patch)).To(Succeed())
		Eventually(get(ctx, ns, "metip-credentials", &corev1.Secret{})).Should(
			HaveField("Data", HaveKeyWithValue("broker.bus.nats.conf", ContainSubstring("resolver_preload"))))
		servers := &appsv1.StatefulSet{}
		Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: "bus-broker"}, servers)).To(Succeed())
		servers.Spec.Template.Spec.Containers[0].Image = "other"
		Expect(api.Update(ctx, servers)).To(Succeed())
		Eventually(get(ctx, ns, "bus-broker", &appsv1.StatefulSet{})).Should(
			HaveField("Spec.Template.Spec.Containers", ContainElement(HaveField("Image", "metip:test"))))
	})

	It("grows from three servers to five, and its volumes' template grows", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		b := managedBroker(ns, 3, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(get(ctx, ns, "bus-broker", &appsv1.StatefulSet{})).Should(HaveField("Spec.Replicas", HaveValue(BeEquivalentTo(3))))
		Eventually(func() error {
			if err := api.Get(ctx, client.ObjectKeyFromObject(b), b); err != nil {
				return err
			}
			b.Spec.Managed.Replicas = new(int32(5))
			b.Spec.Managed.Storage.Size = resource.MustParse("2Gi")
			return api.Update(ctx, b)
		}).Should(Succeed())
		// The garbage collector is no part of this API server: the orphaning finalizer is taken off by hand.
		Eventually(func(g Gomega) *appsv1.StatefulSet {
			servers := &appsv1.StatefulSet{}
			g.Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: "bus-broker"}, servers)).To(Succeed())
			if !servers.DeletionTimestamp.IsZero() && len(servers.Finalizers) > 0 {
				servers.Finalizers = nil
				g.Expect(client.IgnoreNotFound(api.Update(ctx, servers))).To(Succeed())
			}
			return servers
		}).Should(And(
			HaveField("Spec.Replicas", HaveValue(BeEquivalentTo(5))),
			HaveField("DeletionTimestamp", BeNil()),
			WithTransform(func(s *appsv1.StatefulSet) string {
				size := s.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage]
				return size.String()
			}, Equal("2Gi"))))
	})

	It("keeps its keys, and refuses another number of servers for what is kept", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		b := managedBroker(ns, 1, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, b)).To(Succeed())
		keys := &corev1.Secret{}
		Eventually(get(ctx, operatorNamespace, keysOf(ns), keys)).Should(HaveField("Data", HaveKey("operator.seed")))
		Eventually(get(ctx, ns, "metip-credentials", &corev1.Secret{})).Should(HaveField("Data", HaveLen(4)))
		Expect(api.Delete(ctx, b)).To(Succeed())
		Eventually(func() bool {
			return apierrors.IsNotFound(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: "metip-credentials"}, &corev1.Secret{}))
		}).Should(BeTrue(), "the settings go")
		Consistently(get(ctx, operatorNamespace, keysOf(ns), &corev1.Secret{})).WithTimeout(time.Second).Should(HaveField("Data", Equal(keys.Data)))

		again := managedBroker(ns, 3, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, again)).To(Succeed())
		Eventually(condition(ctx, again, "Accepted")).Should(And(HavePrefix("False/InvalidSpec"), ContainSubstring("set replicas to 1")))
		Expect(condition(ctx, again, "Stalled")()).To(HavePrefix("True/"))
	})

	It("takes its keys along when its data goes", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		b := managedBroker(ns, 1, v1alpha1.DeletionPolicyDelete)
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(get(ctx, operatorNamespace, keysOf(ns), &corev1.Secret{})).Should(HaveField("Data", HaveKey("operator.seed")))
		Expect(api.Delete(ctx, b)).To(Succeed())
		Eventually(func() bool {
			return apierrors.IsNotFound(api.Get(ctx, types.NamespacedName{Namespace: operatorNamespace, Name: keysOf(ns)}, &corev1.Secret{}))
		}).Should(BeTrue())
	})

	It("makes no new keys beside volumes whose keys are missing", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "data-bus-broker-0", Labels: map[string]string{
				"app.kubernetes.io/component": "broker", "bus.metip.dev/broker": "bus",
			}},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}
		Expect(api.Create(ctx, claim)).To(Succeed())
		b := managedBroker(ns, 1, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(condition(ctx, b, "ResolvedRefs")).Should(And(HavePrefix("False/CredentialsNotFound"), ContainSubstring("restore Secret "+keysOf(ns))))
	})

	It("leaves a Service of somebody else alone", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bus"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		Expect(api.Create(ctx, taken)).To(Succeed())
		b := managedBroker(ns, 1, v1alpha1.DeletionPolicyRetain)
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(condition(ctx, b, "Deployed")).Should(HavePrefix("False/NameTaken"))
		Expect(condition(ctx, b, "Ready")()).To(HavePrefix("False/NameTaken"))
	})
})

var _ = Describe("An external Broker", func() {
	It("says what its Secret lacks, is Ready when it answers, and tells within ten seconds when it does not", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		servers := bustest.Start(GinkgoTB(), bustest.Options{})
		b := &v1alpha1.Broker{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bus"},
			Spec:       v1alpha1.BrokerSpec{External: &v1alpha1.ExternalBroker{URL: servers.URL(), Credentials: v1alpha1.SecretName{Name: ns + "-nats"}}},
		}
		Expect(api.Create(ctx, b)).To(Succeed())
		Eventually(condition(ctx, b, "ResolvedRefs")).Should(And(HavePrefix("False/CredentialsNotFound"), ContainSubstring(ns+"-nats")))

		data := servers.Credentials()
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: ns + "-nats"}, Data: map[string][]byte{"bus.creds": data["bus.creds"]}}
		Expect(api.Create(ctx, secret)).To(Succeed())
		Eventually(condition(ctx, b, "ResolvedRefs")).Should(ContainSubstring("key edge.account is missing"))
		secret.Data = data
		Expect(api.Update(ctx, secret)).To(Succeed())
		Eventually(condition(ctx, b, "Ready")).Should(HavePrefix("True/Ready"))
		Expect(b.Status.Servers).To(Equal("1/1"))
		Expect(b.Status.Version).To(HavePrefix("2."))
		Expect(condition(ctx, b, "Deployed")()).To(BeEmpty())

		servers.Stop(0)
		Eventually(condition(ctx, b, "Connected")).WithTimeout(10 * time.Second).Should(And(HavePrefix("False/BrokerUnreachable"), ContainSubstring("connection refused")))
		Expect(condition(ctx, b, "Ready")()).To(HavePrefix("False/BrokerUnreachable"))
		servers.Restart(0)
		Eventually(condition(ctx, b, "Ready")).WithTimeout(15 * time.Second).Should(HavePrefix("True/Ready"))
	})
})
