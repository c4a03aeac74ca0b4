package toolchain

import (
	"strings"
	"testing"
)

func TestStamp(t *testing.T) {
	got := stamp("v1.37.2")
	for _, want := range []string{
		"-X k8s.io/component-base/version.gitVersion=v1.37.2", "-X k8s.io/client-go/pkg/version.gitVersion=v1.37.2",
		"version.gitMajor=1 ", "version.gitMinor=37 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if got != stamp("v1.37.2") {
		t.Error("the stamp's order changes: every build would link anew")
	}
}
