package brokerref

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/api/v1alpha1"
)

func TestCandidates(t *testing.T) {
	other := v1alpha1.Namespace("platform")
	for name, c := range map[string]struct {
		namespace string
		ref       *v1alpha1.NamespacedRef
		want      []types.NamespacedName
	}{
		"named":                       {"team", &v1alpha1.NamespacedRef{Name: "b"}, []types.NamespacedName{{Namespace: "team", Name: "b"}}},
		"named elsewhere":             {"team", &v1alpha1.NamespacedRef{Name: "b", Namespace: &other}, []types.NamespacedName{{Namespace: "platform", Name: "b"}}},
		"none named":                  {"team", nil, []types.NamespacedName{{Namespace: "team", Name: "default"}, {Namespace: "metip-system", Name: "default"}}},
		"in the operator's namespace": {"metip-system", nil, []types.NamespacedName{{Namespace: "metip-system", Name: "default"}}},
	} {
		t.Run(name, func(t *testing.T) {
			i := &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace}, Spec: v1alpha1.IntegrationSpec{BrokerRef: c.ref}}
			if d := cmp.Diff(c.want, Candidates(i, "metip-system")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "custody"}}
	for name, c := range map[string]struct {
		allowed   *v1alpha1.AllowedNamespaces
		namespace string
		labels    map[string]string
		want      bool
	}{
		"unset, same":         {nil, "b", nil, true},
		"unset, other":        {nil, "x", nil, false},
		"same, same":          {&v1alpha1.AllowedNamespaces{From: "Same"}, "b", nil, true},
		"same, other":         {&v1alpha1.AllowedNamespaces{From: "Same"}, "x", nil, false},
		"all":                 {&v1alpha1.AllowedNamespaces{From: "All"}, "x", nil, true},
		"selector, match":     {&v1alpha1.AllowedNamespaces{From: "Selector", Selector: team}, "x", map[string]string{"team": "custody"}, true},
		"selector, no match":  {&v1alpha1.AllowedNamespaces{From: "Selector", Selector: team}, "b", nil, false},
		"selector, left out":  {&v1alpha1.AllowedNamespaces{From: "Selector"}, "x", nil, false},
		"selector, no labels": {&v1alpha1.AllowedNamespaces{From: "Selector", Selector: team}, "x", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "b"}, Spec: v1alpha1.BrokerSpec{AllowedNamespaces: c.allowed}}
			if got, err := Allows(b, c.namespace, c.labels); err != nil || got != c.want {
				t.Errorf("allowed: %v, %v, want %v", got, err, c.want)
			}
		})
	}
}
