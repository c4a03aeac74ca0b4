package compile_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
)

func TestTables(t *testing.T) {
	look := v1alpha1.Step{Enrich: &v1alpha1.Enrich{Table: &v1alpha1.EnrichTable{Name: "codes", Key: "data.code"}, Into: "code", Cache: &v1alpha1.EnrichCache{TTL: "1m"}}}
	r := &v1alpha1.Route{}
	r.Namespace, r.Name = "ns", "r"
	r.Spec.Steps = []v1alpha1.Step{look}
	r.Spec.To = []v1alpha1.Destination{
		{Name: "known", Table: &v1alpha1.TableDestination{Name: "wards", Key: "id", Remove: "has(data.closed)"}, Steps: []v1alpha1.Step{look}},
	}
	got, err := compile.Route(integration(), r, &r.Spec.To[0])
	if err != nil {
		t.Fatal(err)
	}
	want := &contract.Enrich{
		Table: "codes", Key: "data.code", Into: "code", Timeout: contract.Duration(3 * time.Second), Cache: &contract.EnrichCache{TTL: contract.Duration(time.Minute), Entries: 1000},
	}
	if d := cmp.Diff(want, got.Steps[0].Enrich); d != "" {
		t.Error(d)
	}
	if op := string(got.Operation); op != `{"table":{"name":"wards","key":"id","remove":"has(data.closed)"}}` {
		t.Error(op)
	}
	if names := compile.Tables(r); !slices.Equal(names, []v1alpha1.ObjectName{"codes", "wards"}) {
		t.Error(names)
	}
	if !compile.NeedsRelay(r) {
		t.Error("a table needs no relay")
	}
	if r.Spec.To = []v1alpha1.Destination{{Name: "x", Connector: "x", Steps: []v1alpha1.Step{look}}}; compile.NeedsRelay(r) {
		t.Error("reading a table needs a relay")
	}
	size, age := resource.MustParse("2Mi"), v1alpha1.Duration("2h")
	for _, c := range []struct {
		table v1alpha1.Table
		size  int64
		age   time.Duration
	}{{v1alpha1.Table{}, 64 << 20, 0}, {v1alpha1.Table{Size: &size, MaxAge: &age}, 2 << 20, 2 * time.Hour}} {
		if size, age := compile.TableSize(&c.table), compile.TableMaxAge(&c.table); size != c.size || age != c.age {
			t.Errorf("%d bytes, %s", size, age)
		}
	}
}
