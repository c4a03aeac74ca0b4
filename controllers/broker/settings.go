package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/metadata"
)

// settingsPrefix and a Broker's name is an annotation of the credentials Secret: a digest of the Broker's keys there.
const settingsPrefix = "broker.bus.metip.dev/"

func settingsOwner(broker string) string { return "metip-broker-" + broker }

// reconcileSettings writes the servers' files into the one Secret of the namespace that the operator may touch, beside the users of
// Connectors and with a field owner of their own. The cache has the Secret's metadata only: a digest says whether the files are there,
// and the managed fields whether somebody changed them since.
func (r *Reconciler) reconcileSettings(ctx context.Context, s *scope) error {
	files, hash := buildSettings(s)
	s.configHash = hash
	digest := digestOf(files)
	key := credentials.NameOf(s.broker.Namespace)
	secret := credentials.Secret()
	err := r.Client.Get(ctx, key, secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading the metadata of Secret %s: %w", key, err)
	}
	if err == nil && secret.Annotations[settingsPrefix+s.broker.Name] == digest && ownsAll(secret, s.broker.Name, files) {
		return nil
	}
	return r.applySettings(ctx, s.key(), files, digest)
}

// removeSettings of a Broker that is gone.
func (r *Reconciler) removeSettings(ctx context.Context, broker types.NamespacedName) error {
	secret := credentials.Secret()
	err := r.Client.Get(ctx, credentials.NameOf(broker.Namespace), secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if secret.Annotations[settingsPrefix+broker.Name] == "" || !secret.DeletionTimestamp.IsZero() {
		return nil
	}
	if err := r.applySettings(ctx, broker, nil, ""); err != nil {
		if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	return r.deleteIfEmpty(ctx, broker.Namespace)
}

// deleteIfEmpty removes the credentials Secret of a namespace with the last of its keys.
func (r *Reconciler) deleteIfEmpty(ctx context.Context, namespace string) error {
	secret := credentials.Secret()
	if err := r.Live.Get(ctx, credentials.NameOf(namespace), secret); err != nil {
		return client.IgnoreNotFound(err)
	}
	for _, e := range secret.ManagedFields {
		if len(dataFields(e)) > 0 {
			return nil
		}
	}
	version := secret.ResourceVersion
	err := r.Client.Delete(ctx, secret, client.Preconditions{ResourceVersion: &version})
	if apierrors.IsConflict(err) { // somebody has put a key in meanwhile
		return nil
	}
	return client.IgnoreNotFound(err)
}

func (r *Reconciler) applySettings(ctx context.Context, broker types.NamespacedName, files map[string][]byte, digest string) error {
	meta := map[string]any{"namespace": broker.Namespace, "name": contract.CredentialsSecret}
	manifest := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": meta}
	if len(files) > 0 {
		meta["labels"] = map[string]string{metadata.LabelManagedBy: metadata.ManagedBy, metadata.LabelPartOf: metadata.PartOf}
		meta["annotations"] = map[string]string{settingsPrefix + broker.Name: digest}
		manifest["data"] = files
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	secret := credentials.Secret()
	secret.Namespace, secret.Name = broker.Namespace, contract.CredentialsSecret
	err = r.Client.Patch(ctx, secret, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(settingsOwner(broker.Name)), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", credentials.NameOf(broker.Namespace), err)
	}
	return nil
}

func digestOf(files map[string][]byte) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%s:%d:", name, len(files[name]))
		sum.Write(files[name])
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// settingsIn the annotations of a Secret: the Brokers whose files it has.
func settingsIn(annotations map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range annotations {
		if name, ok := strings.CutPrefix(k, settingsPrefix); ok {
			out[name] = true
		}
	}
	return out
}

// ownsAll tells from the managed fields whether the Secret still has all files as they were written for a Broker.
func ownsAll(secret *metav1.PartialObjectMetadata, broker string, files map[string][]byte) bool {
	for _, e := range secret.ManagedFields {
		if e.Manager != settingsOwner(broker) {
			continue
		}
		fields := dataFields(e)
		return !slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(name string) bool { return !fields[name] })
	}
	return false
}

// dataFields are the keys of a Secret's data that a manager owns.
func dataFields(e metav1.ManagedFieldsEntry) map[string]bool {
	if e.FieldsV1 == nil {
		return nil
	}
	var fields struct {
		Data map[string]any `json:"f:data"`
	}
	if json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) != nil {
		return nil
	}
	out := map[string]bool{}
	for k := range fields.Data {
		if name, ok := strings.CutPrefix(k, "f:"); ok {
			out[name] = true
		}
	}
	return out
}
