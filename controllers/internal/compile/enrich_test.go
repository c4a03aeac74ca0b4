package compile_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
)

func TestEnrich(t *testing.T) {
	plain := v1alpha1.Enrich{Call: &v1alpha1.EnrichCall{Connector: "svc"}, Into: "person"}
	full := v1alpha1.Enrich{
		Call: &v1alpha1.EnrichCall{
			Connector: "other", Method: "POST", Path: "/{id}", Query: map[string]v1alpha1.Template{"a": "{data.a}"}, Headers: map[string]v1alpha1.Template{"X-A": "1"}, Body: "data",
		},
		Into: "a.b", Default: "null", Timeout: "500ms", Cache: &v1alpha1.EnrichCache{TTL: "1m"},
	}
	r := &v1alpha1.Route{}
	r.Namespace, r.Name = "ns", "r"
	r.Spec.Steps = []v1alpha1.Step{{Enrich: &plain}, {Enrich: &full}}
	r.Spec.To = []v1alpha1.Destination{{Name: "out", Connector: "out", Steps: []v1alpha1.Step{{Enrich: &plain}}}}
	got, err := compile.Route(integration(), r, &r.Spec.To[0])
	if err != nil {
		t.Fatal(err)
	}
	short := &contract.Enrich{Service: "svc", Method: "GET", Into: "person", Timeout: contract.Duration(3 * time.Second)}
	want := []contract.Step{
		{Name: "steps[0]", Enrich: short},
		{Name: "steps[1]", Enrich: &contract.Enrich{
			Service: "other", Method: "POST", Path: "/{id}", Query: map[string]string{"a": "{data.a}"}, Headers: map[string]string{"X-A": "1"}, Body: "data",
			Into: "a.b", Default: "null", Timeout: contract.Duration(500 * time.Millisecond), Cache: &contract.EnrichCache{TTL: contract.Duration(time.Minute), Entries: 1000},
		}},
		{Name: "to[out].steps[0]", Enrich: short},
	}
	if d := cmp.Diff(want, got.Steps); d != "" {
		t.Error(d)
	}
	services := []contract.ServiceRef{{Integration: "default", Service: "svc"}, {Integration: "default", Service: "other"}}
	if d := cmp.Diff(services, contract.EnrichServices([]contract.Route{got, got})); d != "" {
		t.Error("services:", d)
	}
}
