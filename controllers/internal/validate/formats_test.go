package validate

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

func TestFormats(t *testing.T) {
	schema := func(s v1alpha1.SchemaSource) v1alpha1.Step {
		return v1alpha1.Step{Validate: &v1alpha1.Validate{JSONSchema: &s}}
	}
	split, delay := v1alpha1.Step{Split: &v1alpha1.Split{Items: "data"}}, v1alpha1.Step{Delay: &v1alpha1.Delay{For: new(v1alpha1.Duration("1m"))}}
	filter := v1alpha1.Step{Filter: "true"}
	for name, c := range map[string]struct {
		route, to, response []v1alpha1.Step
		call                bool
		want                string
	}{
		"good schema":          {route: []v1alpha1.Step{schema(v1alpha1.SchemaSource{Inline: "{}"})}},
		"schema elsewhere":     {route: []v1alpha1.Step{schema(v1alpha1.SchemaSource{ConfigMap: &v1alpha1.ConfigMapKey{Name: "a", Key: "b"}})}},
		"bad schema":           {route: []v1alpha1.Step{filter, schema(v1alpha1.SchemaSource{Inline: "{\n}}"})}, want: "InvalidSchema spec.steps[1].validate.jsonSchema.inline: line 2, column 2"},
		"bad Avro":             {to: []v1alpha1.Step{{Convert: &v1alpha1.Convert{From: "JSON", To: "Avro", Avro: &v1alpha1.AvroFormat{Schema: v1alpha1.SchemaSource{Inline: "{}"}}}}}, want: "InvalidSchema spec.to[out].steps[0].convert.avro.schema.inline: it is no Avro schema"},
		"bad delimiter":        {route: []v1alpha1.Step{{Convert: &v1alpha1.Convert{From: "CSV", To: "JSON", CSV: &v1alpha1.CSVFormat{Delimiter: "\r"}}}}, want: "InvalidExpression spec.steps[0].convert.csv: the delimiter"},
		"one split":            {route: []v1alpha1.Step{delay, split, filter}, to: []v1alpha1.Step{filter}},
		"a split each":         {to: []v1alpha1.Step{filter, split}},
		"two splits":           {route: []v1alpha1.Step{split, split}, want: "InvalidSpec spec.steps[1].split: the message has been split already"},
		"a split of parts":     {route: []v1alpha1.Step{split}, to: []v1alpha1.Step{split}, want: "InvalidSpec spec.to[out].steps[0].split: the message has been split already"},
		"a delay of parts":     {route: []v1alpha1.Step{split}, to: []v1alpha1.Step{delay}, want: "InvalidSpec spec.to[out].steps[0].delay: a delay must stand before the split"},
		"state and no event":   {route: []v1alpha1.Step{{Deduplicate: &v1alpha1.Deduplicate{Key: "data.id"}}}, want: "InvalidSpec spec.steps[0].deduplicate: "},
		"a sum and no event":   {route: []v1alpha1.Step{{Aggregate: &v1alpha1.Aggregate{Key: "data.id"}}}, want: "InvalidSpec spec.steps[0].aggregate: "},
		"an order, no event":   {to: []v1alpha1.Step{{Resequence: &v1alpha1.Resequence{Number: "data.n"}}}, want: "InvalidSpec spec.to[out].steps[0].resequence: "},
		"bad items":            {route: []v1alpha1.Step{{Split: &v1alpha1.Split{Items: "data."}}}, want: "InvalidExpression spec.steps[0].split.items: line 1"},
		"a request is no list": {call: true, route: []v1alpha1.Step{split}, want: "InvalidSpec spec.steps[0].split: a request has one answer"},
		"an answer is no list": {call: true, response: []v1alpha1.Step{filter, split}, want: "InvalidSpec spec.call.response.steps[1].split: an answer cannot be split"},
		"a request is checked": {call: true, route: []v1alpha1.Step{schema(v1alpha1.SchemaSource{Inline: "true"})}},
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

func TestSourceSchema(t *testing.T) {
	c := &v1alpha1.Connector{}
	c.Spec.Source = &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{Path: "/"}, Schema: &v1alpha1.SchemaSource{Inline: `{"type":"text"}`}}
	err := Outcome(Connector(c, Allowed{}))
	if _, e := outcome.Of(err); e == nil || e.Reason != v1alpha1.ReasonInvalidSchema || !strings.HasPrefix(err.Error(), "spec.source.schema.inline: line 1, column 9: at /type") {
		t.Error(err)
	}
	c.Spec.Source.Schema.Inline = "true"
	if err := Outcome(Connector(c, Allowed{})); err != nil {
		t.Error(err)
	}
}
