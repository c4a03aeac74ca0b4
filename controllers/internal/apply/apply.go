package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
)

// Applier applies children.
type Applier struct {
	// Client reads from the cache, where the operator's children are, and writes.
	Client client.Client
	// Live reads from the API server: it alone sees objects that are not ours.
	Live client.Reader

	mu      sync.Mutex
	written map[childKey]writtenChild
}

// childKey identifies a child.
type childKey struct {
	schema.GroupVersionKind
	types.NamespacedName
}

// writtenChild is what was written last, for the moment until the cache knows of it.
type writtenChild struct {
	digest  string
	version uint64
}

// New makes an Applier.
func New(c client.Client, live client.Reader) *Applier {
	return &Applier{Client: c, Live: live, written: map[childKey]writtenChild{}}
}

// Option of Apply.
type Option func(*options)

type options struct{ immutable, unowned bool }

// Immutable is for objects whose name stands for their content. The cache holds their metadata only, and once they exist nothing but labels and
// annotations is repaired.
func Immutable(o *options) { o.immutable = true }

// Unowned is for children that outlive their owner or live in another namespace: they carry the owner's labels instead of a reference.
func Unowned(o *options) { o.unowned = true }

// Apply makes or repairs a child of owner. desired has exactly the fields that the operator wants, with the labels of
// metadata.Labels; Apply adds the owner reference and the digest. On return desired is the object as it is now (with Immutable: unchanged).
// An object of that name that is not ours is left alone: the error has reason NameTaken.
func (a *Applier) Apply(ctx context.Context, owner, desired client.Object, opts ...Option) (changed bool, err error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	gvk, err := apiutil.GVKForObject(desired, a.Client.Scheme())
	if err != nil {
		return false, err
	}
	if !o.unowned {
		if err := controllerutil.SetControllerReference(owner, desired, a.Client.Scheme()); err != nil {
			return false, err
		}
	}
	want, digest, err := manifest(desired, gvk)
	if err != nil {
		return false, err
	}
	key := childKey{gvk, client.ObjectKeyFromObject(desired)}
	live, err := a.current(ctx, key, o.immutable)
	if err != nil {
		return false, err
	}
	if live != nil {
		if leaving(owner, live) {
			return false, outcome.Wait(v1alpha1.ReasonProgressing, "waits until the former %s %s is gone", gvk.Kind, key.NamespacedName)
		}
		if !ours(owner, desired, live, o.unowned) {
			return false, outcome.Stall(v1alpha1.ReasonNameTaken, "%s %s exists and is not managed by MetIP for this object: rename or delete it",
				gvk.Kind, key.NamespacedName)
		}
		if o.immutable {
			return a.repairMetadata(ctx, desired, live)
		}
		same, err := a.upToDate(key, want, digest, live)
		if err != nil {
			return false, err
		}
		if same {
			return false, load(live, desired)
		}
	}
	return true, a.write(ctx, key, desired, want, digest, live != nil, o.immutable)
}

// current child, or nil: as the cache has it or, where the cache has none, as the API server does.
func (a *Applier) current(ctx context.Context, key childKey, immutable bool) (client.Object, error) {
	live, err := a.empty(key.GroupVersionKind, immutable)
	if err != nil {
		return nil, err
	}
	err = a.Client.Get(ctx, key.NamespacedName, live)
	if apierrors.IsNotFound(err) {
		err = a.Live.Get(ctx, key.NamespacedName, live)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", key.Kind, key.NamespacedName, err)
	}
	return live, nil
}

func (a *Applier) empty(gvk schema.GroupVersionKind, immutable bool) (client.Object, error) {
	if immutable {
		m := &metav1.PartialObjectMetadata{}
		m.SetGroupVersionKind(gvk)
		return m, nil
	}
	obj, err := a.Client.Scheme().New(gvk)
	if err != nil {
		return nil, err
	}
	return obj.(client.Object), nil
}

// repairMetadata of an immutable child: the labels and annotations that it should have.
func (a *Applier) repairMetadata(ctx context.Context, desired, live client.Object) (bool, error) {
	before := live.DeepCopyObject().(client.Object)
	live.SetLabels(overlaid(live.GetLabels(), desired.GetLabels()))
	live.SetAnnotations(overlaid(live.GetAnnotations(), desired.GetAnnotations()))
	if maps.Equal(before.GetLabels(), live.GetLabels()) && maps.Equal(before.GetAnnotations(), live.GetAnnotations()) {
		return false, nil
	}
	return true, a.Client.Patch(ctx, live, client.MergeFrom(before), client.FieldOwner(metadata.FieldOwner))
}

func overlaid(have, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, want)
	return out
}

// upToDate tells whether there is nothing to write. A cache that lags behind our own last write counts as up to date: its next event
// brings the reconcile that looks again.
func (a *Applier) upToDate(key childKey, want map[string]any, digest string, live client.Object) (bool, error) {
	if live.GetAnnotations()[metadata.AnnotationApplied] == digest {
		have, err := toMap(live)
		if err != nil {
			return false, err
		}
		if Covers(have, want) {
			return true, nil
		}
	}
	a.mu.Lock()
	last, ok := a.written[key]
	a.mu.Unlock()
	return ok && last.digest == digest && version(live) < last.version, nil
}

func (a *Applier) write(ctx context.Context, key childKey, desired client.Object, want map[string]any, digest string, exists, immutable bool) error {
	data, err := json.Marshal(want)
	if err != nil {
		return err
	}
	target := desired
	if immutable {
		m := &metav1.PartialObjectMetadata{}
		m.SetGroupVersionKind(key.GroupVersionKind)
		m.SetName(key.Name)
		m.SetNamespace(key.Namespace)
		target = m
	}
	opts := []client.PatchOption{client.FieldOwner(metadata.FieldOwner)}
	if exists { // and is ours: what somebody else set there is drift
		opts = append(opts, client.ForceOwnership)
	}
	err = a.Client.Patch(ctx, target, client.RawPatch(types.ApplyPatchType, data), opts...)
	if !exists && apierrors.IsConflict(err) {
		return outcome.Retry(v1alpha1.ReasonNameTaken, "%s %s was made by somebody else at this moment: %w", key.Kind, key.NamespacedName, err)
	}
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", key.Kind, key.NamespacedName, err)
	}
	a.mu.Lock()
	a.written[key] = writtenChild{digest, version(target)}
	a.mu.Unlock()
	return nil
}

// Delete a child if it is ours. It is no error if there is none.
func (a *Applier) Delete(ctx context.Context, owner, child client.Object) (deleted bool, err error) {
	live := child.DeepCopyObject().(client.Object)
	err = a.Client.Get(ctx, client.ObjectKeyFromObject(child), live)
	if apierrors.IsNotFound(err) || (err == nil && (!metav1.IsControlledBy(live, owner) || !live.GetDeletionTimestamp().IsZero())) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	uid := live.GetUID()
	err = a.Client.Delete(ctx, live, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if apierrors.IsConflict(err) {
		err = nil
	}
	return err == nil, client.IgnoreNotFound(err)
}

// Forget what was written for a child that is gone.
func (a *Applier) Forget(namespace string, names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.written {
		for _, name := range names {
			if k.Namespace == namespace && k.Name == name {
				delete(a.written, k)
			}
		}
	}
}

// leaving tells whether a child belonged to an object of the owner's name that was deleted, or is being deleted itself: it goes by itself.
func leaving(owner, live client.Object) bool {
	ref := metav1.GetControllerOf(live)
	if ref == nil {
		return false
	}
	former := ref.Name == owner.GetName() && ref.UID != owner.GetUID() && strings.HasPrefix(ref.APIVersion, v1alpha1.GroupVersion.Group+"/")
	return former || ref.UID == owner.GetUID() && !live.GetDeletionTimestamp().IsZero()
}

// ours tells whether an object that exists may be written: it has our controller reference or, for unowned ones, the same owner labels.
func ours(owner, desired, live client.Object, unowned bool) bool {
	if !unowned {
		return metav1.IsControlledBy(live, owner)
	}
	have := live.GetLabels()
	for _, l := range []string{metadata.LabelManagedBy, metadata.LabelBroker, metadata.LabelConnector, metadata.LabelIntegration} {
		if have[l] != desired.GetLabels()[l] {
			return false
		}
	}
	return true
}

// manifest is what is sent: the desired fields without zero metadata and status, and with the digest of them all.
func manifest(desired client.Object, gvk schema.GroupVersionKind) (map[string]any, string, error) {
	want, err := toMap(desired)
	if err != nil {
		return nil, "", err
	}
	delete(want, "status")
	want["apiVersion"], want["kind"] = gvk.GroupVersion().String(), gvk.Kind
	meta := want["metadata"].(map[string]any)
	for _, f := range []string{"creationTimestamp", "managedFields", "resourceVersion", "uid", "generation"} {
		delete(meta, f)
	}
	prune(want)
	data, err := json.Marshal(want)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:8])
	annotations, _ := meta["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		meta["annotations"] = annotations
	}
	annotations[metadata.AnnotationApplied] = digest
	return want, digest, nil
}

// prune removes the nulls that typed objects marshal for zero times, at any depth.
func prune(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if x == nil {
				delete(v, k)
				continue
			}
			prune(x)
		}
	case []any:
		for _, x := range v {
			prune(x)
		}
	}
}

func toMap(obj client.Object) (map[string]any, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(data, &m)
}

func load(live, into client.Object) error {
	data, err := json.Marshal(live)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// version of an object as a number; resource versions grow.
func version(obj client.Object) uint64 {
	v, _ := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	return v
}
