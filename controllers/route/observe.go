package route

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// observe reads the Integration, the Connectors and what their pods report. A Connector that is missing is no error yet: the durable
// consumers are made first.
func (r *Reconciler) observe(ctx context.Context, s *scope) error {
	if err := r.observeConnectors(ctx, s); err != nil {
		return err
	}
	if err := r.observeSchemas(ctx, s); err != nil {
		return err
	}
	area, err := r.Areas.Of(ctx, types.NamespacedName{Namespace: s.route.Namespace, Name: string(s.route.Spec.IntegrationRef.Name)})
	s.area = area
	if err != nil {
		return err
	}
	if err := refs.CheckTables(s.route, area.Integration); err != nil && s.unresolved == nil {
		s.unresolved = err // which is no error for the pods: messages wait for it
	}
	if s.call != nil {
		return r.observeCallers(ctx, s)
	}
	for i := range s.destinations {
		if compile.OnTheBus(s.destinations[i].spec) {
			s.destinations[i].connector = refs.Relay(area.Integration)
		}
		if err := r.observeDelivery(ctx, s, &s.destinations[i]); err != nil {
			return err
		}
	}
	return nil
}

// observeSchemas reads the schemas that are in ConfigMaps. While one is missing or invalid, the pods run what they ran before.
func (r *Reconciler) observeSchemas(ctx context.Context, s *scope) error {
	resolved, err := r.Schemas.Route(ctx, s.route)
	if _, e := outcome.Of(err); err != nil && e == nil {
		return err
	}
	if err == nil {
		s.resolved = resolved
	} else if s.unresolved == nil {
		s.unresolved = err
	}
	return nil
}

func (r *Reconciler) observeConnectors(ctx context.Context, s *scope) error {
	for _, f := range s.route.Spec.From {
		if f.Events != nil {
			continue
		}
		c, err := r.connector(ctx, s, f.Connector)
		if err != nil {
			return err
		}
		s.sources[string(f.Connector)] = c
		if err := refs.CheckSource(s.route, f.Connector, c); err != nil && s.unresolved == nil {
			s.unresolved = err
		}
	}
	if err := r.observeAsked(ctx, s); err != nil {
		return err
	}
	if s.call != nil {
		return r.observeService(ctx, s)
	}
	for i := range s.route.Spec.To {
		d := destination{spec: &s.route.Spec.To[i]}
		if compile.OnTheBus(d.spec) { // whose pods are the relay's, see observe
			s.destinations = append(s.destinations, d)
			continue
		}
		var err error
		if d.connector, err = r.connector(ctx, s, d.spec.Connector); err != nil {
			return err
		}
		if d.refused = refs.CheckDestination(s.route, d.spec, d.connector); d.refused != nil && s.unresolved == nil {
			s.unresolved = d.refused
		}
		s.destinations = append(s.destinations, d)
	}
	return nil
}

func (r *Reconciler) connector(ctx context.Context, s *scope, name v1alpha1.ObjectName) (*v1alpha1.Connector, error) {
	c := &v1alpha1.Connector{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: s.route.Namespace, Name: string(name)}, c)
	if apierrors.IsNotFound(err) || err == nil && !c.DeletionTimestamp.IsZero() {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Connector %s: %w", name, err)
	}
	return c, nil
}

// observeDelivery finds out whether the Connector's pods run the destination as it is now, and what they say of it.
func (r *Reconciler) observeDelivery(ctx context.Context, s *scope, d *destination) error {
	if d.connector == nil || d.connector.Status.ConfigHash == "" {
		return nil
	}
	if s.area.Session != nil {
		d.reports = s.area.Session.Reports(s.route.Namespace, d.connector.Name)
	}
	digests, err := r.digests(ctx, d.connector, d.connector.Status.ConfigHash)
	if err != nil || digests == nil || s.resolved == nil {
		return err
	}
	at := slices.IndexFunc(s.resolved.Spec.To, func(to v1alpha1.Destination) bool { return to.Name == d.spec.Name })
	compiled, err := compile.Route(s.area.Integration, s.resolved, &s.resolved.Spec.To[at])
	if err != nil {
		return err
	}
	digest, err := compile.RouteDigest(compiled)
	if err != nil {
		return err
	}
	key := compile.RouteKey(s.route.Name, string(d.spec.Name))
	d.taken = digests[key] == digest
	d.former, err = r.former(ctx, d.connector, d.reports, key, digest)
	return err
}

// digests of the Routes that a Connector's present configuration holds; nil while there is none.
func (r *Reconciler) digests(ctx context.Context, c *v1alpha1.Connector, hash string) (map[string]string, error) {
	if hash == "" {
		return nil, nil
	}
	configMap := refs.Metadata("v1", "ConfigMap")
	key := types.NamespacedName{Namespace: c.Namespace, Name: metadata.ConfigName(c.Name, hash)}
	if err := r.Client.Get(ctx, key, configMap); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the metadata of ConfigMap %s: %w", key, err)
	}
	var digests map[string]string
	if json.Unmarshal([]byte(configMap.Annotations[metadata.AnnotationRoutes]), &digests) != nil {
		return nil, nil
	}
	return digests, nil
}

// former finds a pod at work by another configuration than the present one, in which a destination or call (a RouteKey) is not what its digest
// says: it goes on as the Route said before, until it drains or is gone. "" says that there is none.
func (r *Reconciler) former(ctx context.Context, c *v1alpha1.Connector, reports []bus.PodReport, key, digest string) (string, error) {
	for _, p := range reports {
		if p.Report.Draining || p.Report.ConfigHash == c.Status.ConfigHash {
			continue
		}
		digests, err := r.digests(ctx, c, p.Report.ConfigHash)
		if err != nil {
			return "", err
		}
		if was, ok := digests[key]; digests != nil && (!ok || was == digest) {
			continue
		}
		pod := &corev1.Pod{} // of one that was killed the last report stays for a while
		err = r.Client.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: p.Pod}, pod)
		switch {
		case err == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed:
			return p.Pod, nil
		case client.IgnoreNotFound(err) != nil:
			return "", fmt.Errorf("reading Pod %s: %w", p.Pod, err)
		}
	}
	return "", nil
}

// isHold tells whether an error means that nothing is known yet.
func isHold(err error) bool {
	_, e := outcome.Of(err)
	return e != nil && e.Hold
}
