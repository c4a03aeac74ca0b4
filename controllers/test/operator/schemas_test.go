package operator_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

const (
	firstSchema  = `{"type": "object", "required": ["arrestId"]}`
	secondSchema = `{"type": "object", "required": ["arrestId", "arrestedAt"]}`
)

// schemaMap is a user's ConfigMap: it has none of the operator's labels.
func schemaMap(ns, name, text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string]string{"arrest.json": text}}
}

func inMap(name string) *v1alpha1.SchemaSource {
	return &v1alpha1.SchemaSource{ConfigMap: &v1alpha1.ConfigMapKey{Name: name, Key: "arrest.json"}}
}

func validating(r *v1alpha1.Route, schema *v1alpha1.SchemaSource) *v1alpha1.Route {
	r.Spec.Steps = []v1alpha1.Step{{Validate: &v1alpha1.Validate{JSONSchema: schema}}}
	return r
}

var _ = Describe("Schemas in ConfigMaps", func() {
	// routeSchema that the pods of a sink run for a Route; empty for none.
	routeSchema := func(ctx SpecContext, ns, sink, route string) func() string {
		return func() string {
			config, _ := configOf(ctx, ns, sink)
			if config.Sink == nil {
				return "no configuration"
			}
			for _, r := range config.Sink.Routes {
				if r.Name == route && len(r.Steps) > 0 {
					return r.Steps[0].Validate.JSONSchema.Text
				}
			}
			return ""
		}
	}

	It("are read for Routes, and what is missing or wrong changes nothing that runs", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		sink := newSink(ns, "court")
		route := validating(newRoute(ns, "checked", "custody", "court"), inMap("schemas"))
		other := newRoute(ns, "other", "custody", "court")
		create(ctx, newIntegration(ns), newSource(ns, "custody"), sink, route, other)
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(Equal("False/SchemaNotFound: there is no ConfigMap schemas in namespace " + ns +
			": create it, with the schema under the key arrest.json"))
		Eventually(condition(ctx, route, "Programmed")).Should(HavePrefix("True/"), "its messages wait for it")
		expectReady(ctx, sink, other)
		Expect(routeSchema(ctx, ns, "court", "checked")()).To(BeEmpty())

		By("appearing")
		m := schemaMap(ns, "schemas", firstSchema)
		create(ctx, m)
		expectReady(ctx, route, sink)
		Eventually(routeSchema(ctx, ns, "court", "checked")).Should(Equal(firstSchema))
		config, _ := configOf(ctx, ns, "court")
		Expect(*config.Sink.Routes[0].Steps[0].Validate.JSONSchema).To(Equal(contract.Schema{Text: firstSchema, From: "configMap schemas key arrest.json"}))

		By("changing")
		change(ctx, m, func(m *corev1.ConfigMap) { m.Data["arrest.json"] = secondSchema })
		Eventually(routeSchema(ctx, ns, "court", "checked")).Should(Equal(secondSchema))
		expectReady(ctx, route, sink)

		By("being none")
		change(ctx, m, func(m *corev1.ConfigMap) { m.Data["arrest.json"] = "{\n \"type\": \"text\"}" })
		Eventually(condition(ctx, route, "Accepted")).Should(HavePrefix("False/InvalidSchema: spec.steps[0].validate.jsonSchema.configMap: line 2, column 10: at /type: "))
		Eventually(condition(ctx, route, "Stalled")).Should(HavePrefix("True/InvalidSchema"))
		Expect(condition(ctx, route, "Programmed")()).To(HavePrefix("True/"))
		expectReady(ctx, sink, other)
		Expect(routeSchema(ctx, ns, "court", "checked")()).To(Equal(secondSchema))

		By("being too large, and without its key")
		change(ctx, m, func(m *corev1.ConfigMap) {
			m.Data["arrest.json"] = `{"description": "` + strings.Repeat("x", 257<<10) + `"}`
		})
		Eventually(condition(ctx, route, "Accepted")).Should(HavePrefix("False/InvalidSchema: the schema in ConfigMap schemas, key arrest.json, has 258 KiB"))
		change(ctx, m, func(m *corev1.ConfigMap) { m.Data = map[string]string{"another.json": "{}"} })
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix("False/SchemaNotFound: ConfigMap schemas has nothing under the key arrest.json"))
		Expect(condition(ctx, route, "Accepted")()).To(HavePrefix("True/"))

		By("going, while another Route makes the pods roll")
		remove(ctx, m)
		Eventually(condition(ctx, route, "ResolvedRefs")).Should(HavePrefix("False/SchemaNotFound: there is no ConfigMap schemas"))
		third := validating(newRoute(ns, "third", "custody", "court"), &v1alpha1.SchemaSource{Inline: firstSchema})
		create(ctx, third)
		expectReady(ctx, sink, third)
		Expect(routeSchema(ctx, ns, "court", "third")()).To(Equal(firstSchema))
		Expect(routeSchema(ctx, ns, "court", "checked")()).To(Equal(secondSchema), "it runs as it did")

		By("coming back")
		create(ctx, schemaMap(ns, "schemas", firstSchema))
		expectReady(ctx, route, sink)
		Eventually(routeSchema(ctx, ns, "court", "checked")).Should(Equal(firstSchema))
	})

	It("keep a source's door shut until they are there", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		source := newSource(ns, "custody")
		source.Spec.Source.Schema = inMap("schemas")
		create(ctx, newIntegration(ns), source)
		Eventually(condition(ctx, source, "ResolvedRefs")).Should(HavePrefix("False/SchemaNotFound: there is no ConfigMap schemas"))
		Expect(gone(ctx, named(&appsv1.Deployment{}, ns, "custody-connector"))()).To(Succeed())

		m := schemaMap(ns, "schemas", firstSchema)
		create(ctx, m)
		expectReady(ctx, source)
		config, _ := configOf(ctx, ns, "custody")
		Expect(config.Source.Schema.Text).To(Equal(firstSchema))

		By("which goes on with the last one")
		remove(ctx, m)
		Eventually(condition(ctx, source, "ResolvedRefs")).Should(HavePrefix("False/SchemaNotFound"))
		Eventually(condition(ctx, source, "Ready")).Should(HavePrefix("False/SchemaNotFound"))
		Expect(condition(ctx, source, "Programmed")()).To(HavePrefix("True/"))
		change(ctx, source, func(c *v1alpha1.Connector) { c.Spec.Source.EventType = "custody.arrest" })
		Eventually(func(g Gomega) {
			config, _ := configOf(ctx, ns, "custody")
			g.Expect(config.Source).NotTo(BeNil())
			g.Expect(config.Source.EventType).To(Equal("custody.arrest"))
			g.Expect(config.Source.Schema.Text).To(Equal(firstSchema))
		}).Should(Succeed())
		create(ctx, schemaMap(ns, "schemas", secondSchema))
		expectReady(ctx, source)
		config, _ = configOf(ctx, ns, "custody")
		Expect(config.Source.Schema.Text).To(Equal(secondSchema))
	})

	It("reach the relay of an Integration", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		m := schemaMap(ns, "schemas", firstSchema)
		integration, route := newIntegration(ns), validating(eventRoute(ns, "publish", "custody", "police.arrest.v1"), inMap("schemas"))
		create(ctx, m, integration, newSource(ns, "custody"), route)
		expectReady(ctx, route, integration)
		hash := integration.Status.Relay.ConfigHash
		change(ctx, m, func(m *corev1.ConfigMap) { m.Data["arrest.json"] = secondSchema })
		Eventually(func(g Gomega) {
			g.Expect(condition(ctx, integration, "Ready")()).To(HavePrefix("True/"))
			g.Expect(integration.Status.Relay.ConfigHash).NotTo(Equal(hash))
		}).Should(Succeed())
		expectReady(ctx, route)
	})
})
