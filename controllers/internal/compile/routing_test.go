package compile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/steps"
)

func TestStepsTo(t *testing.T) {
	at := time.Date(2026, 12, 1, 6, 0, 0, 0, time.FixedZone("", 3600))
	route := &v1alpha1.Route{Spec: v1alpha1.RouteSpec{
		Filter: "f",
		Steps: []v1alpha1.Step{
			{Filter: "a"},
			{WireTap: &v1alpha1.WireTap{To: "audit"}},
			{Name: "hide", Redact: &v1alpha1.Redact{Paths: []string{"x"}, Mask: new("-")}},
			{WireTap: &v1alpha1.WireTap{To: "press"}},
			{SetHeaders: map[string]v1alpha1.Template{"a": "{id}"}},
			{RecipientList: &v1alpha1.RecipientList{CEL: "['north']"}},
			{Transform: &v1alpha1.Transform{CEL: "data.a"}},
			{LoadBalance: &v1alpha1.LoadBalance{Key: "id", Weights: v1alpha1.Weights{"north": 3, "south": 1}, Changes: []v1alpha1.WeightChange{
				{From: metav1.NewTime(at), Weights: v1alpha1.Weights{"north": 1, "east": 1}},
			}}},
		},
		To: []v1alpha1.Destination{{Name: "north"}, {Name: "audit"}, {Name: "south"}, {Name: "east"}, {Name: "press"}, {Name: "west"}},
	}}
	redact := contract.Step{Name: "steps[2] (hide)", Redact: &contract.Redact{Paths: []string{"x"}, Mask: new("-")}}
	begin := []contract.Step{{Name: "filter", Filter: "f"}, {Name: "steps[0]", Filter: "a"}}
	untapped := func(name string, spread bool) []contract.Step {
		out := append(append([]contract.Step{}, begin...), redact,
			contract.Step{Name: "steps[4]", SetHeaders: map[string]string{"a": "{id}"}},
			contract.Step{Name: "steps[5]", RecipientList: &contract.RecipientList{CEL: "['north']", Destination: name, Destinations: []string{"north", "south", "east", "west"}}},
			contract.Step{Name: "steps[6]", CEL: "data.a"})
		if spread {
			out = append(out, contract.Step{Name: "steps[7]", LoadBalance: &contract.LoadBalance{
				Destination: name, Key: "id", Weights: map[string]int32{"north": 3, "south": 1},
				Changes: []contract.WeightChange{{From: at.UTC(), Weights: map[string]int32{"north": 1, "east": 1}}},
			}})
		}
		return out
	}
	for name, want := range map[v1alpha1.ObjectName][]contract.Step{
		"audit": begin, "press": append(append([]contract.Step{}, begin...), redact),
		"north": untapped("north", true), "south": untapped("south", true), "east": untapped("east", true), "west": untapped("west", false),
	} {
		got := stepsTo(route, name)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		for _, s := range got {
			if s.Filter != "" {
				continue // names that no message has
			}
			if _, err := steps.Compile(s); err != nil {
				t.Errorf("%s: %s: %v", name, s.Name, err)
			}
		}
	}
}
