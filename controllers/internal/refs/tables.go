package refs

import (
	"slices"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/compile"
)

// CheckTables tells whether an Integration has the tables that a Route names.
func CheckTables(r *v1alpha1.Route, i *v1alpha1.Integration) error {
	for _, name := range compile.Tables(r) {
		if !slices.ContainsFunc(i.Spec.Tables, func(t v1alpha1.Table) bool { return t.Name == name }) {
			return refused(v1alpha1.ReasonTableNotFound, "Integration %s has no table %s: add it to its spec.tables (`tables: [{name: %s}]`), or correct the name", i.Name, name, name)
		}
	}
	return nil
}
