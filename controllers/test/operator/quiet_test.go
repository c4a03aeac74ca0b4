package operator_test

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers"
)

var _ = Describe("The operator at rest", Serial, func() {
	It("writes nothing while nothing changes, nor when it is restarted", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		create(ctx, newIntegration(ns), newSource(ns, "custody"))
		var watched []client.Object
		for i := range 5 {
			sink := newSink(ns, fmt.Sprintf("court-%d", i))
			route := newRoute(ns, fmt.Sprintf("arrests-%d", i), "custody", sink.Name)
			create(ctx, sink, route)
			watched = append(watched, sink, route)
		}
		expectReady(ctx, watched...)
		quiet := func() bool {
			manager.writes.reset()
			time.Sleep(3 * resync)
			return len(manager.writes.list()) == 0
		}
		Eventually(quiet).WithTimeout(30 * time.Second).Should(BeTrue())
		manager.writes.reset()
		time.Sleep(8 * resync) // several comparisons with the broker
		Expect(manager.writes.list()).To(BeEmpty())

		manager.stop()
		manager = startOperator()
		Eventually(func() error { _, err := manager.cert.GetCertificate(nil); return err }).Should(Succeed())
		time.Sleep(12 * time.Second)
		Expect(manager.writes.list()).To(BeEmpty(), "a restart is no news")
		expectReady(ctx, watched...)
	})

	It("tells how many writes an object costs", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		create(ctx, newIntegration(ns), newSource(ns, "custody"))
		first := newSink(ns, "first")
		create(ctx, first)
		expectReady(ctx, first)
		time.Sleep(2 * resync)
		manager.writes.reset()
		sink, route := newSink(ns, "court"), newRoute(ns, "arrests", "custody", "court")
		create(ctx, sink, route)
		expectReady(ctx, sink, route)
		time.Sleep(2 * resync)
		calls := manager.writes.list()
		AddReportEntry(fmt.Sprintf("%d writes for a sink and its Route", len(calls)), strings.Join(calls, "\n"))
		Expect(len(calls)).To(BeNumerically("<=", 24))
	})
})

var _ = Describe("The operator's rights", func() {
	It("reach no Secret but its own", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		operator, err := client.New(as, client.Options{Scheme: controllers.NewScheme()})
		Expect(err).NotTo(HaveOccurred())
		theirs := named(&corev1.Secret{}, ns, "custody-token")
		theirs.Data = map[string][]byte{"token": []byte("planted")}
		create(ctx, theirs)
		key := client.ObjectKeyFromObject(theirs)
		forbidden := func(err error) {
			GinkgoHelper()
			Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		}
		forbidden(operator.Get(ctx, key, &corev1.Secret{}))
		forbidden(operator.Get(ctx, key, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}))
		forbidden(operator.List(ctx, &corev1.SecretList{}))
		forbidden(operator.List(ctx, &corev1.SecretList{}, client.InNamespace(ns)))
		forbidden(operator.List(ctx, &corev1.SecretList{}, client.InNamespace(ns), client.MatchingFields{"metadata.name": "custody-token"}))
		forbidden(operator.Patch(ctx, theirs.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{}`)), client.DryRunAll))
		forbidden(operator.Update(ctx, theirs.DeepCopy()))
		forbidden(operator.Delete(ctx, theirs.DeepCopy()))
		forbidden(operator.Create(ctx, named(&corev1.Secret{}, ns, "another")))
		apply := func(name string) error {
			s := named(&corev1.Secret{}, ns, name)
			body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":%q}}`, name, ns)
			return operator.Patch(ctx, s, client.RawPatch(types.ApplyPatchType, []byte(body)), client.FieldOwner("x"), client.ForceOwnership)
		}
		forbidden(apply("custody-token"))
		forbidden(apply("new"))
		Expect(apply(contract.CredentialsSecret)).To(Succeed(), "the one of that name it may make")

		// nor by way of a pod that it runs
		forbidden(operator.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "thief"}}))
	})
})
