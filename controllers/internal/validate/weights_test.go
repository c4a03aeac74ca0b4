package validate

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
)

func TestWeightChangesLieAhead(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 30, 0, time.UTC)
	route := func(changes ...time.Duration) *v1alpha1.Route {
		b := &v1alpha1.LoadBalance{Weights: v1alpha1.Weights{"a": 1}}
		for _, c := range changes {
			b.Changes = append(b.Changes, v1alpha1.WeightChange{From: metav1.NewTime(now.Add(c)), Weights: v1alpha1.Weights{"a": 1}})
		}
		return &v1alpha1.Route{Spec: v1alpha1.RouteSpec{Steps: []v1alpha1.Step{{Filter: "true"}, {LoadBalance: b}}}}
	}
	none := &v1alpha1.Route{}
	for _, c := range []struct {
		name    string
		old, is *v1alpha1.Route
		want    string
	}{
		{"far ahead", route(), route(11 * time.Minute), ""},
		{"too soon", route(), route(9 * time.Minute), "spec.steps[1].loadBalance.changes[0].from: Invalid value: \"2026-11-23T10:09:30Z\": a change begins 10m0s ahead at the earliest, so that every pod knows of it: write 2026-11-23T10:11:00Z or later"},
		{"in the past", route(-time.Hour), route(-time.Hour, -time.Minute), "changes[1].from"},
		{"known", route(-time.Hour), route(-time.Hour, time.Hour), ""},
		{"new altogether", none, route(-time.Hour), ""},
		{"gone", route(-time.Hour), none, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch err := WeightChanges(c.old, c.is, now).ToAggregate(); {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestStepsSayWhereTheyFail(t *testing.T) {
	mask := v1alpha1.Route{Spec: v1alpha1.RouteSpec{Steps: []v1alpha1.Step{
		{Transform: &v1alpha1.Transform{CEL: "{'a': nope}"}},
		{SetHeaders: map[string]v1alpha1.Template{"a": "{id", "b": "ok"}},
		{Redact: &v1alpha1.Redact{Paths: []string{"a", "b["}}},
		{WireTap: &v1alpha1.WireTap{To: "x"}},
		{RecipientList: &v1alpha1.RecipientList{CEL: "["}},
		{LoadBalance: &v1alpha1.LoadBalance{Key: "id +", Weights: v1alpha1.Weights{"x": 1}}},
	}}}
	var got []string
	for _, e := range Route(&mask) {
		got = append(got, e.Field+": "+e.Detail)
	}
	want := []string{
		"spec.steps[0].transform.cel: line 1, column 7: undeclared", "spec.steps[1].setHeaders[a]: line 1, column 1: '{' is never closed", "spec.steps[2].redact.paths[1]: line 1, column 2: after",
		"spec.steps[4].recipientList.cel: line 1", "spec.steps[5].loadBalance.key: line 1",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}
