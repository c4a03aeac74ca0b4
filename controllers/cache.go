package controllers

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/metadata"
)

// NewScheme has MetIP's kinds and Kubernetes' own.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// CacheOptions limit the cache to MetIP's kinds and to what the operator made, so that its memory does not grow with the cluster.
// Of Secrets it holds one name in each namespace, and of that the metadata (reads and watches are of metadata alone).
// namespaces limits everything to these and the operator's own; none means all.
func CacheOptions(operatorNamespace string, namespaces []string) cache.Options {
	o := cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {
				Field:     fields.OneTermEqualSelector("metadata.name", contract.CredentialsSecret),
				Transform: func(o any) (any, error) { return o, nil }, // whose managed fields say who owns which key
			},
		},
	}
	for _, obj := range []client.Object{
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &corev1.ConfigMap{}, &corev1.Pod{}, &corev1.Service{}, &corev1.ServiceAccount{},
		&networkingv1.NetworkPolicy{}, &policyv1.PodDisruptionBudget{},
	} {
		o.ByObject[obj] = cache.ByObject{Label: metadata.ManagedSelector()}
	}
	if len(namespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{operatorNamespace: {}}
		for _, n := range namespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	return o
}
