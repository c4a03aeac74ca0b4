package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
)

func TestCollector(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	condition := func(name string, status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: name, Status: status, Reason: reason, LastTransitionTime: metav1.Unix(1000, 0)}
	}
	good := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "good"}}
	good.Status.Conditions = []metav1.Condition{condition("Ready", "True", "Ready")}
	good.Status.CredentialExpiry = &metav1.Time{Time: time.Unix(5000, 0)}
	down := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "down"}}
	down.Status.Conditions = []metav1.Condition{condition("Ready", "False", "ConnectionFailed")}
	held := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "held"}, Spec: v1alpha1.RouteSpec{Suspend: new(true)}}
	held.Status.Conditions = []metav1.Condition{condition("Ready", "False", "Suspended"), condition("Suspended", "True", "BacklogHeld")}
	with := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "with-its-integration"}}
	with.Status.Conditions = held.Status.Conditions

	at := time.Now()
	counts := &Backlog{}
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: name} }
	counts.Set(key("moved-from"), map[Destination]uint64{{"held", "db"}: 1}, at)
	counts.Set(key("moved-to"), map[Destination]uint64{{"held", "db"}: 2, {"held", "api"}: 0}, at)
	counts.Set(key("not-heard-of"), map[Destination]uint64{{"silent", "db"}: 3}, at.Add(-time.Hour))
	counts.Set(key("replaced"), map[Destination]uint64{{"former", "db"}: 4}, at)
	counts.Set(key("replaced"), nil, at)
	counts.Set(key("gone"), map[Destination]uint64{{"gone", "db"}: 5}, at)
	counts.SetTables(key("gone"), []Table{{"gone", 1, 1}}, at)
	counts.Forget(key("gone"))
	counts.SetTables(key("held"), []Table{{"wards", 2048, 2}}, at)
	counts.SetTables(key("not-heard-of"), []Table{{"silent", 1, 1}}, at.Add(-time.Hour))
	counts.SetTables(key("replaced"), []Table{{"former", 1, 1}}, at)
	counts.SetTables(key("replaced"), nil, at)
	c := &Collector{
		Backlog:     counts,
		Reader:      fake.NewClientBuilder().WithScheme(scheme).WithObjects(good, down, held, with).Build(),
		Certificate: func() time.Time { return time.Unix(9000, 0) },
		Claims: func(f func(types.NamespacedName, bus.ClaimCount)) {
			f(key("large"), bus.ClaimCount{Held: 2, HeldBytes: 9, Dropped: 3, DroppedBytes: 11})
		},
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got = append(got, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, " "), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	want := []string{
		"metip_claims{large ns} 2",
		"metip_claims_bytes{large ns} 9",
		"metip_claims_dropped_bytes_total{large ns} 11",
		"metip_claims_dropped_total{large ns} 3",
		"metip_connector_credential_expiry_timestamp_seconds{good ns} 5000",
		"metip_object_not_ready{Connector down ns ConnectionFailed} 1",
		"metip_object_not_ready{Route held ns Suspended} 1",
		"metip_object_not_ready{Route with-its-integration ns Suspended} 1",
		"metip_object_suspended_since_timestamp_seconds{Route held ns} 1000",
		"metip_objects{Connector False} 1",
		"metip_objects{Connector True} 1",
		"metip_objects{Route False} 2",
		"metip_route_destination_pending{api ns held} 0",
		"metip_route_destination_pending{db ns held} 3",
		"metip_table_bytes{held ns wards} 2048",
		"metip_table_entries{held ns wards} 2",
		"metip_webhook_certificate_expiry_timestamp_seconds{} 9000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
