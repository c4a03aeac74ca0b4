package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
)

// reconcileKeys makes, reads and renews the keys and certificates of a managed Broker. They are written with an optimistic lock, never by
// force: to lose them is to lose the stored messages, whose folders are named after them.
func (r *Reconciler) reconcileKeys(ctx context.Context, s *scope) error {
	if s.keySecret == nil {
		if err := checkNoVolumes(s); err != nil {
			return err
		}
	}
	data := map[string][]byte{}
	changed := true
	var err error
	if s.keySecret == nil {
		s.keys, err = bus.NewKeys()
	} else {
		data = maps.Clone(s.keySecret.Data)
		s.keys, changed, err = bus.ParseKeys(data)
	}
	if err != nil {
		return outcome.Stall(v1alpha1.ReasonCredentialsNotFound, "Secret %s/%s cannot be used: %w: restore it from a backup",
			r.OperatorNamespace, keysName(s.key()), err)
	}
	if changed {
		keys, err := s.keys.Data()
		if err != nil {
			return err
		}
		maps.Copy(data, keys)
	}
	data, renewed, err := bus.RenewCertificates(data, certificateHosts(s.key()), s.now)
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if s.certificates, err = bus.ReadCertificates(data); err != nil {
		return err
	}
	return r.writeKeys(ctx, s, data, changed || renewed)
}

// checkNoVolumes refuses new keys beside volumes of former ones: the messages there would take their place and never be seen again.
func checkNoVolumes(s *scope) error {
	for _, v := range s.volumes {
		if !v.DeletionTimestamp.IsZero() || len(v.OwnerReferences) > 0 {
			return outcome.Wait(v1alpha1.ReasonProgressing, "waits until the former volume claim %s/%s is gone", v.Namespace, v.Name)
		}
	}
	if len(s.volumes) == 0 {
		return nil
	}
	return outcome.Stall(v1alpha1.ReasonCredentialsNotFound,
		"volume claim %s/%s holds messages whose keys are missing: restore Secret %s in the operator's namespace, or delete the claim",
		s.broker.Namespace, s.volumes[0].Name, keysName(s.key()))
}

// writeKeys where data, or what is noted of the Broker, has changed.
func (r *Reconciler) writeKeys(ctx context.Context, s *scope, data map[string][]byte, changed bool) error {
	want := keysMetadata(s, r.OperatorNamespace)
	if s.keySecret == nil {
		secret := &corev1.Secret{ObjectMeta: want, Type: corev1.SecretTypeOpaque, Data: data}
		if err := r.Client.Create(ctx, secret, client.FieldOwner(metadata.FieldOwner)); err != nil {
			return fmt.Errorf("creating Secret %s: %w", secret.Name, err)
		}
		s.keySecret = secret
		return nil
	}
	if !changed && covers(s.keySecret.Labels, want.Labels) && covers(s.keySecret.Annotations, want.Annotations) {
		return nil
	}
	secret := s.keySecret.DeepCopy()
	secret.Data = data
	secret.Labels, secret.Annotations = merge(secret.Labels, want.Labels), merge(secret.Annotations, want.Annotations)
	if err := r.Client.Update(ctx, secret, client.FieldOwner(metadata.FieldOwner)); err != nil {
		return fmt.Errorf("updating Secret %s: %w", secret.Name, err)
	}
	s.keySecret = secret
	return nil
}

func keysMetadata(s *scope, namespace string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: keysName(s.key()),
		Labels: metadata.Labels(componentKeys, metadata.LabelBroker, s.broker.Name),
		Annotations: map[string]string{
			annotationBroker:  s.key().String(),
			annotationPolicy:  string(s.broker.Spec.Managed.DeletionPolicy),
			annotationServers: strconv.Itoa(int(s.replicas())),
		},
	}
}

func covers(have, want map[string]string) bool {
	return !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(k string) bool { return have[k] != want[k] })
}

func merge(have, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, want)
	return out
}

// storeEdgeClaims keeps the claims of account EDGE with their revocations: the session calls it before it tells the servers.
func (r *Reconciler) storeEdgeClaims(broker types.NamespacedName) func(context.Context, string) error {
	return func(ctx context.Context, encoded string) error {
		secret, err := r.secret(ctx, keysName(broker))
		if err != nil {
			return err
		}
		if secret == nil {
			return fmt.Errorf("secret %s is missing", keysName(broker))
		}
		keys, _, err := bus.ParseKeys(secret.Data)
		if err != nil {
			return err
		}
		if err := keys.SetEdgeClaims(encoded); err != nil {
			return err
		}
		data, err := keys.Data()
		if err != nil {
			return err
		}
		maps.Copy(secret.Data, data)
		return r.Client.Update(ctx, secret, client.FieldOwner(metadata.FieldOwner))
	}
}

// sweepKeys deletes the keys of a Broker that is gone and wanted its data deleted.
func (r *Reconciler) sweepKeys(ctx context.Context, broker types.NamespacedName) error {
	secret, err := r.secret(ctx, keysName(broker))
	if err != nil || secret == nil {
		return err
	}
	if secret.Annotations[annotationBroker] != broker.String() || secret.Annotations[annotationPolicy] != string(v1alpha1.DeletionPolicyDelete) {
		return nil
	}
	version := secret.ResourceVersion
	err = r.Client.Delete(ctx, secret, client.Preconditions{ResourceVersion: &version})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// brokersWithKeys are the Brokers that there are keys of, so that those of Brokers deleted while the operator was away are swept.
func (r *Reconciler) brokersWithKeys(ctx context.Context) ([]types.NamespacedName, error) {
	var list corev1.SecretList
	err := r.Live.List(ctx, &list, client.InNamespace(r.OperatorNamespace),
		client.MatchingLabels{metadata.LabelComponent: componentKeys, metadata.LabelManagedBy: metadata.ManagedBy})
	if err != nil {
		return nil, fmt.Errorf("listing the keys of Brokers: %w", err)
	}
	var names []types.NamespacedName
	for i := range list.Items {
		if key, ok := parseKey(list.Items[i].Annotations[annotationBroker]); ok {
			names = append(names, key)
		}
	}
	return names, nil
}
