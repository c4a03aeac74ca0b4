package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

func TestFindRoot(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(root, "hack", "cluster")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, module := range map[string]string{root: "github.com/metip/metip", inner: "github.com/metip/metip/hack/cluster"} {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module "+module+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(inner)
	if got, err := findRoot(); err != nil || got != root {
		t.Errorf("got %q (%v), want %q", got, err, root)
	}
	t.Chdir(t.TempDir())
	if got, err := findRoot(); err == nil {
		t.Errorf("found %q outside of any repository", got)
	}
}

func TestEnvironmentNamesTheKubeconfig(t *testing.T) {
	got := environment(layout.Layout{Root: "/re po"})
	for _, want := range []string{"KUBECONFIG='/re po/out/cluster/admin.conf'", "KUBEBUILDER_ASSETS='/re po/out/bin'"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestMistakesAreExplained(t *testing.T) {
	for arguments, want := range map[string]string{
		"nonsense": "no command",
		"load":     "name at least one image tar",
		"image":    "-name",
		"image -name localhost/x:1 -out x.tar -entry /x justafile": "<path>=<file>",
	} {
		err := run(context.Background(), append([]string{"-root", t.TempDir()}, strings.Fields(arguments)...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, got %v", arguments, want, err)
		}
	}
}
