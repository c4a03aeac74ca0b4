package compile

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

func TestDeliveryIsInheritedFieldByField(t *testing.T) {
	d := func(s string) *v1alpha1.Duration { return new(v1alpha1.Duration(s)) }
	for _, c := range []struct {
		name   string
		levels []*v1alpha1.Delivery
		want   contract.Delivery
	}{
		{"documented values", []*v1alpha1.Delivery{nil, nil, nil}, contract.Delivery{
			Timeout: contract.Duration(30 * time.Second), Attempts: 10,
			Backoff: contract.Duration(time.Second), MaxBackoff: contract.Duration(5 * time.Minute),
		}},
		{"each field from the nearest level", []*v1alpha1.Delivery{
			{Timeout: d("5s")},
			{Retry: &v1alpha1.Retry{Attempts: new(int32(0))}},
			{Timeout: d("1m"), Retry: &v1alpha1.Retry{Attempts: new(int32(3)), Backoff: d("2s"), MaxBackoff: d("30s")}},
		}, contract.Delivery{
			Timeout: contract.Duration(5 * time.Second), Attempts: 0,
			Backoff: contract.Duration(2 * time.Second), MaxBackoff: contract.Duration(30 * time.Second),
		}},
		{"an end, and what no answer means", []*v1alpha1.Delivery{
			{Expiry: d("0s"), Retry: &v1alpha1.Retry{OnTimeout: new(v1alpha1.TimeoutWait)}},
			{Expiry: d("15m"), Retry: &v1alpha1.Retry{OnTimeout: new(v1alpha1.TimeoutRetry)}},
		}, contract.Delivery{
			Timeout: contract.Duration(30 * time.Second), Attempts: 10,
			Backoff: contract.Duration(time.Second), MaxBackoff: contract.Duration(5 * time.Minute),
		}},
		{"an inherited end", []*v1alpha1.Delivery{nil, {Timeout: d("1s")}, {Expiry: d("15m"), Retry: &v1alpha1.Retry{OnTimeout: new(v1alpha1.TimeoutDeadLetter)}}}, contract.Delivery{
			Timeout: contract.Duration(time.Second), Attempts: 10,
			Backoff: contract.Duration(time.Second), MaxBackoff: contract.Duration(5 * time.Minute),
			OnTimeout: contract.OnTimeoutDeadLetter, Expiry: contract.Duration(15 * time.Minute),
		}},
		{"levels that contradict each other", []*v1alpha1.Delivery{{Retry: &v1alpha1.Retry{Backoff: d("10m")}}}, contract.Delivery{
			Timeout: contract.Duration(30 * time.Second), Attempts: 10,
			Backoff: contract.Duration(10 * time.Minute), MaxBackoff: contract.Duration(10 * time.Minute),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Delivery(c.levels...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	r := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}}
	r.Spec.IntegrationRef.Name = "i"
	r.Spec.From = []v1alpha1.RouteFrom{
		{Connector: "a", Types: []string{"custody.arrest", "custody.>", "custody.*", "custody.>"}},
		{Connector: "b"},
	}
	want := []string{"evt.ns.i.a.*.custody.>", "evt.ns.i.b.*.>", "rpl.ns.i.r.db.*", "mark.ns.i"}
	if diff := cmp.Diff(want, Filters(r, "db")); diff != "" {
		t.Error(diff)
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a.>", "a.b", true},
		{"a.>", "a.b.>", true},
		{"a.>", "a", false},
		{"a.*", "a.b", true},
		{"a.*", "a.>", false},
		{"a.*", "a.b.c", false},
		{"a.b", "a.*", false},
		{"*.b", "a.*", false},
	} {
		if got := covers(c.a, c.b); got != c.want {
			t.Errorf("covers(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func sink() *v1alpha1.Connector {
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "court", UID: "u", Generation: 1}}
	c.Spec.Sink = &v1alpha1.Sink{HTTP: &v1alpha1.HTTPSink{URL: "http://court"}}
	c.Spec.Auth = &v1alpha1.Auth{Bearer: &v1alpha1.BearerAuth{Token: v1alpha1.SecretKey{Name: "s", Key: "k"}}}
	return c
}

func compileSink(t *testing.T, c *v1alpha1.Connector, routes ...contract.Route) contract.Config {
	t.Helper()
	return compileAll(t, c, routes, nil)
}

func compileCalls(t *testing.T, c *v1alpha1.Connector, calls ...contract.Call) contract.Config {
	t.Helper()
	return compileAll(t, c, nil, calls)
}

func compileAll(t *testing.T, c *v1alpha1.Connector, routes []contract.Route, calls []contract.Call) contract.Config {
	t.Helper()
	s, err := systems.Of(c)
	if err != nil {
		t.Fatal(err)
	}
	config, err := Config(c, &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Name: "i"}}, s, contract.Broker{URLs: []string{"tls://x:4222"}}, routes, calls)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestHashChangesWithMeaningOnly(t *testing.T) {
	a, b := contract.Route{Name: "a", Generation: 1}, contract.Route{Name: "b", Generation: 1}
	base := compileSink(t, sink(), a, b)
	scaled := sink()
	scaled.Generation, scaled.Spec.Replicas = 7, new(int32(5))
	later := b
	later.Generation = 9
	if got := compileSink(t, scaled, later, a); got.Hash != base.Hash {
		t.Error("generations and the order of Routes must not roll pods")
	}
	b.Steps = []contract.Step{{Filter: "true"}}
	if got := compileSink(t, sink(), a, b); got.Hash == base.Hash {
		t.Error("a step must roll pods")
	}
	if got := compileSink(t, sink(), a); got.Hash == base.Hash {
		t.Error("a Route less must roll pods")
	}
	raw, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `"secretName":"s","keys":["k"]`) {
		t.Errorf("the pod must be able to name its Secret: %s", raw)
	}
}

func TestListenersPeersConcernNoPod(t *testing.T) {
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "in"}}
	c.Spec.Source = &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{Path: "/"}}
	before := compileSink(t, c)
	c.Spec.Source.HTTP.AllowFrom = append(c.Spec.Source.HTTP.AllowFrom, peer())
	if after := compileSink(t, c); after.Hash != before.Hash {
		t.Error("http.allowFrom is the NetworkPolicy's and must not roll pods")
	}
	if before.Source.EventType != "in" || before.Source.Format != "JSON" {
		t.Errorf("defaults: %+v", before.Source)
	}
}

func TestRouteNamesItsSteps(t *testing.T) {
	r := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Spec: v1alpha1.RouteSpec{
		Filter: "a", Steps: []v1alpha1.Step{{Filter: "b"}, {Name: "reshape", Transform: &v1alpha1.Transform{JQ: "."}}},
		To: []v1alpha1.Destination{{Name: "db", Connector: "c", Filter: "d", Operation: &v1alpha1.Operation{HTTP: &v1alpha1.HTTPRequest{Path: "/x"}}}},
	}}
	got, err := Route(&v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Name: "i"}}, r, &r.Spec.To[0])
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got.Steps {
		names = append(names, s.Name)
	}
	if want := []string{"filter", "steps[0]", "steps[1] (reshape)", "to[db].filter"}; !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
	if string(got.Operation) != `{"path":"/x"}` || got.Durable != "ns_r_db" || got.Stream != "ns_i" {
		t.Errorf("%+v", got)
	}
}

func peer() networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
}
