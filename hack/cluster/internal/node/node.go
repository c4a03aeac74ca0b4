package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/process"
)

// Node is the local cluster of one repository.
type Node struct {
	Layout layout.Layout
	Report func(format string, args ...any) // tells the user what is being done
}

// lock keeps a second invocation out until unlock; it ends with this process in any case.
func (n *Node) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(n.Layout.LockFile()), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(n.Layout.LockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		n.Report("waiting for another `cluster up` or `cluster down` to end")
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
	}
	return func() { f.Close() }, nil
}

func requireRoot(command string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("`cluster %s` must run as root, because it makes network interfaces, mounts and control groups; use sudo", command)
	}
	return nil
}

// ErrDown is Health's error where no cluster was started.
var ErrDown = errors.New("the cluster is down")

// Health says what is wrong with a cluster that should be running; nil: it answers and its node is ready.
func (n *Node) Health(ctx context.Context) error {
	if err := n.alive(); err != nil {
		return err
	}
	client, err := kube.New(n.Layout)
	if err != nil {
		return err
	}
	if _, err := client.Raw(ctx, "/readyz"); err != nil {
		return fmt.Errorf("kube-apiserver is not ready: %w", err)
	}
	return nodeReady(ctx, client)
}

// alive says which server has died.
func (n *Node) alive() error {
	if _, err := os.Stat(n.Layout.State()); err != nil {
		return ErrDown
	}
	for _, name := range Components {
		if !process.Read(n.Layout.PIDFile(name)).Alive() {
			return fmt.Errorf("%s is not running", name)
		}
	}
	return nil
}

// patientHealth is Health, but a cluster whose servers all live gets the time that a busy machine may take to
// answer: who starts a cluster must not throw away one that others are using.
func (n *Node) patientHealth(ctx context.Context) error {
	return process.Until(ctx, patience, "the earlier cluster", func(ctx context.Context) error {
		if err := n.alive(); err != nil {
			return process.Fatal(err)
		}
		return n.Health(ctx)
	})
}

func nodeReady(ctx context.Context, client *kube.Client) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := client.Get(ctx, "/api/v1/nodes/"+layout.NodeName, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %s", c.Message)
		}
	}
	return errors.New("the node has not reported yet")
}

// Status describes the cluster, a line a component.
func (n *Node) Status(ctx context.Context) (string, error) {
	health := n.Health(ctx)
	if errors.Is(health, ErrDown) {
		return "down\n", health
	}
	var b strings.Builder
	for _, name := range Components {
		state := "dead, see " + n.Layout.Log(name)
		if r := process.Read(n.Layout.PIDFile(name)); r.Alive() {
			state = fmt.Sprintf("running, pid %d", r.PID)
		}
		fmt.Fprintf(&b, "%-24s %s\n", name, state)
	}
	if health != nil {
		return b.String(), health
	}
	client, err := kube.New(n.Layout)
	if err != nil {
		return b.String(), err
	}
	phases, err := volumePhases(ctx, client)
	if err != nil {
		return b.String(), err
	}
	fmt.Fprintf(&b, "%-24s %d free, %d in use, %d released (`cluster up` recycles them)\n", "volumes",
		len(phases["Available"]), len(phases["Bound"]), len(phases["Released"])+len(phases["Failed"]))
	fmt.Fprintf(&b, "ready; kubeconfig %s\n", n.Layout.Kubeconfig("admin"))
	return b.String(), nil
}
