package refs

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

// The names of indexes in the cache.
const (
	indexIntegration = "spec.integrationRef.name"
	indexConnectors  = "connectors"
)

// Index what this package looks up. It must be called once, before the manager starts.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	for _, i := range []struct {
		obj  client.Object
		name string
		keys client.IndexerFunc
	}{
		{&v1alpha1.Connector{}, indexIntegration, func(o client.Object) []string {
			return []string{string(o.(*v1alpha1.Connector).Spec.IntegrationRef.Name)}
		}},
		{&v1alpha1.Route{}, indexIntegration, func(o client.Object) []string {
			return []string{string(o.(*v1alpha1.Route).Spec.IntegrationRef.Name)}
		}},
		{&v1alpha1.Route{}, indexConnectors, func(o client.Object) []string { return Connectors(o.(*v1alpha1.Route)) }},
		{&v1alpha1.Route{}, indexSchemas, func(o client.Object) []string { return configMaps(RouteSchemas(o.(*v1alpha1.Route))) }},
		{&v1alpha1.Connector{}, indexSchemas, func(o client.Object) []string { return configMaps(ConnectorSchemas(o.(*v1alpha1.Connector))) }},
	} {
		if err := indexer.IndexField(ctx, i.obj, i.name, i.keys); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", i.obj, i.name, err)
		}
	}
	return nil
}

// Connectors that a Route names, each once.
func Connectors(r *v1alpha1.Route) []string {
	var out []string
	for _, f := range r.Spec.From {
		if f.Connector != "" {
			out = append(out, string(f.Connector))
		}
	}
	for _, d := range r.Spec.To {
		if d.Connector != "" {
			out = append(out, string(d.Connector))
		}
	}
	if r.Spec.Call != nil {
		out = append(out, string(r.Spec.Call.Connector))
	}
	for _, name := range EnrichServices(r) {
		out = append(out, string(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ConnectorsOf an Integration.
func ConnectorsOf(ctx context.Context, c client.Reader, integration types.NamespacedName) ([]v1alpha1.Connector, error) {
	var list v1alpha1.ConnectorList
	err := c.List(ctx, &list, client.InNamespace(integration.Namespace), client.MatchingFields{indexIntegration: integration.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the Connectors of %s: %w", integration, err)
	}
	return list.Items, nil
}

// RoutesOf an Integration.
func RoutesOf(ctx context.Context, c client.Reader, integration types.NamespacedName) ([]v1alpha1.Route, error) {
	return routes(ctx, c, integration, indexIntegration)
}

// RoutesNaming a Connector, as source, as destination, or as a service that they call or ask.
func RoutesNaming(ctx context.Context, c client.Reader, connector types.NamespacedName) ([]v1alpha1.Route, error) {
	return routes(ctx, c, connector, indexConnectors)
}

func routes(ctx context.Context, c client.Reader, name types.NamespacedName, index string) ([]v1alpha1.Route, error) {
	var list v1alpha1.RouteList
	if err := c.List(ctx, &list, client.InNamespace(name.Namespace), client.MatchingFields{index: name.Name}); err != nil {
		return nil, fmt.Errorf("listing the Routes of %s: %w", name, err)
	}
	return list.Items, nil
}
