package connector

import (
	"context"
	"encoding/json"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// observeSchema reads the Connector's own schema. While it is missing or invalid, the one that is deployed goes on being used.
func (r *Reconciler) observeSchema(ctx context.Context, s *scope) error {
	if s.relayOf != nil { // which nobody has written
		s.resolved = s.connector
		return nil
	}
	resolved, err := r.Schemas.Connector(ctx, s.connector)
	if err == nil {
		s.resolved = resolved
		return nil
	}
	if _, e := outcome.Of(err); e == nil {
		return err
	}
	s.unresolved = err
	deployed, err := r.deployedConfig(ctx, s)
	if err != nil || deployed == nil || deployed.Source == nil || deployed.Source.Schema == nil {
		return err
	}
	s.resolved = s.connector.DeepCopy()
	s.resolved.Spec.Source.Schema.Inline = deployed.Source.Schema.Text
	return nil
}

// withoutSchema stops a Connector that has never had its schema: without it the door stays shut.
func (s *scope) withoutSchema() error {
	if s.resolved == nil {
		return s.unresolved
	}
	return nil
}

// keepRoute as it is deployed.
func (r *Reconciler) keepRoute(ctx context.Context, s *scope, route *v1alpha1.Route) error {
	deployed, err := r.deployedConfig(ctx, s)
	if err != nil || deployed == nil {
		return err
	}
	if deployed.Sink != nil {
		for i := range deployed.Sink.Routes {
			if is := &deployed.Sink.Routes[i]; is.UID == string(route.UID) && s.stillServes(route, is.Destination) {
				s.routes = append(s.routes, *is)
			}
		}
	}
	if deployed.Source != nil && s.calls(route) {
		for i := range deployed.Source.Calls {
			if is := deployed.Source.Calls[i]; is.UID == string(route.UID) {
				is.Suspended = compile.Suspended(route.Spec.Suspend) // which is no matter of what runs, but of whether
				s.made = append(s.made, is)
			}
		}
	}
	return nil
}

// stillServes tells whether a destination that is deployed ends here as the Route is now.
func (s *scope) stillServes(route *v1alpha1.Route, destination string) bool {
	for i := range route.Spec.To {
		if to := &route.Spec.To[i]; string(to.Name) == destination {
			return s.serves(route, to)
		}
	}
	return false
}

// deployedConfig is what the pods run, from the ConfigMap that holds it; nil where there is none.
func (r *Reconciler) deployedConfig(ctx context.Context, s *scope) (*contract.Config, error) {
	if s.running != nil || s.deployedHash() == "" {
		return s.running, nil
	}
	m := &corev1.ConfigMap{}
	key := types.NamespacedName{Namespace: s.connector.Namespace, Name: metadata.ConfigName(s.connector.Name, s.deployedHash())}
	if err := r.Live.Get(ctx, key, m); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
	}
	config := &contract.Config{}
	if err := json.Unmarshal([]byte(m.Data[path.Base(contract.ConfigFile)]), config); err != nil {
		return nil, nil //nolint:nilerr // another release wrote it: nothing can be taken over
	}
	s.running = config
	return config, nil
}

// schemaToConnectors maps a ConfigMap of a user to the Connectors whose schema is in it, and to those that run a Route with one.
func (r *Reconciler) schemaToConnectors(ctx context.Context, configMap types.NamespacedName) []ctrl.Request {
	var out []ctrl.Request
	connectors, err := refs.ConnectorsWithSchema(ctx, r.Client, configMap)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a ConfigMap to Connectors")
	}
	for i := range connectors {
		out = append(out, request(connectors[i].Namespace, connectors[i].Name))
	}
	routes, err := refs.RoutesWithSchema(ctx, r.Client, configMap)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a ConfigMap to Connectors")
	}
	for i := range routes {
		out = append(out, routeToConnectors(ctx, &routes[i])...)
	}
	return out
}

// schemaToRelays maps a ConfigMap of a user to the Integrations whose Routes have a schema in it.
func (r *RelayReconciler) schemaToRelays(ctx context.Context, configMap types.NamespacedName) []ctrl.Request {
	routes, err := refs.RoutesWithSchema(ctx, r.Client, configMap)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "mapping a ConfigMap to relays")
	}
	var out []ctrl.Request
	for i := range routes {
		out = append(out, routeToRelay(ctx, &routes[i])...)
	}
	return out
}
