package compile

import (
	"slices"
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// DefaultTableSize is the API's default, for objects that were made without it.
const DefaultTableSize = 64 << 20

// TableSize at which a table is full.
func TableSize(t *v1alpha1.Table) int64 {
	if t.Size != nil {
		return t.Size.Value()
	}
	return DefaultTableSize
}

// TableMaxAge of entries; 0 means that they stay.
func TableMaxAge(t *v1alpha1.Table) time.Duration { return duration(t.MaxAge, 0) }

// Tables that a Route fills or looks things up in, each once.
func Tables(r *v1alpha1.Route) []v1alpha1.ObjectName {
	var out []v1alpha1.ObjectName
	add := func(name v1alpha1.ObjectName) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	read := func(list []v1alpha1.Step) {
		for i := range list {
			if e := list[i].Enrich; e != nil && e.Table != nil {
				add(e.Table.Name)
			}
		}
	}
	read(r.Spec.Steps)
	for i := range r.Spec.To {
		if t := r.Spec.To[i].Table; t != nil {
			add(t.Name)
		}
		read(r.Spec.To[i].Steps)
	}
	return out
}

// TableOperation of a destination that is a table.
func TableOperation(t *v1alpha1.TableDestination) contract.TableOperation {
	return contract.TableOperation{Name: string(t.Name), Key: string(t.Key), Remove: string(t.Remove)}
}

// OnTheBus tells whether a destination is the bus itself, an event or a table: the relay's.
func OnTheBus(d *v1alpha1.Destination) bool { return d.Event != nil || d.Table != nil }

// NeedsRelay tells whether a Route has a destination that is the bus itself.
func NeedsRelay(r *v1alpha1.Route) bool {
	return slices.ContainsFunc(r.Spec.To, func(d v1alpha1.Destination) bool { return OnTheBus(&d) })
}
