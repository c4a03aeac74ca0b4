package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

// observe reads everything that a pass looks at. Secrets and volumes are read from the API server: the cache holds neither.
func (r *Reconciler) observe(ctx context.Context, s *scope) error {
	if err := r.observeIntegrations(ctx, s); err != nil {
		return err
	}
	if !s.managed() {
		secret, err := r.secret(ctx, s.broker.Spec.External.Credentials.Name)
		s.credentials = secret
		return err
	}
	secret, err := r.secret(ctx, keysName(s.key()))
	if err != nil {
		return err
	}
	s.keySecret = secret
	return r.observeServers(ctx, s)
}

// secret of the operator's namespace, or nil.
func (r *Reconciler) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	key := types.NamespacedName{Namespace: r.OperatorNamespace, Name: name}
	if err := r.Live.Get(ctx, key, secret); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	return secret, nil
}

func (r *Reconciler) observeServers(ctx context.Context, s *scope) error {
	key := s.key()
	servers := &appsv1.StatefulSet{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: serversName(key.Name)}, servers)
	switch {
	case err == nil && metav1.IsControlledBy(servers, s.broker):
		s.servers = servers
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("reading StatefulSet: %w", err)
	}
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingLabels(selector(key.Name))); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	s.pods = pods.Items
	slices.SortFunc(s.pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	var volumes corev1.PersistentVolumeClaimList
	if err := r.Live.List(ctx, &volumes, client.InNamespace(key.Namespace), client.MatchingLabels(selector(key.Name))); err != nil {
		return fmt.Errorf("listing volume claims: %w", err)
	}
	s.volumes = volumes.Items
	slices.SortFunc(s.volumes, func(a, b corev1.PersistentVolumeClaim) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// observeIntegrations counts those whose own status says that they use this Broker.
func (r *Reconciler) observeIntegrations(ctx context.Context, s *scope) error {
	var list v1alpha1.IntegrationList
	if err := r.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing Integrations: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Status.Broker == s.key().String() {
			s.integrations++
		}
	}
	return nil
}
