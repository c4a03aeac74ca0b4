package compile

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var area = &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Name: "i"}}

func lookup() *v1alpha1.Route {
	return &v1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lookup", UID: "u", Generation: 3},
		Spec: v1alpha1.RouteSpec{
			From:   []v1alpha1.RouteFrom{{Connector: "ask"}},
			Filter: `headers.method == "GET"`,
			Steps:  []v1alpha1.Step{{Name: "rename", Transform: &v1alpha1.Transform{JQ: "."}}},
			Call: &v1alpha1.Call{
				Connector: "cases", Timeout: "3s",
				Response: &v1alpha1.CallResponse{Steps: []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: "{id}"}}}},
			},
		},
	}
}

func TestCall(t *testing.T) {
	want := contract.Call{
		Route: "lookup", UID: "u", Generation: 3, Integration: "i", Service: "cases", Timeout: contract.Duration(3 * time.Second),
		Request: []contract.Step{
			{Name: "filter", Filter: `headers.method == "GET"`},
			{Name: "steps[0] (rename)", JQ: "."},
		},
		Response: []contract.Step{{Name: "call.response.steps[0]", JQ: "{id}"}},
	}
	if diff := cmp.Diff(want, Call(area, lookup())); diff != "" {
		t.Error(diff)
	}
	bare := lookup()
	bare.Spec.Filter, bare.Spec.Steps, bare.Spec.Call = "", nil, &v1alpha1.Call{Connector: "cases"}
	bare.Spec.Suspend = new(true)
	want = contract.Call{
		Route: "lookup", UID: "u", Generation: 3, Integration: "i", Service: "cases", Timeout: contract.Duration(10 * time.Second), Suspended: true,
	}
	if diff := cmp.Diff(want, Call(area, bare)); diff != "" {
		t.Error(diff)
	}
}

func answering() *v1alpha1.Connector {
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ask", UID: "u"}}
	c.Spec.Source = &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{Path: "/", Exchange: v1alpha1.ExchangeRequestReply}}
	return c
}

func TestCallsRollTheirSourcesPods(t *testing.T) {
	a := Call(area, lookup())
	b := a
	b.Route = "another"
	base := compileCalls(t, answering(), a, b)
	if got := base.Source.Calls; len(got) != 2 || got[0].Route != "another" {
		t.Errorf("Routes are asked by name: %+v", got)
	}
	later := a
	later.Generation = 9
	if got := compileCalls(t, answering(), b, later); got.Hash != base.Hash {
		t.Error("generations and the order of Routes must not roll pods")
	}
	if base.Source.Calls[1].Generation != 3 {
		t.Error("the hash must not take the generation from the configuration")
	}
	for name, change := range map[string]func(*contract.Call){
		"a step": func(c *contract.Call) { c.Response = nil }, "the timeout": func(c *contract.Call) { c.Timeout++ },
		"suspend": func(c *contract.Call) { c.Suspended = true }, "the service": func(c *contract.Call) { c.Service = "x" },
	} {
		changed := a
		change(&changed)
		if got := compileCalls(t, answering(), changed, b); got.Hash == base.Hash {
			t.Errorf("%s must roll pods", name)
		}
		was, _ := CallDigest(a)
		if is, _ := CallDigest(changed); is == was {
			t.Errorf("%s must change the digest", name)
		}
	}
	digests, err := CallDigests([]contract.Call{a})
	if err != nil {
		t.Fatal(err)
	}
	was, _ := CallDigest(a)
	if is, _ := CallDigest(later); is != was || digests != `{"lookup/call":"`+was+`"}` {
		t.Errorf("digests %s, and %s for another generation", digests, is)
	}
	a.Route = "third"
	if got := Services([]contract.Call{a, b, {Integration: "i", Service: "other"}}); len(got) != 2 {
		t.Errorf("each service once: %+v", got)
	}
}

func TestService(t *testing.T) {
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cases", UID: "u"}}
	c.Spec.Service = &v1alpha1.Service{HTTP: &v1alpha1.HTTPService{URL: "http://x", HealthPath: "/healthz"}}
	got := compileSink(t, c)
	want := &contract.Service{
		System:        contract.System{Type: "http", Options: json.RawMessage(`{"url":"http://x","healthPath":"/healthz"}`)},
		MaxConcurrent: 64, Timeout: contract.Duration(10 * time.Second),
	}
	if diff := cmp.Diff(want, got.Service); diff != "" || got.Sink != nil || got.Source != nil {
		t.Error(diff)
	}
	c.Spec.Service.Timeout, c.Spec.Service.MaxConcurrent = "250ms", new(int32(3))
	size := resource.MustParse("1Mi")
	c.Spec.Service.Cache = &v1alpha1.ServiceCache{TTL: "30s", Size: &size, Methods: []string{"GET", "POST"}}
	c.Spec.Suspend = new(true)
	want.MaxConcurrent, want.Timeout, want.Suspended = 3, contract.Duration(250*time.Millisecond), true
	want.Cache = &contract.Cache{TTL: contract.Duration(30 * time.Second), MaxBytes: 1 << 20, Methods: []string{"GET", "POST"}}
	if diff := cmp.Diff(want, compileSink(t, c).Service); diff != "" {
		t.Error(diff)
	}
	c.Spec.Service.Cache.Size = nil
	if got := compileSink(t, c).Service.Cache.MaxBytes; got != 8<<20 {
		t.Errorf("the size of a cache is %d by default", got)
	}
}
