package catalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

func TestCatalogue(t *testing.T) {
	systems := Systems()
	if !slices.IsSortedFunc(systems, func(a, b sdk.System) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the catalogue is not sorted by name")
	}
	for _, s := range systems {
		if s.Source == nil && s.Sink == nil && s.Service == nil {
			t.Errorf("%s is neither source, sink nor service", s.Name)
		}
		if found, ok := Lookup(s.Name); !ok || found.Name != s.Name {
			t.Errorf("%s is not found", s.Name)
		}
	}
	if _, ok := Lookup("fax"); ok {
		t.Error("there is a system called fax")
	}
}
