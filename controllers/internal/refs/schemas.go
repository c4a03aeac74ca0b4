package refs

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

// indexSchemas has the names of the ConfigMaps that an object's schemas are in.
const indexSchemas = "schemas"

// RouteSchemas are the schemas of a Route's steps.
func RouteSchemas(r *v1alpha1.Route) []*v1alpha1.SchemaSource {
	out := stepSchemas(nil, r.Spec.Steps)
	for i := range r.Spec.To {
		out = stepSchemas(out, r.Spec.To[i].Steps)
	}
	if r.Spec.Call != nil && r.Spec.Call.Response != nil {
		out = stepSchemas(out, r.Spec.Call.Response.Steps)
	}
	return out
}

func stepSchemas(out []*v1alpha1.SchemaSource, list []v1alpha1.Step) []*v1alpha1.SchemaSource {
	for i := range list {
		if v := list[i].Validate; v != nil && v.JSONSchema != nil {
			out = append(out, v.JSONSchema)
		}
		if c := list[i].Convert; c != nil && c.Avro != nil {
			out = append(out, &c.Avro.Schema)
		}
	}
	return out
}

// ConnectorSchemas are the schemas of a Connector.
func ConnectorSchemas(c *v1alpha1.Connector) []*v1alpha1.SchemaSource {
	if c.Spec.Source == nil || c.Spec.Source.Schema == nil {
		return nil
	}
	return []*v1alpha1.SchemaSource{c.Spec.Source.Schema}
}

// configMaps of schemas, each once.
func configMaps(list []*v1alpha1.SchemaSource) []string {
	var out []string
	for _, s := range list {
		if s.ConfigMap != nil {
			out = append(out, s.ConfigMap.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// RoutesWithSchema in a ConfigMap.
func RoutesWithSchema(ctx context.Context, c client.Reader, configMap types.NamespacedName) ([]v1alpha1.Route, error) {
	return routes(ctx, c, configMap, indexSchemas)
}

// ConnectorsWithSchema in a ConfigMap.
func ConnectorsWithSchema(ctx context.Context, c client.Reader, configMap types.NamespacedName) ([]v1alpha1.Connector, error) {
	var list v1alpha1.ConnectorList
	err := c.List(ctx, &list, client.InNamespace(configMap.Namespace), client.MatchingFields{indexSchemas: configMap.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the Connectors whose schema is in ConfigMap %s: %w", configMap, err)
	}
	return list.Items, nil
}
