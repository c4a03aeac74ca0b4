// Package toolchain builds the binaries that the local cluster runs, from the Go modules that this module requires.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/metip/metip/hack/cluster/internal/image"
	"github.com/metip/metip/hack/cluster/internal/layout"
)

// kubernetesModule is whose version the components report; without a stamp they report v0.0.0 and refuse each other.
const kubernetesModule = "k8s.io/kubernetes"

// links are the names by which the one Kubernetes binary is called.
var links = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}

type target struct {
	output   string // a file, or a folder when it ends in a slash
	packages []string
	tags     string
	stamped  bool
}

func targets(l layout.Layout) []target {
	return []target{
		{output: l.Binary("kubernetes"), packages: []string{"./kubernetes"}, tags: "components", stamped: true},
		{output: l.Binary("etcd"), packages: []string{"go.etcd.io/etcd/server/v3"}},
		{output: l.Bin() + "/", tags: "no_btrfs,no_devmapper,no_zfs", packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr",
		}},
		{output: l.Binary("coredns"), packages: []string{"github.com/coredns/coredns"}},
		{output: l.Binary("pause"), packages: []string{"./pause"}},
	}
}

// Build builds what is not up to date.
func Build(ctx context.Context, l layout.Layout, report func(format string, args ...any)) error {
	want, err := fingerprint(ctx, l)
	if err != nil {
		return err
	}
	stampFile := filepath.Join(l.Bin(), ".stamp")
	if have, err := os.ReadFile(stampFile); err == nil && string(have) == want && complete(l) {
		report("binaries are up to date")
		return nil
	}
	version, err := kubernetesVersion(ctx, l)
	if err != nil {
		return err
	}
	report("building Kubernetes %s, etcd, containerd and CoreDNS; the first time takes about ten minutes on two cores", version)
	for _, t := range targets(l) {
		ldflags := "-s -w"
		if t.stamped {
			ldflags += stamp(version)
		}
		args := []string{"build", "-trimpath", "-ldflags", ldflags, "-o", t.output}
		if t.tags != "" {
			args = append(args, "-tags", t.tags)
		}
		report("  %s", strings.Join(t.packages, " "))
		if _, err := Go(ctx, l, append(args, t.packages...)...); err != nil {
			return err
		}
	}
	for _, name := range links {
		if err := link("kubernetes", l.Binary(name)); err != nil {
			return err
		}
	}
	if _, err := image.Write(image.Spec{
		Name: layout.PauseImage, Entrypoint: "/pause", Arch: runtime.GOARCH, Binaries: map[string]string{"/pause": l.Binary("pause")},
	}, l.PauseTar()); err != nil {
		return err
	}
	return os.WriteFile(stampFile, []byte(want), 0o644)
}

// stamp is the linker's share in the version.
func stamp(version string) string {
	numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
	var b strings.Builder
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		fmt.Fprintf(&b, " -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean", pkg, version, numbers[0], numbers[1])
	}
	return b.String()
}

func kubernetesVersion(ctx context.Context, l layout.Layout) (string, error) {
	out, err := Go(ctx, l, "list", "-m", "-f", "{{.Version}}", kubernetesModule)
	if err != nil {
		return "", err
	}
	version := strings.TrimSpace(out)
	if strings.Count(version, ".") < 2 {
		return "", fmt.Errorf("%s has version %q in go.mod, which is no release", kubernetesModule, version)
	}
	return version, nil
}

// complete tells whether nobody has removed a binary.
func complete(l layout.Layout) bool {
	names := append([]string{"etcd", "containerd", "containerd-shim-runc-v2", "ctr", "coredns", "pause"}, links...)
	for _, name := range names {
		if _, err := os.Stat(l.Binary(name)); err != nil {
			return false
		}
	}
	_, err := os.Stat(l.PauseTar())
	return err == nil
}

func link(to, path string) error {
	if have, err := os.Readlink(path); err == nil && have == to {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(to, path)
}

// fingerprint is a hash of everything that the binaries are made from.
func fingerprint(ctx context.Context, l layout.Layout) (string, error) {
	h := sha256.New()
	toolchain, err := Go(ctx, l, "version")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%v\n", toolchain, targets(layout.Layout{}))
	files := []string{"go.mod", "go.sum"}
	for _, dir := range []string{"kubernetes", "pause", "internal/image", "internal/toolchain"} {
		sources, err := filepath.Glob(filepath.Join(l.Module(), dir, "*.go"))
		if err != nil {
			return "", err
		}
		for _, path := range sources {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			name, err := filepath.Rel(l.Module(), path)
			if err != nil {
				return "", err
			}
			files = append(files, name)
		}
	}
	slices.Sort(files)
	for _, name := range files {
		f, err := os.Open(filepath.Join(l.Module(), name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n", name)
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)) + "\n", nil
}

// Go runs the Go tool in this module, without cgo and without a workspace's say.
func Go(ctx context.Context, l layout.Layout, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = l.Module()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOWORK=off", "GOFLAGS=-mod=readonly")
	var diagnostics strings.Builder
	cmd.Stderr = &diagnostics
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, diagnostics.String())
	}
	return string(out), nil
}
