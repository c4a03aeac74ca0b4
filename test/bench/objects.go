package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"golang.org/x/sync/errgroup"

	"github.com/metip/metip/api/v1alpha1"
)

// Where the objects go.
const benchNamespace = "bench"

// applyBroker names the running server as an external Broker, and makes an Integration on it.
func (s *apiServer) applyBroker(ctx context.Context, url string, credentials map[string][]byte) error {
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: benchNamespace}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "external-broker"}, Data: credentials},
		&v1alpha1.Broker{
			ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "default"},
			Spec: v1alpha1.BrokerSpec{
				External:          &v1alpha1.ExternalBroker{URL: url, Credentials: v1alpha1.SecretName{Name: "external-broker"}},
				AllowedNamespaces: &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll},
			},
		},
		&v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: "default"}},
	} {
		if err := s.client.Create(ctx, o); err != nil {
			return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

// connectorsAndRoutes are n Connectors, half of them sources, and n Routes, each from one source to one sink.
func connectorsAndRoutes(n int) []client.Object {
	var all []client.Object
	in := func(i int) string { return fmt.Sprintf("in-%03d", i) }
	out := func(i int) string { return fmt.Sprintf("out-%03d", i) }
	half := max(n/2, 1)
	for i := range half {
		all = append(all,
			&v1alpha1.Connector{
				ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: in(i)},
				Spec: v1alpha1.ConnectorSpec{
					Source: &v1alpha1.Source{EventType: "custody.arrest", HTTP: &v1alpha1.HTTPSource{}},
					Auth:   &v1alpha1.Auth{Anonymous: &v1alpha1.AnonymousAuth{}},
				},
			},
			&v1alpha1.Connector{
				ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: out(i)},
				Spec: v1alpha1.ConnectorSpec{
					Sink: &v1alpha1.Sink{HTTP: &v1alpha1.HTTPSink{URL: fmt.Sprintf("https://system-%03d.example/cases", i)}},
					Auth: &v1alpha1.Auth{Bearer: &v1alpha1.BearerAuth{Token: v1alpha1.SecretKey{Name: out(i), Key: "token"}}},
				},
			})
	}
	for i := range n {
		all = append(all, &v1alpha1.Route{
			ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: fmt.Sprintf("route-%03d", i)},
			Spec: v1alpha1.RouteSpec{
				From:   []v1alpha1.RouteFrom{{Connector: v1alpha1.ObjectName(in(i % half))}},
				Filter: "data.bound == 'court'",
				Steps:  []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: "{id: .arrestId, name: .person.name}"}}},
				To:     []v1alpha1.Destination{{Name: "court", Connector: v1alpha1.ObjectName(out((i + i/half) % half))}},
			},
		})
	}
	return all
}

// create the objects as a pipeline does that applies a folder: eight at a time.
func (s *apiServer) create(ctx context.Context, objects []client.Object) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, o := range objects {
		group.Go(func() error {
			if err := s.client.Create(ctx, o); err != nil {
				return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// programmed counts the Connectors and Routes whose condition Programmed is True for their present generation.
func (s *apiServer) programmed(ctx context.Context) (n int, example string, err error) {
	var connectors v1alpha1.ConnectorList
	var routes v1alpha1.RouteList
	if err := s.client.List(ctx, &connectors, client.InNamespace(benchNamespace)); err != nil {
		return 0, "", err
	}
	if err := s.client.List(ctx, &routes, client.InNamespace(benchNamespace)); err != nil {
		return 0, "", err
	}
	look := func(kind string, o client.Object, conditions []metav1.Condition) {
		c := meta.FindStatusCondition(conditions, v1alpha1.ConditionProgrammed)
		if c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == o.GetGeneration() {
			n++
			return
		}
		example = fmt.Sprintf("%s %s: %+v", kind, o.GetName(), conditions)
	}
	for i := range connectors.Items {
		look("Connector", &connectors.Items[i], connectors.Items[i].Status.Conditions)
	}
	for i := range routes.Items {
		look("Route", &routes.Items[i], routes.Items[i].Status.Conditions)
	}
	return n, example, nil
}

// integrationProgrammed says whether the Integration's streams are there.
func (s *apiServer) integrationProgrammed(ctx context.Context) (bool, string, error) {
	var i v1alpha1.Integration
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: benchNamespace, Name: "default"}, &i); err != nil {
		return false, "", err
	}
	return meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionProgrammed), fmt.Sprintf("%+v", i.Status.Conditions), nil
}
