package refs

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

// defaultBroker is the name of the Broker that serves Integrations which name none.
const defaultBroker = "default"

// Broker of an Integration: the one that it names or, where it names none, the one that holds its streams already, else the one called default
// in its own namespace or else in the operator's. The error is an outcome (BrokerNotFound, NotAllowed) or the reader's.
func Broker(ctx context.Context, c client.Reader, operatorNamespace string, i *v1alpha1.Integration) (*v1alpha1.Broker, error) {
	candidates := []types.NamespacedName{{Namespace: i.Namespace, Name: defaultBroker}, {Namespace: operatorNamespace, Name: defaultBroker}}
	if ref := i.Spec.BrokerRef; ref != nil {
		namespace := i.Namespace
		if ref.Namespace != nil {
			namespace = string(*ref.Namespace)
		}
		candidates = []types.NamespacedName{{Namespace: namespace, Name: string(ref.Name)}}
	} else if namespace, name, ok := strings.Cut(i.Status.Broker, "/"); ok {
		candidates = []types.NamespacedName{{Namespace: namespace, Name: name}}
	}
	for _, key := range candidates {
		broker := &v1alpha1.Broker{}
		if err := c.Get(ctx, key, broker); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("reading Broker %s: %w", key, err)
		}
		return broker, allowed(ctx, c, broker, i.Namespace)
	}
	if i.Spec.BrokerRef == nil && i.Status.Broker != "" {
		return nil, notFound("Broker %s, which holds the streams, does not exist any more: create it again, or delete this Integration", i.Status.Broker)
	}
	if i.Spec.BrokerRef != nil {
		return nil, notFound("there is no Broker %s: create it, or correct spec.brokerRef", candidates[0])
	}
	return nil, notFound("there is no Broker called default in namespace %s or %s: create one, or set spec.brokerRef", i.Namespace, operatorNamespace)
}

func notFound(format string, a ...any) error {
	return outcome.Wait(v1alpha1.ReasonBrokerNotFound, format, a...).On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
}

// allowed asks the Broker whether it lets a namespace in.
func allowed(ctx context.Context, c client.Reader, b *v1alpha1.Broker, namespace string) error {
	refused := outcome.Wait(v1alpha1.ReasonNotAllowed, "Broker %s/%s does not let namespace %s in: its owner must widen spec.allowedNamespaces",
		b.Namespace, b.Name, namespace).On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
	from, selector := v1alpha1.NamespacesFromSame, (*metav1.LabelSelector)(nil)
	if a := b.Spec.AllowedNamespaces; a != nil {
		from, selector = a.From, a.Selector
	}
	switch {
	case from == v1alpha1.NamespacesFromAll, b.Namespace == namespace:
		return nil
	case from != v1alpha1.NamespacesFromSelector:
		return refused
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return outcome.Wait(v1alpha1.ReasonNotAllowed, "Broker %s/%s: spec.allowedNamespaces.selector: %w", b.Namespace, b.Name, err).
			On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
	}
	ns, err := Namespace(ctx, c, namespace)
	if err != nil {
		return fmt.Errorf("reading namespace %s: %w", namespace, err)
	}
	if !s.Matches(labels.Set(ns.Labels)) {
		return refused
	}
	return nil
}

// Namespace is a namespace's metadata; the cache holds no more.
func Namespace(ctx context.Context, c client.Reader, name string) (*metav1.PartialObjectMetadata, error) {
	ns := NamespaceMetadata()
	return ns, c.Get(ctx, types.NamespacedName{Name: name}, ns)
}

// NamespaceMetadata is an empty one, to read or watch.
func NamespaceMetadata() *metav1.PartialObjectMetadata { return Metadata("v1", "Namespace") }

// Metadata is the empty metadata of a kind.
func Metadata(apiVersion, kind string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}}
}
