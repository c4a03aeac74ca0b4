package integration

import (
	"context"
	"fmt"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/metrics"
	"github.com/metip/metip/controllers/internal/refs"
)

// wantedTables of an Integration, as the broker is to have them.
func wantedTables(i *v1alpha1.Integration) []bus.Table {
	var out []bus.Table
	for n := range i.Spec.Tables {
		t := &i.Spec.Tables[n]
		out = append(out, bus.Table{Name: string(t.Name), MaxBytes: compile.TableSize(t), MaxAge: compile.TableMaxAge(t)})
	}
	return out
}

// reconcileTables removes the tables that are no longer in the spec, with their entries, once no Route names them. The cache may lag behind, so
// that the API server has the last word.
func (r *Reconciler) reconcileTables(ctx context.Context, s *scope) error {
	if r.Backlog != nil && s.integration.DeletionTimestamp.IsZero() {
		var list []metrics.Table
		for _, t := range s.storage.Tables {
			list = append(list, metrics.Table{Name: t.Name, Bytes: uint64(max(0, t.Bytes)), Entries: t.Entries})
		}
		r.Backlog.SetTables(s.key(), list, s.now)
	}
	for _, t := range s.storage.Tables {
		name := v1alpha1.ObjectName(t.Name)
		if hasTable(s.integration, name) || s.namesTable(name) {
			continue
		}
		live := &v1alpha1.Integration{}
		if err := r.Live.Get(ctx, s.key(), live); err != nil {
			return fmt.Errorf("reading Integration %s: %w", s.key(), err)
		}
		if live.UID != s.integration.UID || hasTable(live, name) {
			continue
		}
		if err := s.area.Session.DeleteTable(ctx, live.Namespace, live.Name, t.Name); err != nil {
			return refs.BusOutcome(err)
		}
		ctrl.LoggerFrom(ctx).Info("removed a lookup table that is not in the spec any more", "table", t.Name, "entries", t.Entries)
	}
	return nil
}

func hasTable(i *v1alpha1.Integration, name v1alpha1.ObjectName) bool {
	return slices.ContainsFunc(i.Spec.Tables, func(t v1alpha1.Table) bool { return t.Name == name })
}

func (s *scope) namesTable(name v1alpha1.ObjectName) bool {
	return slices.ContainsFunc(s.routes, func(r v1alpha1.Route) bool { return slices.Contains(compile.Tables(&r), name) })
}

// fullTable is the first table of which more than limit percent are full; nil if there is none.
func fullTable(list []bus.TableState, limit int64) *bus.TableState {
	for n := range list {
		if percent(list[n].Bytes, list[n].MaxBytes) >= limit {
			return &list[n]
		}
	}
	return nil
}

func lowTable(t *bus.TableState) string {
	return fmt.Sprintf("table %s is more than %d%% full of %d MiB: raise spec.tables[%s].size, set its maxAge, or remove entries",
		t.Name, min(percent(t.Bytes, t.MaxBytes)/5*5, 100), t.MaxBytes>>20, t.Name)
}
