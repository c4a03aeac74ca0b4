package operator_test

import (
	"encoding/json"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func named[T client.Object](obj T, ns, name string) T {
	obj.SetNamespace(ns)
	obj.SetName(name)
	return obj
}

// configOf a connector as its Deployment mounts it.
func configOf(ctx SpecContext, ns, connector string) (contract.Config, *corev1.ConfigMap) {
	GinkgoHelper()
	d := &appsv1.Deployment{}
	Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: connector + "-connector"}, d)).To(Succeed())
	m := &corev1.ConfigMap{}
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.ConfigMap != nil {
			Expect(api.Get(ctx, types.NamespacedName{Namespace: ns, Name: v.ConfigMap.Name}, m)).To(Succeed())
		}
	}
	var c contract.Config
	Expect(json.Unmarshal([]byte(m.Data["config.json"]), &c)).To(Succeed())
	return c, m
}

var _ = Describe("The children of a Connector", func() {
	It("run under the restricted standard, without a token, with their own credentials alone", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		source.Spec.TLS = &v1alpha1.TLS{Certificate: &v1alpha1.SecretName{Name: "listener"}}
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source) // its pod was admitted

		d := named(&appsv1.Deployment{}, ns, "custody-connector")
		Expect(api.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		pod := d.Spec.Template.Spec
		Expect(*pod.AutomountServiceAccountToken).To(BeFalse())
		Expect(pod.ServiceAccountName).To(Equal("custody-connector"))
		Expect(pod.SecurityContext.RunAsUser).To(BeNil(), "the user id is arbitrary")
		Expect(*d.Spec.Replicas).To(BeEquivalentTo(1))
		Expect(d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue()).To(Equal(0))
		for _, v := range pod.Volumes {
			switch v.Name {
			case "broker":
				Expect(v.Secret.SecretName).To(Equal("metip-credentials"))
				Expect(v.Secret.Items).To(ConsistOf(corev1.KeyToPath{Key: "custody.creds", Path: "user.creds"}))
			case "system":
				Expect(v.Projected.Sources).To(HaveLen(2))
				for _, s := range v.Projected.Sources {
					Expect(*s.Secret.Optional).To(BeTrue())
				}
			}
		}
		service := named(&corev1.Service{}, ns, "custody")
		Expect(api.Get(ctx, client.ObjectKeyFromObject(service), service)).To(Succeed())
		Expect(service.Spec.Ports[0].Port).To(BeEquivalentTo(443))
		Expect(service.Spec.Ports[0].TargetPort.IntValue()).To(Equal(contract.PortListener))
		config, configMap := configOf(ctx, ns, "custody")
		Expect(*configMap.Immutable).To(BeTrue())
		Expect(config.Connector.UID).To(Equal(string(source.UID)))
		Expect(config.Source.EventType).To(Equal("custody.arrest"))
		Expect(config.Broker.URLs).To(Equal(broker.Client().URLs))
	})

	It("are repaired when somebody changes or deletes them", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		_, configMap := configOf(ctx, ns, "custody")

		deployment := named(&appsv1.Deployment{}, ns, "custody-connector")
		change(ctx, deployment, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "evil" })
		Eventually(func() (string, error) {
			err := api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)
			return deployment.Spec.Template.Spec.Containers[0].Image, err
		}).Should(Equal("localhost/metip:test"))
		policy := named(&networkingv1.NetworkPolicy{}, ns, "custody-connector")
		change(ctx, policy, func(p *networkingv1.NetworkPolicy) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		})
		Eventually(func() (int, error) {
			err := api.Get(ctx, client.ObjectKeyFromObject(policy), policy)
			return len(policy.Spec.Egress), err
		}).Should(Equal(3))
		service := named(&corev1.Service{}, ns, "custody")
		account := named(&corev1.ServiceAccount{}, ns, "custody-connector")
		for _, obj := range []client.Object{configMap, service, account, policy, deployment} {
			uid := obj.GetUID()
			remove(ctx, obj)
			Eventually(func(g Gomega) {
				g.Expect(api.Get(ctx, client.ObjectKeyFromObject(obj), obj)).To(Succeed())
				g.Expect(obj.GetUID()).NotTo(Equal(uid))
			}).Should(Succeed(), "%T comes back", obj)
		}
		expectReady(ctx, source)
	})

	It("leave alone what belongs to somebody else", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		foreign := named(&corev1.Service{}, ns, "custody")
		foreign.Spec.Ports = []corev1.ServicePort{{Port: 5432}}
		source := newSource(ns, "custody")
		create(ctx, foreign, newIntegration(ns), source)
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/NameTaken: Service " + ns + "/custody exists"))
		Eventually(condition(ctx, source, "Stalled")).Should(HavePrefix("True/NameTaken"))
		Expect(api.Get(ctx, client.ObjectKeyFromObject(foreign), foreign)).To(Succeed())
		Expect(foreign.OwnerReferences).To(BeEmpty())
		Expect(foreign.Spec.Ports[0].Port).To(BeEquivalentTo(5432))

		remove(ctx, foreign)
		change(ctx, source, func(c *v1alpha1.Connector) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, "look", "again") })
		expectReady(ctx, source)
	})

	It("are rolled once for many Routes, and former configurations go when no pod needs them", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		sink := newSink(ns, "court")
		create(ctx, newIntegration(ns), newSource(ns, "custody"), sink)
		expectReady(ctx, sink)
		deployment := named(&appsv1.Deployment{}, ns, "court-connector")
		Expect(api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
		before := deployment.Generation
		dataside.hold(ns, "court", true)
		var last *v1alpha1.Route
		for _, name := range strings.Fields("a b c d e f g h i j k l m n o p q r s t") {
			last = newRoute(ns, name, "custody", "court")
			create(ctx, last)
		}
		Eventually(func() int {
			c, _ := configOf(ctx, ns, "court")
			return len(c.Sink.Routes)
		}).Should(Equal(20))
		Expect(api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
		Expect(deployment.Generation-before).To(BeNumerically("<=", 2), "rolls")

		count := func() (int, error) {
			var list corev1.ConfigMapList
			err := api.List(ctx, &list, client.InNamespace(ns), client.MatchingLabels{"bus.metip.dev/connector": "court"})
			return len(list.Items), err
		}
		Consistently(count).WithTimeout(2*time.Second).Should(BeNumerically(">", 1), "a pod still runs the former one")
		dataside.hold(ns, "court", false)
		Eventually(count).Should(Equal(1))
		expectReady(ctx, last, sink)
	})

	It("follow replicas and template, and nothing that would escalate", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		create(ctx, newIntegration(ns), source)
		expectReady(ctx, source)
		config, _ := configOf(ctx, ns, "custody")

		change(ctx, source, func(c *v1alpha1.Connector) {
			c.Spec.Replicas = new(int32(3))
		})
		expectReady(ctx, source)
		Eventually(func() (int32, error) {
			err := api.Get(ctx, client.ObjectKeyFromObject(source), source)
			return source.Status.Replicas, err
		}).Should(BeEquivalentTo(3))
		scaled, _ := configOf(ctx, ns, "custody")
		Expect(scaled.Hash).To(Equal(config.Hash), "scaling rolls no pod")
		change(ctx, source, func(c *v1alpha1.Connector) { c.Spec.Replicas = new(int32(0)) })
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/ScaledToZero"))
		change(ctx, source, func(c *v1alpha1.Connector) {
			c.Spec.Replicas = nil
			c.Spec.Template = &v1alpha1.PodTemplate{
				Labels: map[string]string{"team": "custody"}, Annotations: map[string]string{"example.com/allowed": "yes"},
			}
		})
		Eventually(func() (map[string]string, error) {
			d := named(&appsv1.Deployment{}, ns, "custody-connector")
			err := api.Get(ctx, client.ObjectKeyFromObject(d), d)
			return d.Spec.Template.Labels, err
		}).Should(HaveKeyWithValue("team", "custody"))
		change(ctx, source, func(c *v1alpha1.Connector) {
			c.Spec.Template.Annotations = map[string]string{"sidecar.istio.io/inject": "true"}
		})
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/AnnotationNotAllowed: spec.template.annotations[sidecar.istio.io/inject]"))
	})
})
