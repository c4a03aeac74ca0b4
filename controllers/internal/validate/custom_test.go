package validate

import (
	"testing"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

func TestImagesOfCustomConnectors(t *testing.T) {
	for _, c := range []struct {
		image   string
		allowed []string
		want    bool
	}{
		{"registry.example/own:1", nil, false},
		{"registry.example/own:1", []string{"registry.example/own:1"}, true},
		{"registry.example/own:2", []string{"registry.example/own:1"}, false},
		{"registry.example/own:2", []string{"registry.example/own"}, true},
		{"registry.example/own@sha256:00", []string{"registry.example/own"}, true},
		{"registry.example/own:2@sha256:00", []string{"registry.example/own"}, true},
		{"registry.example/own-miner:1", []string{"registry.example/own"}, false},
		{"registry.example:5000/own:1", []string{"registry.example:5000/own"}, true},
		{"registry.example:5000/own", []string{"registry.example"}, false},
		{"registry.example/team/own:1", []string{"other.example/", "registry.example/team/"}, true},
		{"registry.example/teams/own:1", []string{"registry.example/team/"}, false},
		{"own:1", []string{"", "registry.example/"}, false},
	} {
		connector := &v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Service: &v1alpha1.Service{Custom: &v1alpha1.CustomService{CustomContainer: v1alpha1.CustomContainer{Image: c.image}}}}}
		err := Outcome(Connector(connector, Allowed{Images: c.allowed}))
		if (err == nil) != c.want || err != nil && !outcome.IsTerminal(err) {
			t.Errorf("%s with %q: %v", c.image, c.allowed, err)
		}
	}
}
