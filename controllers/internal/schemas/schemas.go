package schemas

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/validate"
)

// maxKept of texts, in bytes: what is read again for every pass of every object beyond that.
const maxKept = 16 << 20

// Resolver reads schemas.
type Resolver struct {
	// Watch has the metadata of users' ConfigMaps.
	Watch Watch
	// Live reads a ConfigMap itself, without a cache.
	Live client.Reader
	// Valid remembers which schemas compile.
	Valid *validate.Memo

	mu    sync.Mutex
	kept  map[place]text
	bytes int
}

// Watch of ConfigMaps' metadata.
type Watch interface {
	// ResourceVersion of a ConfigMap; empty when there is none.
	ResourceVersion(ctx context.Context, name types.NamespacedName) (string, error)
}

// place of a text.
type place struct {
	types.NamespacedName
	key string
}

// text of one version of a ConfigMap.
type text struct{ resourceVersion, text string }

// Route with the texts of all its schemas: itself where none is in a ConfigMap, else a copy. An error that is an outcome says what is missing, or
// what does not compile; any other is the reader's.
func (r *Resolver) Route(ctx context.Context, route *v1alpha1.Route) (*v1alpha1.Route, error) {
	if !refers(refs.RouteSchemas(route)) {
		return route, nil
	}
	route = route.DeepCopy()
	version, err := r.fill(ctx, route.Namespace, route.Generation, refs.RouteSchemas(route))
	if err != nil {
		return nil, err
	}
	return route, invalid(validate.Outcome(r.Valid.ResolvedRoute(route, version)))
}

// Connector is Route for a Connector.
func (r *Resolver) Connector(ctx context.Context, c *v1alpha1.Connector) (*v1alpha1.Connector, error) {
	if !refers(refs.ConnectorSchemas(c)) {
		return c, nil
	}
	c = c.DeepCopy()
	version, err := r.fill(ctx, c.Namespace, c.Generation, refs.ConnectorSchemas(c))
	if err != nil {
		return nil, err
	}
	return c, invalid(validate.Outcome(r.Valid.ResolvedConnector(c, version)))
}

func refers(list []*v1alpha1.SchemaSource) bool {
	for _, s := range list {
		if s.ConfigMap != nil {
			return true
		}
	}
	return false
}

// invalid says that the remedy is a change of the ConfigMap, which is watched.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return outcome.Stall(v1alpha1.ReasonInvalidSchema, "%w", err).On(v1alpha1.ConditionAccepted)
}

// fill in the texts. The version stands for them and the generation.
func (r *Resolver) fill(ctx context.Context, namespace string, generation int64, list []*v1alpha1.SchemaSource) (version int64, err error) {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, strconv.FormatInt(generation, 10)) // a hash takes everything
	for _, s := range list {
		if s.ConfigMap == nil {
			continue
		}
		at := place{types.NamespacedName{Namespace: namespace, Name: s.ConfigMap.Name}, s.ConfigMap.Key}
		if s.Inline, err = r.read(ctx, at); err != nil {
			return 0, err
		}
		_, _ = io.WriteString(sum, "\x00"+s.Inline)
	}
	return int64(sum.Sum64()), nil
}

// read a text, if it is not known.
func (r *Resolver) read(ctx context.Context, at place) (string, error) {
	version, err := r.Watch.ResourceVersion(ctx, at.NamespacedName)
	if err != nil {
		return "", fmt.Errorf("reading the metadata of ConfigMap %s: %w", at.NamespacedName, err)
	}
	if version == "" {
		return "", missing("there is no ConfigMap %s in namespace %s: create it, with the schema under the key %s", at.Name, at.Namespace, at.key)
	}
	r.mu.Lock()
	known, ok := r.kept[at]
	r.mu.Unlock()
	if ok && known.resourceVersion == version {
		return known.text, nil
	}
	m := &corev1.ConfigMap{}
	if err := r.Live.Get(ctx, at.NamespacedName, m); apierrors.IsNotFound(err) {
		return "", missing("there is no ConfigMap %s in namespace %s: create it, with the schema under the key %s", at.Name, at.Namespace, at.key)
	} else if err != nil {
		return "", fmt.Errorf("reading ConfigMap %s: %w", at.NamespacedName, err)
	}
	value, ok := m.Data[at.key]
	switch {
	case !ok || value == "":
		return "", missing("ConfigMap %s has nothing under the key %s, where a schema should be", at.Name, at.key)
	case len(value) > steps.MaxSchema:
		return "", outcome.Stall(v1alpha1.ReasonInvalidSchema, "the schema in ConfigMap %s, key %s, has %d KiB, and at most %d KiB are allowed",
			at.Name, at.key, (len(value)+1023)>>10, steps.MaxSchema>>10).On(v1alpha1.ConditionAccepted)
	}
	r.keep(at, text{m.ResourceVersion, value})
	return value, nil
}

// keep a text; when there are too many, they are all read again.
func (r *Resolver) keep(at place, t text) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += len(t.text) - len(r.kept[at].text)
	if r.kept == nil || r.bytes > maxKept {
		r.kept, r.bytes = map[place]text{}, len(t.text)
	}
	r.kept[at] = t
}

// missing waits: ConfigMaps are watched.
func missing(format string, a ...any) error {
	return outcome.Wait(v1alpha1.ReasonSchemaNotFound, format, a...).On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
}
