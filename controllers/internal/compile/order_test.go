package compile

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func TestOrderIsOfOneLevel(t *testing.T) {
	perKey := func(lanes int32, key v1alpha1.Expression) *v1alpha1.Delivery {
		return &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: lanes, Key: key}
	}
	for _, c := range []struct {
		name               string
		destination, route *v1alpha1.Delivery
		integration        *v1alpha1.Delivery
		want               contract.Delivery
	}{
		{"none", nil, nil, nil, contract.Delivery{}},
		{"the Route's", nil, perKey(0, ""), nil, contract.Delivery{Order: contract.OrderPerKey, Lanes: 4}},
		{"lanes", nil, perKey(16, ""), nil, contract.Delivery{Order: contract.OrderPerKey, Lanes: 16}},
		{"a key of its own", nil, perKey(0, "data.id"), nil, contract.Delivery{Order: contract.OrderPerKey, Lanes: 1, Key: "data.id"}},
		{"the destination's, with nothing of the Route's", &v1alpha1.Delivery{Order: v1alpha1.OrderStrict}, perKey(8, ""), nil, contract.Delivery{Order: contract.OrderStrict, Lanes: 1}},
		{"the destination's none", &v1alpha1.Delivery{Order: v1alpha1.OrderNone}, perKey(8, ""), nil, contract.Delivery{}},
		{"a destination that says something else", &v1alpha1.Delivery{Timeout: new(v1alpha1.Duration("5s"))}, perKey(2, ""), nil, contract.Delivery{Order: contract.OrderPerKey, Lanes: 2}},
		{"never the Integration's", nil, nil, perKey(2, ""), contract.Delivery{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &v1alpha1.Route{Spec: v1alpha1.RouteSpec{Delivery: c.route, To: []v1alpha1.Destination{{Name: "db", Connector: "c", Delivery: c.destination}}}}
			compiled, err := Route(&v1alpha1.Integration{Spec: v1alpha1.IntegrationSpec{Delivery: c.integration}}, r, &r.Spec.To[0])
			if err != nil {
				t.Fatal(err)
			}
			got := contract.Delivery{Order: compiled.Delivery.Order, Lanes: compiled.Delivery.Lanes, Key: compiled.Delivery.Key}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDurablesOfLanes(t *testing.T) {
	r := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}}
	r.Spec.IntegrationRef.Name = "i"
	r.Spec.From = []v1alpha1.RouteFrom{{Connector: "a"}}
	r.Spec.To = []v1alpha1.Destination{{Name: "db"}, {Name: "audit", Delivery: &v1alpha1.Delivery{Order: v1alpha1.OrderStrict}}, {Name: "log", Delivery: &v1alpha1.Delivery{Order: v1alpha1.OrderNone}}}
	r.Spec.Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: 8}
	lanes := Durables(r, &r.Spec.To[0])
	if len(lanes) != 8 {
		t.Fatalf("%d durables", len(lanes))
	}
	want := Durable{Name: "ns_r_db_p3", Filters: []string{"evt.ns.i.a.3.>", "evt.ns.i.a.11.>", "rpl.ns.i.r.db.3", "rpl.ns.i.r.db.11", "mark.ns.i"}, Lanes: 8, Window: 64}
	if diff := cmp.Diff(want, lanes[3]); diff != "" {
		t.Error(diff)
	}
	want = Durable{Name: "ns_r_audit_p0", Filters: []string{"evt.ns.i.a.*.>", "rpl.ns.i.r.audit.*", "mark.ns.i"}, Lanes: 1, Window: 1}
	if diff := cmp.Diff([]Durable{want}, Durables(r, &r.Spec.To[1])); diff != "" {
		t.Error(diff)
	}
	want = Durable{Name: "ns_r_log", Filters: []string{"evt.ns.i.a.*.>", "rpl.ns.i.r.log.*", "mark.ns.i"}}
	if diff := cmp.Diff([]Durable{want}, Durables(r, &r.Spec.To[2])); diff != "" {
		t.Error(diff)
	}
}
