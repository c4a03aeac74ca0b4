package node

import (
	"strings"
	"testing"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

func TestEveryComponentIsRecognisableAndLocal(t *testing.T) {
	l := layout.Layout{Root: "/repo"}
	all := arguments(l)
	if len(all) != len(Components) {
		t.Errorf("%d command lines for %d components", len(all), len(Components))
	}
	for _, name := range Components {
		line := strings.Join(all[name], " ")
		if !strings.Contains(line, l.State()+"/") {
			t.Errorf("%s: nothing in its arguments tells that it is ours: %s", name, line)
		}
		for _, everywhere := range []string{"0.0.0.0", "[::]", "=:"} {
			if strings.Contains(line, everywhere) {
				t.Errorf("%s listens on every address: %s", name, line)
			}
		}
	}
}

func TestLogTail(t *testing.T) {
	tail := logTail([]byte(strings.Repeat("early\n", 20) + "late\n"))
	if lines := strings.Split(tail, "\n"); len(lines) != 12 || !strings.HasSuffix(tail, "late") {
		t.Errorf("got %q", tail)
	}
}
