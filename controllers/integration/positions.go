package integration

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/refs"
)

// reconcilePositions removes the positions of sources that are gone. One whose system has changed keeps its own: it may change back. The cache may
// lag behind, so that the API server has the last word.
func (r *Reconciler) reconcilePositions(ctx context.Context, s *scope) error {
	i := s.integration
	kept, err := s.area.Session.Positions(ctx, i.Namespace, i.Name)
	if err != nil {
		return refs.BusOutcome(err)
	}
	kept = slices.DeleteFunc(kept, func(uid types.UID) bool { return hasConnector(s.connectors, uid) })
	if len(kept) == 0 {
		return nil
	}
	var list v1alpha1.ConnectorList
	if err := r.Live.List(ctx, &list, inNamespace(i.Namespace)); err != nil {
		return fmt.Errorf("listing Connectors: %w", err)
	}
	for _, uid := range kept {
		if hasConnector(list.Items, uid) {
			continue
		}
		if err := s.area.Session.PurgePosition(ctx, i.Namespace, i.Name, uid); err != nil {
			return refs.BusOutcome(err)
		}
		ctrl.LoggerFrom(ctx).Info("removed the position of a source that is gone", "connector", uid)
	}
	return nil
}

func hasConnector(list []v1alpha1.Connector, uid types.UID) bool {
	return slices.ContainsFunc(list, func(c v1alpha1.Connector) bool { return c.UID == uid })
}
