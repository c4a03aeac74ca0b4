package brokerref

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/api/v1alpha1"
)

// DefaultName of the Broker that serves Integrations which name none.
const DefaultName = "default"

// Candidates for an Integration, the first that exists counts: the one that it names, or else the default of its own namespace, or
// else of the operator's.
func Candidates(i *v1alpha1.Integration, operatorNamespace string) []types.NamespacedName {
	ref := i.Spec.BrokerRef
	if ref == nil {
		own := types.NamespacedName{Namespace: i.Namespace, Name: DefaultName}
		if i.Namespace == operatorNamespace {
			return []types.NamespacedName{own}
		}
		return []types.NamespacedName{own, {Namespace: operatorNamespace, Name: DefaultName}}
	}
	namespace := i.Namespace
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return []types.NamespacedName{{Namespace: namespace, Name: string(ref.Name)}}
}

// Allows says whether a Broker lets Integrations of a namespace in. namespaceLabels are needed for from: Selector only; the error is
// for a selector that cannot be read.
func Allows(b *v1alpha1.Broker, namespace string, namespaceLabels map[string]string) (bool, error) {
	allowed := b.Spec.AllowedNamespaces
	if allowed == nil {
		return namespace == b.Namespace, nil
	}
	switch allowed.From {
	case v1alpha1.NamespacesFromAll:
		return true, nil
	case v1alpha1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
		if err != nil {
			return false, fmt.Errorf("spec.allowedNamespaces.selector: %w", err)
		}
		return selector.Matches(labels.Set(namespaceLabels)), nil
	default:
		return namespace == b.Namespace, nil
	}
}
