package credentials

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/metadata"
)

// Store reads and writes users.
type Store struct {
	client client.Client
	// live reads from the API server.
	live client.Reader

	mu         sync.Mutex
	namespaces map[string]*namespaceState
}

// namespaceState is what the Store wrote in a namespace.
type namespaceState struct {
	// writing holds back all writes but one: each rewrites the whole Secret.
	writing sync.Mutex

	// version of the Secret after our last write: until the cache has it, users is what counts.
	version uint64
	users   map[string]user
}

type user struct {
	record  *Record
	retired *Retired
}

// NewStore writes with a client that reads from the cache.
func NewStore(c client.Client, live client.Reader) *Store {
	return &Store{client: c, live: live, namespaces: map[string]*namespaceState{}}
}

// Secret is the metadata of a credentials Secret, to read or watch.
func Secret() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
}

func (s *Store) namespace(name string) *namespaceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[name]
	if n == nil {
		n = &namespaceState{users: map[string]user{}}
		s.namespaces[name] = n
	}
	return n
}

// Find a Connector's user as the Secret has it: nil when there is none, or when its key was removed or changed by somebody else.
func (s *Store) Find(ctx context.Context, connector types.NamespacedName) (*Record, *Retired, error) {
	secret := Secret()
	err := s.client.Get(ctx, NameOf(connector.Namespace), secret)
	if apierrors.IsNotFound(err) { // or the cache does not know yet of one that was just made
		err = s.live.Get(ctx, NameOf(connector.Namespace), secret)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the metadata of Secret %s: %w", NameOf(connector.Namespace), err)
	}
	n := s.namespace(connector.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	if version(secret) < n.version {
		u := n.users[connector.Name]
		return u.record, u.retired, nil
	}
	record := decode[Record](secret.Annotations, metadata.AnnotationUserPrefix+connector.Name)
	retired := decode[Retired](secret.Annotations, retiredPrefix+connector.Name)
	if record != nil && !holdsKey(secret, connector.Name) {
		record = nil
	}
	if record != nil || retired != nil {
		n.users[connector.Name] = user{record, retired}
	}
	return record, retired, nil
}

// Known is what was last known of a Connector's user, also when the Secret is gone.
func (s *Store) Known(connector types.NamespacedName) (*Record, *Retired) {
	n := s.namespace(connector.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := n.users[connector.Name]
	return u.record, u.retired
}

// Put a user in place of the one before.
func (s *Store) Put(ctx context.Context, connector types.NamespacedName, record Record, creds []byte) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	secret := manifest(connector.Namespace)
	secret["metadata"].(map[string]any)["labels"] = map[string]any{
		metadata.LabelManagedBy: metadata.ManagedBy, metadata.LabelPartOf: metadata.PartOf,
	}
	secret["metadata"].(map[string]any)["annotations"] = map[string]any{metadata.AnnotationUserPrefix + connector.Name: string(raw)}
	secret["data"] = map[string]any{Key(connector.Name): creds}
	_, err = s.apply(ctx, connector, userOwner(connector.Name), secret, func(u *user) { u.record = &record })
	return err
}

// Retire says which users of a Connector are to be revoked; nil that none is.
func (s *Store) Retire(ctx context.Context, connector types.NamespacedName, retired *Retired) error {
	secret := manifest(connector.Namespace)
	if retired != nil {
		raw, err := json.Marshal(retired)
		if err != nil {
			return err
		}
		secret["metadata"].(map[string]any)["annotations"] = map[string]any{retiredPrefix + connector.Name: string(raw)}
	}
	_, err := s.apply(ctx, connector, retiredOwner(connector.Name), secret, func(u *user) { u.retired = retired })
	return err
}

// Remove everything of a Connector, and the Secret with the last one.
func (s *Store) Remove(ctx context.Context, connector types.NamespacedName) error {
	cached := Secret()
	err := s.client.Get(ctx, NameOf(connector.Namespace), cached)
	if apierrors.IsNotFound(err) {
		s.forget(connector)
		return nil
	}
	if err != nil {
		return err
	}
	if _, retired := s.Known(connector); retired != nil {
		if err := s.Retire(ctx, connector, nil); err != nil && !namespaceLeaves(err) {
			return err
		}
	}
	secret, err := s.apply(ctx, connector, userOwner(connector.Name), manifest(connector.Namespace), func(u *user) { u.record = nil })
	if namespaceLeaves(err) { // and has taken the Secret with it
		s.forget(connector)
		return nil
	}
	if err != nil {
		return err
	}
	s.forget(connector)
	if !isEmpty(secret) {
		return nil
	}
	uid, resourceVersion := secret.UID, secret.ResourceVersion
	err = s.client.Delete(ctx, secret, client.Preconditions{UID: &uid, ResourceVersion: &resourceVersion})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // somebody has put a key in meanwhile, or deleted it
		return nil
	}
	return err
}

// namespaceLeaves tells whether nothing can be made in a namespace because it is being deleted.
func namespaceLeaves(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func (s *Store) forget(connector types.NamespacedName) {
	n := s.namespace(connector.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(n.users, connector.Name)
}

// apply a manifest of the Secret with a field owner of its own, and note what was written.
func (s *Store) apply(ctx context.Context, connector types.NamespacedName, owner string, manifest map[string]any,
	note func(*user),
) (*metav1.PartialObjectMetadata, error) {
	data, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	n := s.namespace(connector.Namespace)
	n.writing.Lock()
	defer n.writing.Unlock()
	secret := Secret()
	secret.Namespace, secret.Name = connector.Namespace, contract.CredentialsSecret
	err = s.client.Patch(ctx, secret, client.RawPatch(types.ApplyPatchType, data), client.FieldOwner(owner), client.ForceOwnership)
	if err != nil {
		return nil, fmt.Errorf("writing Secret %s: %w", NameOf(connector.Namespace), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := n.users[connector.Name]
	note(&u)
	n.users[connector.Name] = u
	n.version = version(secret)
	return secret, nil
}

func manifest(namespace string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Secret",
		"metadata": map[string]any{"namespace": namespace, "name": contract.CredentialsSecret},
	}
}

func version(obj client.Object) uint64 {
	v, _ := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	return v
}
