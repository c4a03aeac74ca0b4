package refs

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
)

// Relay of an Integration as a Connector that nobody has written: a sink with the status that the Integration keeps of it. Its name is
// none that the API server would take.
func Relay(i *v1alpha1.Integration) *v1alpha1.Connector {
	c := &v1alpha1.Connector{
		Spec: v1alpha1.ConnectorSpec{
			IntegrationRef: v1alpha1.LocalRef{Name: v1alpha1.ObjectName(i.Name)}, Sink: &v1alpha1.Sink{}, Replicas: new(int32(1)),
		},
	}
	c.Namespace, c.Name, c.UID = i.Namespace, contract.RelayName(i.Name), i.UID
	c.Generation, c.CreationTimestamp = i.Generation, i.CreationTimestamp
	if s := i.Status.Relay; s != nil {
		c.Status = v1alpha1.ConnectorStatus{
			ObservedGeneration: s.ObservedGeneration, Conditions: slices.Clone(s.Conditions), AttachedRoutes: s.AttachedRoutes,
			Replicas: s.Replicas, ConfigHash: s.ConfigHash, CredentialExpiry: s.CredentialExpiry,
		}
	}
	return c
}

// RelayedRoutes of an Integration are those that need its relay; what is being deleted needs nothing.
func RelayedRoutes(ctx context.Context, c client.Reader, integration types.NamespacedName) ([]v1alpha1.Route, error) {
	list, err := RoutesOf(ctx, c, integration)
	return slices.DeleteFunc(list, func(r v1alpha1.Route) bool { return !r.DeletionTimestamp.IsZero() || !compile.NeedsRelay(&r) }), err
}
