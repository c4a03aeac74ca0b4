package validate

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
)

func TestTable(t *testing.T) {
	for name, c := range map[string]struct {
		table v1alpha1.TableDestination
		want  string
	}{
		"good":       {v1alpha1.TableDestination{Name: "wards", Key: "data.code", Remove: "has(data.closed)"}, ""},
		"bad key":    {v1alpha1.TableDestination{Name: "wards", Key: "data."}, "spec.to[x].table.key: line 1, column 6"},
		"bad remove": {v1alpha1.TableDestination{Name: "wards", Key: "id", Remove: "1"}, "spec.to[x].table.remove: line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &v1alpha1.Route{}
			r.Spec.From, r.Spec.To = []v1alpha1.RouteFrom{{Connector: "in"}}, []v1alpha1.Destination{{Name: "x", Table: &c.table}}
			err, got := Outcome(Route(r)), ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, c.want) || (c.want == "") != (err == nil) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
