// Package selftest proves on the real thing that a cluster starts, carries pods as users expect it to, survives being
// killed and leaves nothing behind. It is not part of `go test`, since it needs root and the machine to itself.
package selftest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/metip/metip/hack/cluster/internal/host"
	"github.com/metip/metip/hack/cluster/internal/image"
	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/node"
	"github.com/metip/metip/hack/cluster/internal/process"
	"github.com/metip/metip/hack/cluster/internal/toolchain"
)

//go:embed manifests
var manifests embed.FS

const (
	imageName = "localhost/metip-selftest:1"
	namespace = "/api/v1/namespaces/selftest"
	patience  = time.Minute
)

type suite struct {
	layout layout.Layout
	node   *node.Node
	report func(format string, args ...any)
	client *kube.Client
	tar    string
}

// Run runs every check in order and stops at the first that fails, leaving the cluster for inspection.
func Run(ctx context.Context, l layout.Layout, n *node.Node, report func(format string, args ...any)) error {
	if err := n.Health(ctx); !errors.Is(err, node.ErrDown) {
		return errors.New("a cluster is running, and the self-test kills clusters; run `make cluster-down` (`cluster down`) first")
	}
	s := &suite{layout: l, node: n, report: report, tar: filepath.Join(l.Images(), "selftest.tar")}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"make the test image", s.makeImage},
		{"refuse to start on a taken subnet", s.refuseTakenSubnet},
		{"start", s.up},
		{"start again, which does nothing", s.upAgain},
		{"refuse a privileged pod (Pod Security)", s.refusePrivileged},
		{"run restricted pods with probes, a Service and a claim", s.runPods},
		{"reach the Service from the machine", s.reachFromHost},
		{"resolve and reach the Service from pods", s.reachFromPods},
		{"refuse names that do not exist", s.refuseUnknownName},
		{"read logs", s.readLogs},
		{"write to the volume through fsGroup", s.writeVolume},
		{"recycle a released volume", s.recycle},
		{"kill everything and start again", s.crash},
		{"run pods after the crash", s.runPods},
		{"leave it running when another folder's is stopped", s.stopElsewhere},
		{"kill everything and start in another folder", s.crashElsewhere},
		{"stop", n.Down},
		{"stop again, which does nothing", n.Down},
		{"find no container process", s.nothingLeft},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("FAIL %s: %w", step.name, err)
		}
		report("ok   %s (%.1f s)", step.name, time.Since(began).Seconds())
	}
	return nil
}

func (s *suite) makeImage(ctx context.Context) error {
	binary := s.layout.Binary("selftest-probe")
	if _, err := toolchain.Go(ctx, s.layout, "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./probe"); err != nil {
		return err
	}
	_, err := image.Write(image.Spec{Name: imageName, Entrypoint: "/probe", Arch: runtime.GOARCH, Binaries: map[string]string{"/probe": binary}}, s.tar)
	return err
}

func (s *suite) refuseTakenSubnet(ctx context.Context) error {
	const squatter = "metipselftest"
	if _, err := process.Command(ctx, "ip", "link", "add", squatter, "type", "bridge"); err != nil {
		return err
	}
	defer process.Command(context.WithoutCancel(ctx), "ip", "link", "delete", squatter) //nolint:errcheck // shown by the next step
	for _, args := range [][]string{{"addr", "add", "10.244.2.1/24", "dev", squatter}, {"link", "set", squatter, "up"}} {
		if _, err := process.Command(ctx, "ip", args...); err != nil {
			return err
		}
	}
	err := s.node.Up(ctx, "")
	if err == nil || !strings.Contains(err.Error(), squatter) {
		return fmt.Errorf("expected a refusal that names interface %s, got: %v", squatter, err)
	}
	return nil
}

func (s *suite) up(ctx context.Context) error {
	if err := s.node.Up(ctx, ""); err != nil {
		return err
	}
	client, err := kube.New(s.layout)
	if err != nil {
		return err
	}
	s.client = client
	if err := s.node.Load(ctx, []string{s.tar}); err != nil {
		return err
	}
	return s.apply(ctx, "namespace.yaml")
}

func (s *suite) upAgain(ctx context.Context) error {
	before := process.Read(s.layout.PIDFile("kubelet"))
	if err := s.node.Up(ctx, ""); err != nil {
		return err
	}
	if after := process.Read(s.layout.PIDFile("kubelet")); after != before {
		return fmt.Errorf("the kubelet was started anew: %v, then %v", before, after)
	}
	return nil
}

func (s *suite) refusePrivileged(ctx context.Context) error {
	err := process.Until(ctx, patience, "waiting for a refusal", func(ctx context.Context) error {
		err := s.apply(ctx, "privileged.yaml")
		switch {
		case err == nil:
			return process.Fatal(errors.New("the pod was admitted"))
		case strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`):
			return nil
		}
		return err // the namespace's service account may be about to be made
	})
	return err
}

func (s *suite) runPods(ctx context.Context) error {
	for _, file := range []string{"server.yaml", "client.yaml"} {
		if err := process.Until(ctx, patience, "creating "+file, func(ctx context.Context) error { return s.apply(ctx, file) }); err != nil {
			return err
		}
	}
	for _, pod := range []string{"server", "client"} {
		if err := process.Until(ctx, patience, "waiting for pod "+pod, func(ctx context.Context) error { return s.podReady(ctx, pod) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) podReady(ctx context.Context, name string) error {
	var pod struct {
		Status struct {
			Phase      string
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := s.client.Get(ctx, namespace+"/pods/"+name, &pod); err != nil {
		return err
	}
	why := "phase " + pod.Status.Phase
	for _, c := range pod.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
		if c.Message != "" {
			why += "; " + c.Message
		}
	}
	return errors.New(why)
}

func (s *suite) nothingLeft(context.Context) error {
	if left := host.ContainerProcesses(); len(left) > 0 {
		return fmt.Errorf("%d left, the first is %s", len(left), left[0])
	}
	if left := process.Find(s.layout.State()); len(left) > 0 {
		return fmt.Errorf("%d left, the first is %s", len(left), left[0])
	}
	return nil
}

// crash kills every server and every shim; the containers' processes live on as orphans.
func (s *suite) crash(ctx context.Context) error {
	process.Signal(syscall.SIGKILL, process.Find(s.layout.State()))
	if len(host.ContainerProcesses()) == 0 {
		return errors.New("no container was running")
	}
	if err := s.node.Health(ctx); err == nil {
		return errors.New("a killed cluster counts as healthy")
	}
	return s.up(ctx)
}

// elsewhere is a node of another folder, with the same binaries and images.
func (s *suite) elsewhere() (*node.Node, func(), error) {
	root, err := os.MkdirTemp("", "metip")
	if err != nil {
		return nil, nil, err
	}
	l := layout.Layout{Root: root}
	if err := os.MkdirAll(filepath.Dir(l.Bin()), 0o755); err != nil {
		return nil, nil, err
	}
	for from, to := range map[string]string{s.layout.Bin(): l.Bin(), s.layout.Images(): l.Images()} {
		if err := os.Symlink(from, to); err != nil {
			return nil, nil, err
		}
	}
	return &node.Node{Layout: l, Report: s.report}, func() { os.RemoveAll(root) }, nil //nolint:errcheck // a temporary folder
}

func (s *suite) stopElsewhere(ctx context.Context) error {
	other, remove, err := s.elsewhere()
	if err != nil {
		return err
	}
	defer remove()
	if err := other.Down(ctx); err != nil {
		return err
	}
	return s.node.Health(ctx)
}

func (s *suite) crashElsewhere(ctx context.Context) error {
	process.Signal(syscall.SIGKILL, process.Find(s.layout.State()))
	// A killed process has no command line any more before its ports are free.
	err := process.Until(ctx, patience, "waiting for the killed to be gone", func(ctx context.Context) error {
		if !host.Abandoned(ctx) {
			return errors.New("a port of theirs is taken")
		}
		return nil
	})
	if err != nil {
		return err
	}
	other, remove, err := s.elsewhere()
	if err != nil {
		return err
	}
	defer remove()
	if err := other.Up(ctx, ""); err != nil {
		return err
	}
	return other.Down(ctx)
}

// apply applies every document of a file.
func (s *suite) apply(ctx context.Context, file string) error {
	content, err := manifests.ReadFile("manifests/" + file)
	if err != nil {
		return err
	}
	for _, document := range strings.Split(string(content), "\n---\n") {
		if err := s.client.Apply(ctx, []byte(document)); err != nil {
			return err
		}
	}
	return nil
}

// kubectl runs ours as a user would, with its caches kept in the cluster's folder.
func (s *suite) kubectl(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--kubeconfig", s.layout.Kubeconfig("admin"), "--cache-dir", s.layout.In("tmp"), "--namespace", "selftest"}, args...)
	return process.Command(ctx, s.layout.Binary("kubectl"), args...)
}
