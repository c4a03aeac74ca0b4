package operator_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/webhook"
)

func quantity(s string) *resource.Quantity {
	q := resource.MustParse(s)
	return &q
}

func errorsTo(ch chan<- error) nats.ErrHandler {
	return func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case ch <- err:
		default:
		}
	}
}

var _ = Describe("What is wrong with a spec", func() {
	It("is said in Accepted, with the position, and disturbs nothing else", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		sink, bad := newSink(ns, "court"), newRoute(ns, "bad", "custody", "court")
		good := newRoute(ns, "good", "custody", "court")
		bad.Spec.Filter = "data.severity >"
		create(ctx, newIntegration(ns), newSource(ns, "custody"), sink, good, bad)
		Eventually(condition(ctx, bad, "Accepted")).Should(HavePrefix("False/InvalidExpression: spec.filter: line 1, column 16"))
		Eventually(condition(ctx, bad, "Stalled")).Should(HavePrefix("True/InvalidExpression"))
		Expect(condition(ctx, bad, "Reconciling")()).To(BeEmpty())
		expectReady(ctx, sink, good)
		config, _ := configOf(ctx, ns, "court")
		Expect(config.Sink.Routes).To(HaveLen(1))

		change(ctx, bad, func(r *v1alpha1.Route) { r.Spec.Filter = "data.severity > 1" })
		expectReady(ctx, bad)
		Expect(condition(ctx, bad, "Stalled")()).To(BeEmpty())

		wrong := newSink(ns, "wrong")
		wrong.Spec.Sink.HTTP.Request.Path = "/cases/{data.}"
		create(ctx, wrong)
		Eventually(condition(ctx, wrong, "Ready")).Should(HavePrefix("False/InvalidExpression: spec.sink.http.request.path: line 1"))
	})

	It("is said of references too", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		elsewhere := newSink(ns, "elsewhere")
		elsewhere.Spec.IntegrationRef.Name = "other"
		create(ctx, newIntegration(ns), newSource(ns, "custody"), newSource(ns, "second"), newSink(ns, "court"), elsewhere)
		table := &v1alpha1.Operation{Postgres: &v1alpha1.PostgresWrite{Table: "t", KeyColumns: []v1alpha1.ColumnName{"id"}}}
		mismatch := newRoute(ns, "mismatch", "custody", "court")
		mismatch.Spec.To[0].Operation = table
		secured := newSink(ns, "secured")
		secured.Spec.Sink = &v1alpha1.Sink{SOAP: &v1alpha1.SOAPSink{URL: "https://court.example/cases", Security: v1alpha1.SOAPSecurityUsernameToken}}
		secured.Spec.Auth = &v1alpha1.Auth{Basic: &v1alpha1.BasicAuth{Secret: v1alpha1.SecretName{Name: "login"}}}
		create(ctx, secured)
		whole := newRoute(ns, "whole", "custody", "secured")
		whole.Spec.To[0].Operation = &v1alpha1.Operation{SOAP: &v1alpha1.SOAPCall{Content: v1alpha1.SOAPContentEnvelope}}
		for want, route := range map[string]*v1alpha1.Route{
			"False/OperationMismatch: the operation of destination secured has content Envelope":                       whole,
			"False/WrongRole: Connector second is a source":                                                            newRoute(ns, "to-source", "custody", "second"),
			"False/WrongRole: Connector court is a sink":                                                               newRoute(ns, "from-sink", "court", "elsewhere"),
			"False/WrongIntegration: Connector elsewhere belongs to Integration other":                                 newRoute(ns, "foreign", "custody", "elsewhere"),
			"False/ConnectorNotFound: there is no Connector nobody":                                                    newRoute(ns, "nobody", "custody", "nobody"),
			"False/OperationMismatch: the operation of destination court is for postgres, and Connector court is http": mismatch,
		} {
			create(ctx, route)
			Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix(want))
			Eventually(condition(ctx, route, "Programmed")).Should(HavePrefix("True/"))
			Expect(condition(ctx, route, "Ready")()).To(HavePrefix(want[:12]))
		}
		lost := newIntegration(ns)
		lost.Name, lost.Spec.BrokerRef = "lost", &v1alpha1.NamespacedRef{Name: "nowhere"}
		create(ctx, lost)
		Eventually(condition(ctx, lost, "Ready")).Should(HavePrefix("False/BrokerNotFound: there is no Broker " + ns + "/nowhere"))

		other := newNamespace(ctx)
		private := externalBroker()
		private.Namespace, private.Name = other, "private"
		private.Spec.AllowedNamespaces = nil
		secret := named(&corev1.Secret{}, operatorNamespace, "private-"+other)
		secret.Data = broker.Credentials()
		private.Spec.External.Credentials.Name = secret.Name
		outsider := newIntegration(ns)
		outsider.Name = "outsider"
		outsider.Spec.BrokerRef = &v1alpha1.NamespacedRef{Name: "private", Namespace: new(v1alpha1.Namespace(other))}
		create(ctx, secret, private, outsider)
		Eventually(condition(ctx, outsider, "Ready")).Should(HavePrefix("False/NotAllowed: Broker " + other + "/private does not let namespace " + ns + " in"))
		change(ctx, private, func(b *v1alpha1.Broker) {
			b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{
				MatchLabels: map[string]string{"kubernetes.io/metadata.name": ns},
			}}
		})
		expectReady(ctx, outsider)
	})

	It("is refused by the webhook, whose certificate the operator makes and announces", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		installWebhooks(ctx)
		config := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: webhook.ConfigurationName}}
		Expect(api.Get(ctx, client.ObjectKeyFromObject(config), config)).To(Succeed())
		Expect(config.Webhooks[0].ClientConfig.CABundle).NotTo(BeEmpty())

		bad := newRoute(ns, "bad", "custody", "court")
		bad.Spec.Steps = []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: "{id: .arrestId"}}}
		Eventually(func() error { // until the API server has heard of the configuration
			err := api.Create(ctx, bad, client.DryRunAll)
			bad.ResourceVersion = ""
			return err
		}).Should(MatchError(And(ContainSubstring("spec.steps[0].transform.jq"), ContainSubstring("line 1, column"))))
		err := api.Create(ctx, bad)
		Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)

		annotated := newSource(ns, "annotated")
		annotated.Spec.Template = &v1alpha1.PodTemplate{Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "x"}}
		Expect(api.Create(ctx, annotated)).To(MatchError(ContainSubstring("--allowed-pod-annotations")))

		own := newSource(ns, "own")
		own.Spec.Auth, own.Spec.Source = nil, &v1alpha1.Source{Custom: &v1alpha1.CustomSource{CustomContainer: v1alpha1.CustomContainer{Image: "registry.example/miner:1"}}}
		Expect(api.Create(ctx, own)).To(MatchError(And(ContainSubstring("spec.source.custom.image"), ContainSubstring("--custom-images"))))
		own.Spec.Source.Custom.Image = "registry.example/own:1.4"
		create(ctx, own)

		nightly := newSource(ns, "nightly")
		nightly.Spec.Auth, nightly.Spec.Source = nil, &v1alpha1.Source{Schedule: &v1alpha1.ScheduleSource{Cron: "61 * * * *"}}
		Expect(api.Create(ctx, nightly)).To(MatchError(ContainSubstring("spec.source.schedule.cron")))
		create(ctx, newSource(ns, "fine"))
	})
})
