package validate

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

func TestEnrich(t *testing.T) {
	enrich := func(change func(*v1alpha1.Enrich)) v1alpha1.Step {
		e := &v1alpha1.Enrich{Call: &v1alpha1.EnrichCall{Connector: "svc", Method: "GET", Path: "/{data.id}"}, Into: "person"}
		if change != nil {
			change(e)
		}
		return v1alpha1.Step{Enrich: e}
	}
	good := enrich(nil)
	list := v1alpha1.Step{RecipientList: &v1alpha1.RecipientList{CEL: `["out"]`}}
	balance := func(key v1alpha1.Expression) v1alpha1.Step {
		return v1alpha1.Step{LoadBalance: &v1alpha1.LoadBalance{Key: key, Weights: v1alpha1.Weights{"out": 1}}}
	}
	for name, c := range map[string]struct {
		route, to, response []v1alpha1.Step
		call                bool
		want                string
	}{
		"good":                         {route: []v1alpha1.Step{good}, to: []v1alpha1.Step{good}},
		"bad path":                     {route: []v1alpha1.Step{enrich(func(e *v1alpha1.Enrich) { e.Call.Path = "/{data.}" })}, want: "InvalidExpression spec.steps[0].enrich.call.path: line 1, column 8"},
		"query in path":                {route: []v1alpha1.Step{enrich(func(e *v1alpha1.Enrich) { e.Call.Path = "/a?b={data.id}" })}, want: "InvalidExpression spec.steps[0].enrich.call.path: line 1, column 3"},
		"bad default":                  {to: []v1alpha1.Step{enrich(func(e *v1alpha1.Enrich) { e.Default = "nil" })}, want: "InvalidExpression spec.to[out].steps[0].enrich.default: line 1"},
		"bad body":                     {to: []v1alpha1.Step{enrich(func(e *v1alpha1.Enrich) { e.Call.Method, e.Call.Body = "POST", "{" })}, want: "InvalidExpression spec.to[out].steps[0].enrich.call.body: line 1"},
		"bad key of a table":           {to: []v1alpha1.Step{enrich(func(e *v1alpha1.Enrich) { e.Call, e.Table = nil, &v1alpha1.EnrichTable{Name: "wards", Key: "data."} })}, want: "InvalidExpression spec.to[out].steps[0].enrich.table.key: line 1"},
		"of a request":                 {call: true, route: []v1alpha1.Step{good}, want: "InvalidSpec spec.steps[0].enrich: a call is answered by one service"},
		"of an answer":                 {call: true, response: []v1alpha1.Step{good}, want: "InvalidSpec spec.call.response.steps[0].enrich: a call is answered by one service"},
		"chooses recipients":           {route: []v1alpha1.Step{good, {Filter: "true"}, list}, want: "InvalidSpec spec.steps[0].enrich: each destination asks by itself"},
		"chooses by key":               {route: []v1alpha1.Step{good, balance("data.person.id")}, want: "InvalidSpec spec.steps[0].enrich: each destination asks by itself"},
		"before balancing without key": {route: []v1alpha1.Step{good, balance("")}},
		"after a list":                 {route: []v1alpha1.Step{list, good}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &v1alpha1.Route{}
			r.Spec.From, r.Spec.Steps = []v1alpha1.RouteFrom{{Connector: "in"}}, c.route
			if c.call {
				r.Spec.Call = &v1alpha1.Call{Connector: "svc", Response: &v1alpha1.CallResponse{Steps: c.response}}
			} else {
				r.Spec.To = []v1alpha1.Destination{{Name: "out", Connector: "out", Steps: c.to}}
			}
			err, got := Outcome(Route(r)), ""
			if _, e := outcome.Of(err); e != nil {
				got = e.Reason + " " + err.Error()
			}
			if !strings.HasPrefix(got, c.want) || (c.want == "") != (err == nil) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
