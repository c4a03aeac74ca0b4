package api_test

import (
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

func listener(namespace, name string) *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.ConnectorSpec{
			Source: &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{}},
			Auth:   &v1alpha1.Auth{Anonymous: &v1alpha1.AnonymousAuth{}},
		},
	}
}

func route(namespace, name string) *v1alpha1.Route {
	return &v1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.RouteSpec{
			From: []v1alpha1.RouteFrom{{Connector: "a"}},
			To:   []v1alpha1.Destination{{Name: "db", Connector: "b"}},
		},
	}
}

func replay(namespace, name string) *v1alpha1.Replay {
	return &v1alpha1.Replay{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.ReplaySpec{
			To: v1alpha1.ReplayTarget{Route: "a"}, From: v1alpha1.ReplaySource{DeadLetters: &v1alpha1.ReplayDeadLetters{}},
		},
	}
}

func managedBroker(namespace, name string) *v1alpha1.Broker {
	return &v1alpha1.Broker{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.BrokerSpec{Managed: &v1alpha1.ManagedBroker{
			Storage: v1alpha1.BrokerStorage{Size: resource.MustParse("1Gi")},
		}},
	}
}

func integration(namespace, name string) *v1alpha1.Integration {
	return &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

// conditionsOf returns the status of any kind.
func conditionsOf(object client.Object) (observed int64, conditions []metav1.Condition) {
	switch o := object.(type) {
	case *v1alpha1.Broker:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *v1alpha1.Integration:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *v1alpha1.Connector:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *v1alpha1.Route:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *v1alpha1.Replay:
		return o.Status.ObservedGeneration, o.Status.Conditions
	}
	return 0, nil
}

var _ = Describe("Defaults", func() {
	var namespace string
	BeforeEach(func(ctx SpecContext) { namespace = newNamespace(ctx) })

	DescribeTable("status says that the operator has not seen the object, from the first read",
		func(ctx SpecContext, build func(namespace, name string) client.Object) {
			object := build(namespace, "new")
			Expect(api.Create(ctx, object)).To(Succeed())
			Expect(api.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())

			observed, conditions := conditionsOf(object)
			Expect(observed).To(BeEquivalentTo(-1))
			ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
			Expect(ready).NotTo(BeNil())
			Expect(ready.Status).To(Equal(metav1.ConditionUnknown))
			Expect(ready.Reason).To(Equal(v1alpha1.ReasonPending))
		},
		Entry("Broker", func(ns, name string) client.Object { return managedBroker(ns, name) }),
		Entry("Integration", func(ns, name string) client.Object { return integration(ns, name) }),
		Entry("Connector", func(ns, name string) client.Object { return listener(ns, name) }),
		Entry("Route", func(ns, name string) client.Object { return route(ns, name) }),
		Entry("Replay", func(ns, name string) client.Object { return replay(ns, name) }),
	)

	It("keeps a written status, and a written status does not change the spec", func(ctx SpecContext) {
		connector := listener(namespace, "web")
		Expect(api.Create(ctx, connector)).To(Succeed())
		generation, spec := connector.Generation, connector.Spec.DeepCopy()

		connector.Status = v1alpha1.ConnectorStatus{
			ObservedGeneration: generation,
			Role:               "Source",
			Replicas:           0,
			Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady,
				ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(time.Unix(1, 0)),
			}},
		}
		Expect(api.Status().Update(ctx, connector)).To(Succeed())
		Expect(api.Get(ctx, client.ObjectKeyFromObject(connector), connector)).To(Succeed())
		Expect(connector.Status.ObservedGeneration).To(Equal(generation))
		Expect(connector.Status.Conditions).To(HaveLen(1))
		Expect(connector.Generation).To(Equal(generation))
		Expect(cmp.Diff(spec, &connector.Spec)).To(BeEmpty())
	})

	It("ignores a status in what a user writes", func(ctx SpecContext) {
		connector := listener(namespace, "liar")
		connector.Status.Role = "Sink"
		Expect(api.Create(ctx, connector)).To(Succeed())
		Expect(api.Get(ctx, client.ObjectKeyFromObject(connector), connector)).To(Succeed())
		Expect(connector.Status.Role).To(BeEmpty())
		Expect(connector.Status.ObservedGeneration).To(BeEquivalentTo(-1))
	})

	It("fills a Connector in", func(ctx SpecContext) {
		connector := listener(namespace, "web")
		connector.Spec.Auth = &v1alpha1.Auth{HMAC: &v1alpha1.HMACAuth{Key: v1alpha1.SecretKey{Name: "s", Key: "k"}}}
		Expect(api.Create(ctx, connector)).To(Succeed())

		spec := connector.Spec
		Expect(spec.IntegrationRef.Name).To(BeEquivalentTo("default"))
		Expect(spec.Source.Format).To(Equal(v1alpha1.FormatJSON))
		Expect(spec.Source.EventType).To(BeEmpty(), "the operator takes the Connector's name")
		Expect(spec.Source.HTTP.Path).To(Equal("/"))
		Expect(spec.Source.HTTP.MaxBodySize.String()).To(Equal("1Mi"))
		Expect(spec.Auth.HMAC.Header).To(Equal("X-Signature-256"))
		Expect(spec.Replicas).To(HaveValue(BeEquivalentTo(1)), "the scale subresource needs a value")
		Expect(spec.Suspend).To(BeNil(), "or Git would revert what the people on call set")
	})

	It("fills sinks and schedules in", func(ctx SpecContext) {
		database := &v1alpha1.Connector{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "db"},
			Spec: v1alpha1.ConnectorSpec{
				Sink: &v1alpha1.Sink{Postgres: &v1alpha1.PostgresSink{
					Connection: v1alpha1.PostgresConnection{Host: "db", Database: "court"},
					Write:      v1alpha1.PostgresWrite{Table: "arrests", KeyColumns: []v1alpha1.ColumnName{"id"}},
				}},
				Auth: &v1alpha1.Auth{Basic: &v1alpha1.BasicAuth{Secret: v1alpha1.SecretName{Name: "s"}}},
			},
		}
		Expect(api.Create(ctx, database)).To(Succeed())
		Expect(database.Spec.Sink.Postgres.Connection.Port).To(HaveValue(BeEquivalentTo(5432)))
		Expect(database.Spec.Sink.Postgres.Connection.Encryption).To(Equal(v1alpha1.EncryptionRequired))

		clock := &v1alpha1.Connector{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "clock"},
			Spec:       v1alpha1.ConnectorSpec{Source: &v1alpha1.Source{Schedule: &v1alpha1.ScheduleSource{Cron: "@daily"}}},
		}
		Expect(api.Create(ctx, clock)).To(Succeed())
		Expect(clock.Spec.Source.Schedule.TimeZone).To(Equal("Etc/UTC"))
	})

	It("fills a Broker, an Integration and a Route in, but nothing that is inherited", func(ctx SpecContext) {
		broker := managedBroker(namespace, "default")
		Expect(api.Create(ctx, broker)).To(Succeed())
		Expect(broker.Spec.Managed.Replicas).To(HaveValue(BeEquivalentTo(1)))
		Expect(broker.Spec.Managed.Durability).To(Equal(v1alpha1.DurabilityFsync))
		Expect(broker.Spec.Managed.DeletionPolicy).To(Equal(v1alpha1.DeletionPolicyRetain))
		Expect(broker.Spec.AllowedNamespaces).To(HaveValue(Equal(v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSame})))

		area := integration(namespace, "default")
		Expect(api.Create(ctx, area)).To(Succeed())
		Expect(area.Spec).To(Equal(v1alpha1.IntegrationSpec{DeduplicationWindow: "5m", DeletionPolicy: v1alpha1.DeletionPolicyRetain}))

		flow := route(namespace, "flow")
		flow.Spec.Delivery = &v1alpha1.Delivery{Retry: &v1alpha1.Retry{}}
		flow.Spec.To[0].Operation = &v1alpha1.Operation{HTTP: &v1alpha1.HTTPRequest{}}
		Expect(api.Create(ctx, flow)).To(Succeed())
		Expect(flow.Spec.IntegrationRef.Name).To(BeEquivalentTo("default"))
		Expect(flow.Spec.Start).To(Equal(v1alpha1.RouteStartCreation))
		Expect(flow.Spec.Delivery).To(HaveValue(Equal(v1alpha1.Delivery{Retry: &v1alpha1.Retry{}})))
		Expect(flow.Spec.To[0].Operation.HTTP.Method).To(BeEquivalentTo("POST"))
	})
})

var _ = Describe("Updates", func() {
	It("allows what may change", func(ctx SpecContext) {
		namespace := newNamespace(ctx)

		connector := listener(namespace, "web")
		Expect(api.Create(ctx, connector)).To(Succeed())
		connector.Spec.Source = &v1alpha1.Source{Schedule: &v1alpha1.ScheduleSource{Cron: "@hourly"}}
		connector.Spec.Auth = nil
		Expect(api.Update(ctx, connector)).To(Succeed(), "the system of a source may change")

		broker := managedBroker(namespace, "default")
		broker.Spec.Managed.Replicas = ptr.To[int32](3)
		Expect(api.Create(ctx, broker)).To(Succeed())
		broker.Spec.Managed.Replicas = ptr.To[int32](5)
		broker.Spec.Managed.Durability = v1alpha1.DurabilityReplicated
		broker.Spec.Managed.Storage.Size = resource.MustParse("1.5Gi")
		Expect(api.Update(ctx, broker)).To(Succeed(), "a Broker may grow")

		flow := route(namespace, "flow")
		Expect(api.Create(ctx, flow)).To(Succeed())
		flow.Spec.To[0].Connector = "c"
		flow.Spec.From = append(flow.Spec.From, v1alpha1.RouteFrom{Connector: "d"})
		Expect(api.Update(ctx, flow)).To(Succeed(), "a destination may be exchanged")
	})
})
