package operator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

type tlsConfig = tls.Config

// readManifests of a file.
func readManifests(file string) []*unstructured.Unstructured {
	GinkgoHelper()
	data, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var out []*unstructured.Unstructured
	for {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(obj)
		if errors.Is(err, io.EOF) {
			return out
		}
		Expect(err).NotTo(HaveOccurred(), file)
		if len(obj.Object) > 0 {
			out = append(out, obj)
		}
	}
}

func newIntegration(ns string) *v1alpha1.Integration {
	return &v1alpha1.Integration{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"},
		Spec: v1alpha1.IntegrationSpec{
			Owner: &v1alpha1.Owner{Team: "Custody"}, DeletionPolicy: v1alpha1.DeletionPolicyDelete,
		},
	}
}

func newSource(ns, name string) *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: v1alpha1.ConnectorSpec{
			Source: &v1alpha1.Source{EventType: "custody.arrest", HTTP: &v1alpha1.HTTPSource{Path: "/arrests"}},
			Auth:   &v1alpha1.Auth{Bearer: &v1alpha1.BearerAuth{Token: v1alpha1.SecretKey{Name: "custody-token", Key: "token"}}},
		},
	}
}

func newSink(ns, name string) *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: v1alpha1.ConnectorSpec{
			Sink: &v1alpha1.Sink{HTTP: &v1alpha1.HTTPSink{URL: "http://court.example:8080/api", Request: &v1alpha1.HTTPRequest{Path: "/cases/{data.id}"}}},
			Auth: &v1alpha1.Auth{Anonymous: &v1alpha1.AnonymousAuth{}},
		},
	}
}

func newRoute(ns, name, from string, to ...string) *v1alpha1.Route {
	r := &v1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       v1alpha1.RouteSpec{From: []v1alpha1.RouteFrom{{Connector: v1alpha1.ObjectName(from)}}},
	}
	for _, t := range to {
		r.Spec.To = append(r.Spec.To, v1alpha1.Destination{Name: v1alpha1.ObjectName(t), Connector: v1alpha1.ObjectName(t)})
	}
	return r
}

// create objects in the order given.
func create(ctx context.Context, list ...client.Object) {
	GinkgoHelper()
	for _, obj := range list {
		Expect(api.Create(ctx, obj)).To(Succeed())
	}
}

// remove objects, without waiting.
func remove(ctx context.Context, list ...client.Object) {
	GinkgoHelper()
	for _, obj := range list {
		Expect(client.IgnoreNotFound(api.Delete(ctx, obj))).To(Succeed())
	}
}

// change an object; conflicts are tried again.
func change[T client.Object](ctx context.Context, obj T, how func(T)) {
	GinkgoHelper()
	Eventually(func() error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		how(obj)
		return api.Update(ctx, obj)
	}).Should(Succeed())
}

func conditionsOf(obj client.Object) []metav1.Condition {
	switch o := obj.(type) {
	case *v1alpha1.Broker:
		return o.Status.Conditions
	case *v1alpha1.Integration:
		return o.Status.Conditions
	case *v1alpha1.Connector:
		return o.Status.Conditions
	case *v1alpha1.Route:
		return o.Status.Conditions
	case *v1alpha1.Replay:
		return o.Status.Conditions
	}
	return nil
}

// condition of an object as "status/reason: message"; empty while there is none of the present generation.
func condition(ctx context.Context, obj client.Object, name string) func() string {
	return func() string {
		if err := api.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err.Error()
		}
		c := meta.FindStatusCondition(conditionsOf(obj), name)
		if c == nil || c.ObservedGeneration != obj.GetGeneration() {
			return ""
		}
		return string(c.Status) + "/" + c.Reason + ": " + c.Message
	}
}

// expectReady waits until objects are Ready.
func expectReady(ctx context.Context, list ...client.Object) {
	GinkgoHelper()
	for _, obj := range list {
		Eventually(condition(ctx, obj, v1alpha1.ConditionReady)).Should(HavePrefix("True/Ready"), "%T %s", obj, obj.GetName())
	}
}

// A spec that fails shows what every object of the kinds says.
var _ = JustAfterEach(func(ctx SpecContext) {
	if !CurrentSpecReport().Failed() {
		return
	}
	for _, obj := range all(ctx) {
		text := ""
		for _, c := range conditionsOf(obj) {
			text += fmt.Sprintf("%s=%s/%s %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
		AddReportEntry(fmt.Sprintf("%T %s/%s", obj, obj.GetNamespace(), obj.GetName()), text)
	}
})

// all objects of the kinds.
func all(ctx context.Context) []client.Object {
	var (
		brokers      v1alpha1.BrokerList
		integrations v1alpha1.IntegrationList
		connectors   v1alpha1.ConnectorList
		routes       v1alpha1.RouteList
		replays      v1alpha1.ReplayList
		out          []client.Object
	)
	for _, list := range []client.ObjectList{&brokers, &integrations, &connectors, &routes, &replays} {
		Expect(api.List(ctx, list)).To(Succeed())
		items, err := meta.ExtractList(list)
		Expect(err).NotTo(HaveOccurred())
		for _, i := range items {
			out = append(out, i.(client.Object))
		}
	}
	return out
}

func typeName(obj client.Object) string { return fmt.Sprintf("%T", obj) }
