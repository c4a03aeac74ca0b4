package validate

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

func TestPositions(t *testing.T) {
	sink := func(path v1alpha1.Template, headers map[string]v1alpha1.Template) *v1alpha1.Connector {
		return &v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Sink: &v1alpha1.Sink{HTTP: &v1alpha1.HTTPSink{
			URL: "http://x", Request: &v1alpha1.HTTPRequest{Path: path, Headers: headers},
		}}}}
	}
	stub := func(examples ...v1alpha1.StubExample) *v1alpha1.Connector {
		return &v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Service: &v1alpha1.Service{Stub: &v1alpha1.StubService{Examples: examples}}}}
	}
	route := func(change func(*v1alpha1.RouteSpec)) *v1alpha1.Route {
		r := &v1alpha1.Route{Spec: v1alpha1.RouteSpec{
			From: []v1alpha1.RouteFrom{{Connector: "in"}}, To: []v1alpha1.Destination{{Name: "out", Connector: "out"}},
		}}
		change(&r.Spec)
		return r
	}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a good Route", Outcome(Route(route(func(*v1alpha1.RouteSpec) {}))), ""},
		{"filter", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.Filter = "data.x ==" }))), "spec.filter: line 1, column 10"},
		{"second line", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.Filter = "true &&\n  nosuch(1)" }))), "spec.filter: line 2, column"},
		{"not a condition", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.Filter = "1 + 1" }))), "spec.filter: line 1"},
		{"step", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.Steps = []v1alpha1.Step{{Filter: "true"}, {Transform: &v1alpha1.Transform{JQ: ".a |"}}}
		}))), "spec.steps[1].transform.jq: line 1"},
		{"destination", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.To[0].Filter = "(" }))), "spec.to[out].filter: line 1"},
		{"operation", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To[0].Operation = &v1alpha1.Operation{Postgres: &v1alpha1.PostgresWrite{Columns: map[string]v1alpha1.Expression{"id": "data..id"}}}
		}))), "spec.to[out].operation.postgres.columns[id]: line 1"},
		{"cycle", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.To[0].Connector = "in" }))), "spec.to[out].connector: a Route cannot deliver"},
		{"a call that waits", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To, s.Call = nil, &v1alpha1.Call{Connector: "svc"}
			s.Steps = []v1alpha1.Step{{Filter: "true"}, {Delay: &v1alpha1.Delay{Until: "time"}}}
		}))), "spec.steps[1].delay: a call is answered at once"},
		{"state in an answer", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To, s.Call = nil, &v1alpha1.Call{Connector: "svc", Response: &v1alpha1.CallResponse{Steps: []v1alpha1.Step{{Deduplicate: &v1alpha1.Deduplicate{Key: "data.id"}}}}}
		}))), "spec.call.response.steps[0].deduplicate: a call is answered by itself"},
		{"until", Outcome(Route(route(func(s *v1alpha1.RouteSpec) { s.Steps = []v1alpha1.Step{{Delay: &v1alpha1.Delay{Until: "data."}}} }))),
			"spec.steps[0].delay.until: line 1"},
		{"state without event", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.Steps = []v1alpha1.Step{{Deduplicate: &v1alpha1.Deduplicate{Key: "data.id"}}}
		}))), "spec.steps[0].deduplicate: deduplicate, aggregate and resequence are done by the relay"},
		{"state before another step", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To[0].Connector, s.To[0].Event = "", &v1alpha1.EventDestination{Type: "x"}
			s.Steps = []v1alpha1.Step{{Deduplicate: &v1alpha1.Deduplicate{Key: "data.id"}}, {Filter: "true"}}
		}))), "spec.steps[0].deduplicate: deduplicate, aggregate and resequence are the last step"},
		{"state before the destination's filter", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To[0].Connector, s.To[0].Event, s.To[0].Filter = "", &v1alpha1.EventDestination{Type: "x"}, "true"
			s.Steps = []v1alpha1.Step{{Resequence: &v1alpha1.Resequence{Number: "data.n"}}}
		}))), "spec.steps[0].resequence: deduplicate, aggregate and resequence are the last step"},
		{"state at the end", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To[0].Connector, s.To[0].Event = "", &v1alpha1.EventDestination{Type: "x"}
			s.Steps = []v1alpha1.Step{{Filter: "true"}, {Aggregate: &v1alpha1.Aggregate{Key: "data.id", Count: new(int32(3))}}}
		}))), ""},
		{"circle of events", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.From = []v1alpha1.RouteFrom{{Events: &v1alpha1.RouteEvents{Types: []string{"other", "police.>"}}}}
			s.To[0].Connector, s.To[0].Event = "", &v1alpha1.EventDestination{Type: "police.arrest.v1"}
		}))), "spec.to[out].event: the Route reads this type"},
		{"all events", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.From = []v1alpha1.RouteFrom{{Events: &v1alpha1.RouteEvents{}}}
			s.To[0].Connector, s.To[0].Event = "", &v1alpha1.EventDestination{Type: "police.arrest.v1"}
		}))), "spec.to[out].event: the Route reads this type"},
		{"other events", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.From = []v1alpha1.RouteFrom{{Connector: "in"}, {Events: &v1alpha1.RouteEvents{Types: []string{"police.arrest"}}}}
			s.To[0].Connector, s.To[0].Event = "", &v1alpha1.EventDestination{Type: "police.arrest.v1"}
		}))), ""},
		{"response", Outcome(Route(route(func(s *v1alpha1.RouteSpec) {
			s.To, s.Call = nil, &v1alpha1.Call{Connector: "svc", Response: &v1alpha1.CallResponse{Steps: []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: "{"}}}}}
		}))), "spec.call.response.steps[0].transform.jq: line 1"},
		{"a good stub", Outcome(Connector(stub(v1alpha1.StubExample{When: "data.id == 1", JQ: "{id}", Headers: map[string]v1alpha1.Template{"X-A": "{id}"}}), Allowed{})), ""},
		{"when", Outcome(Connector(stub(v1alpha1.StubExample{}, v1alpha1.StubExample{When: "data."}), Allowed{})), "spec.service.stub.examples[1].when: line 1"},
		{"stub's header", Outcome(Connector(stub(v1alpha1.StubExample{Headers: map[string]v1alpha1.Template{"X-A": "{"}}), Allowed{})), "spec.service.stub.examples[0].headers[X-A]: line 1"},
		{"stub's jq", Outcome(Connector(stub(v1alpha1.StubExample{JQ: ".a |"}), Allowed{})), "spec.service.stub.examples[0].jq: line 1"},
		{"path", Outcome(Connector(sink("/{data.}", nil), Allowed{})), "spec.sink.http.request.path: line 1"},
		{"header", Outcome(Connector(sink("", map[string]v1alpha1.Template{"X-A": "{"}), Allowed{})), "spec.sink.http.request.headers[X-A]: line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case c.want == "" && c.err != nil:
				t.Errorf("refused: %v", c.err)
			case c.want != "" && (c.err == nil || !strings.HasPrefix(c.err.Error(), c.want) || !outcome.IsTerminal(c.err)):
				t.Errorf("%v, want %q", c.err, c.want)
			}
		})
	}
}
