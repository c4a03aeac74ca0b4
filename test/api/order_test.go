package api_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The order of a destination", func() {
	apply := func(ctx SpecContext, namespace, spec string) error {
		object := parseYAML(`{apiVersion: bus.metip.dev/v1alpha1, kind: Route, metadata: {name: x}, spec: {from: [{connector: a}], ` + spec + `}}`)
		object.SetNamespace(namespace)
		return api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"))
	}

	It("may be written in another way, as long as it stays what it is", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		for _, spec := range []string{
			`to: [{name: db, connector: b}, {name: log, connector: c}], delivery: {order: PerKey}`,
			`to: [{name: db, connector: b, delivery: {order: PerKey, lanes: 4}}, {name: log, connector: c}], delivery: {order: PerKey, lanes: 4}`,
			`to: [{name: db, connector: b, delivery: {order: PerKey}}, {name: log, connector: d, delivery: {order: PerKey, lanes: 4, timeout: 5s}}]`,
			`to: [{name: db, connector: b, delivery: {order: PerKey}}], delivery: {order: Strict}`,
			`to: [{name: db, connector: b, delivery: {order: PerKey}}, {name: keyed, connector: c, delivery: {order: PerKey, key: data.id}}, {name: strict, connector: d}], delivery: {order: Strict}`,
			`to: [{name: db, connector: b, delivery: {order: PerKey}}, {name: keyed, connector: c, delivery: {order: PerKey, key: data.id, lanes: 1}}, {name: none, connector: d, delivery: {order: None}}]`,
			`to: [{name: db, connector: b, delivery: {order: PerKey}}, {name: none, connector: d}]`,
		} {
			Expect(apply(ctx, namespace, spec)).To(Succeed(), spec)
		}
	})

	It("does not change with the Route's", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		refused := MatchError(ContainSubstring("order, lanes and key of a destination cannot change"))
		Expect(apply(ctx, namespace, `to: [{name: db, connector: b}, {name: own, connector: c, delivery: {order: Strict}}]`)).To(Succeed())
		Expect(apply(ctx, namespace, `to: [{name: db, connector: b}, {name: own, connector: c, delivery: {order: Strict}}], delivery: {order: PerKey}`)).To(refused)
		Expect(apply(ctx, namespace, `to: [{name: db, connector: b}, {name: own, connector: c}]`)).To(refused)
		Expect(apply(ctx, namespace, `to: [{name: own, connector: c, delivery: {order: Strict}}], delivery: {order: PerKey}`)).To(Succeed(), "db has gone")
	})
})
