package conformance

import (
	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/sdk"
)

// added systems, which the catalogue does not list.
var added []sdk.System

// Add a system that is not in the catalogue: somebody's own, or one that is being written. TestMain calls it, before Main.
func Add(s sdk.System) { added = append(added, s) }

// lookup a system among those that were added, and in the catalogue.
func lookup(name string) (sdk.System, bool) {
	for _, s := range added {
		if s.Name == name {
			return s, true
		}
	}
	return catalog.Lookup(name)
}
