package connector

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// observe reads everything that a pass looks at. What the Integration lacks is no error here: the status of the pods is told all the same.
func (r *Reconciler) observe(ctx context.Context, s *scope) error {
	key := s.key()
	if err := r.observePods(ctx, s); err != nil {
		return err
	}
	record, retired, err := r.Credentials.Find(ctx, key)
	if err != nil {
		return err
	}
	s.record, s.retired = record, retired
	routes, err := r.routes(ctx, s)
	if err != nil {
		return err
	}
	s.attached = len(routes)
	name := types.NamespacedName{Namespace: key.Namespace, Name: string(s.connector.Spec.IntegrationRef.Name)}
	s.area, s.areaErr = r.Areas.Of(ctx, name)
	if s.area.Session != nil {
		s.reports = s.area.Session.Reports(key.Namespace, key.Name)
	}
	if err := r.observeSchema(ctx, s); err != nil {
		return err
	}
	if s.areaErr != nil || !s.runsRoutes() {
		return nil
	}
	return r.observeRoutes(ctx, s, routes)
}

// routes that name the Connector or, of a relay, have destinations on the bus.
func (r *Reconciler) routes(ctx context.Context, s *scope) ([]v1alpha1.Route, error) {
	if s.relayOf != nil {
		return refs.RelayedRoutes(ctx, r.Client, client.ObjectKeyFromObject(s.relayOf))
	}
	return refs.RoutesNaming(ctx, r.Client, s.key())
}

// serves tells whether a destination ends here.
func (s *scope) serves(route *v1alpha1.Route, to *v1alpha1.Destination) bool {
	if s.relayOf != nil {
		return compile.OnTheBus(to)
	}
	return string(to.Connector) == s.connector.Name && refs.CheckDestination(route, to, s.connector) == nil
}

func (r *Reconciler) observePods(ctx context.Context, s *scope) error {
	key := s.key()
	deployment := &appsv1.Deployment{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: metadata.ConnectorName(key.Name)}, deployment)
	switch {
	case err == nil && metav1.IsControlledBy(deployment, s.owner()):
		s.deployment = deployment
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("reading Deployment: %w", err)
	}
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingLabels{metadata.LabelConnector: key.Name}); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp.IsZero() && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
			s.pods = append(s.pods, p)
		}
	}
	return nil
}

// calls tells whether a Route's requests come in here, to be passed on to a service.
func (s *scope) calls(route *v1alpha1.Route) bool {
	name := v1alpha1.ObjectName(s.connector.Name)
	return !s.isSink() && route.Spec.Call != nil && refs.CheckSource(route, name, s.connector) == nil &&
		slices.ContainsFunc(route.Spec.From, func(f v1alpha1.RouteFrom) bool { return f.Connector == name })
}

// observeRoutes compiles the destinations that end in the Connector, and the calls that begin in it. Routes that are refused are left out:
// their own status says why, and their messages wait; one whose schema is missing or invalid stays as it is deployed.
func (r *Reconciler) observeRoutes(ctx context.Context, s *scope, routes []v1alpha1.Route) error {
	for n := range routes {
		route := &routes[n]
		if !route.DeletionTimestamp.IsZero() || len(r.Valid.Route(route)) > 0 {
			continue
		}
		resolved, err := r.Schemas.Route(ctx, route)
		if _, e := outcome.Of(err); e != nil {
			if err := r.keepRoute(ctx, s, route); err != nil {
				return err
			}
			continue
		} else if err != nil {
			return err
		}
		route = resolved
		if s.calls(route) {
			s.made = append(s.made, compile.Call(s.area.Integration, route))
		}
		for d := range route.Spec.To {
			to := &route.Spec.To[d]
			if !s.serves(route, to) {
				continue
			}
			compiled, err := compile.Route(s.area.Integration, route, to)
			if err != nil {
				return err
			}
			s.routes = append(s.routes, compiled)
		}
	}
	return nil
}

// brokerGone tells whether a Broker of a record no longer exists, so that its users are worth nothing.
func (r *Reconciler) brokerGone(ctx context.Context, name string, uid types.UID) (types.NamespacedName, bool, error) {
	key := parseName(name)
	broker := &v1alpha1.Broker{}
	err := r.Client.Get(ctx, key, broker)
	if apierrors.IsNotFound(err) {
		return key, true, nil
	}
	return key, err == nil && broker.UID != uid, err
}

// exists asks the API server itself whether a Connector is there, or the Integration of a relay.
func (r *Reconciler) exists(ctx context.Context, key types.NamespacedName) (bool, error) {
	c := refs.Metadata(v1alpha1.GroupVersion.String(), "Connector")
	if integration, ok := contract.RelayOf(key.Name); ok {
		c = refs.Metadata(v1alpha1.GroupVersion.String(), "Integration")
		key.Name = integration
	}
	err := r.Live.Get(ctx, key, c)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// configMaps of a Connector, metadata only.
func (r *Reconciler) configMaps(ctx context.Context, key types.NamespacedName) ([]metav1.PartialObjectMetadata, error) {
	list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
	err := r.Client.List(ctx, list, client.InNamespace(key.Namespace), client.MatchingLabels{metadata.LabelConnector: key.Name})
	return list.Items, err
}
