package operator_test

import (
	"time"

	"github.com/nats-io/nats.go"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func newTableSource(ns, name string) *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: v1alpha1.ConnectorSpec{
			Source: &v1alpha1.Source{Postgres: &v1alpha1.PostgresSource{
				Connection: v1alpha1.PostgresConnection{Host: "db.court.example", Database: "court"},
				Table:      &v1alpha1.PostgresPoll{Name: "court.cases", Cursor: "id"},
			}},
			Auth: &v1alpha1.Auth{Basic: &v1alpha1.BasicAuth{Secret: v1alpha1.SecretName{Name: "reader"}}},
		},
	}
}

var _ = Describe("The position of a source", func() {
	It("has a place on the bus that its own user may write, and goes with the Connector", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		integration, source, other := newIntegration(ns), newTableSource(ns, "cases"), newTableSource(ns, "hearings")
		create(ctx, integration, source, other)
		expectReady(ctx, integration, source, other)
		_, js := broker.Admin()
		stream, err := js.Stream(ctx, contract.StateStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		config, _ := configOf(ctx, ns, "cases")
		Expect(config.Source.Position).To(BeTrue())
		deployment := named(&appsv1.Deployment{}, ns, "cases-connector")
		Expect(api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
		Expect(deployment.Spec.Strategy.Type).To(Equal(appsv1.RecreateDeploymentStrategyType), "one pod asks")
		creds, err := credentialsOf(ctx, ns, "cases")
		Expect(err).NotTo(HaveOccurred())
		user, err := dial(creds, nats.CustomInboxPrefix(contract.InboxPrefix(ns, "cases")))
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(user.Close)
		own := contract.PositionSubject(ns, "default", string(source.UID))
		_, err = user.Request(own, []byte("{}"), 10*time.Second)
		Expect(err).NotTo(HaveOccurred())
		answer, err := user.Request(contract.PositionGet(ns, "default", string(source.UID)), nil, 10*time.Second)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(answer.Data)).To(Equal("{}"))
		_, err = user.Request(contract.PositionSubject(ns, "default", string(other.UID)), []byte("{}"), time.Second)
		Expect(err).To(HaveOccurred(), "another's")

		subjects := map[*v1alpha1.Connector]string{}
		for _, c := range []*v1alpha1.Connector{source, other} {
			subjects[c] = contract.PositionSubject(ns, "default", string(c.UID))
			_, err := js.Publish(ctx, subjects[c], []byte("{}"))
			Expect(err).NotTo(HaveOccurred())
		}
		By("staying while the Connector has another system")
		change(ctx, other, func(c *v1alpha1.Connector) {
			c.Spec.Source.Postgres.Table, c.Spec.Source.Postgres.Notify = nil, &v1alpha1.PostgresNotify{Channels: []v1alpha1.PostgresChannel{"c"}}
		})
		expectReady(ctx, other)
		config, _ = configOf(ctx, ns, "hearings")
		Expect(config.Source.Position).To(BeFalse())

		By("going with it")
		remove(ctx, source)
		Eventually(func() error { _, err := stream.GetLastMsgForSubject(ctx, subjects[source]); return err }).ShouldNot(Succeed())
		_, err = stream.GetLastMsgForSubject(ctx, subjects[other])
		Expect(err).NotTo(HaveOccurred())
	})
})
