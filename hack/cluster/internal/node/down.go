package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/metip/metip/hack/cluster/internal/host"
	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/process"
)

// Down stops the cluster, removes everything that belongs to it and proves that nothing is left. One that was started
// from another folder, and runs, is not touched.
func (n *Node) Down(ctx context.Context) error {
	if err := requireRoot("down"); err != nil {
		return err
	}
	unlock, err := n.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if host.OfOthers(ctx, n.Layout.State()) {
		n.Report("no cluster was started from this folder; the one that runs here belongs to another and stays")
		return nil
	}
	began := time.Now()
	if err := n.clean(ctx); err != nil {
		return err
	}
	n.Report("the cluster is down after %.1f s and has left nothing behind", time.Since(began).Seconds())
	return nil
}

// clean removes whatever there is of a cluster, step by step, each of which works without the others having worked.
// Data and pods are thrown away with the cluster, so nobody is drained: the kubelet dies first, because it would
// start pods again, then everything in containers, then the servers (the API server alone would drain for a minute).
func (n *Node) clean(ctx context.Context) error {
	l := n.Layout
	var failed []error
	step := func(err error) {
		if err != nil {
			failed = append(failed, err)
		}
	}
	step(process.Stop(ctx, 0, n.running("kubelet")))
	step(host.KillContainers(ctx))
	step(process.Stop(ctx, time.Second, n.running("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "etcd", "containerd")))
	step(process.Stop(ctx, 0, n.running()))
	step(host.KillContainers(ctx))
	step(host.UnmountBelow(l.State()))
	if _, err := os.Stat(l.State()); err == nil || host.Abandoned(ctx) {
		step(host.RemoveTables(ctx))
	}
	step(host.RemoveBridge(ctx))
	step(host.RemoveCgroups(ctx))
	step(host.RestoreKernel(l.In("kernel.json")))
	step(host.RemoveResidue(l.State()))
	if len(failed) > 0 {
		return fmt.Errorf("taking the cluster down: %w; try again, and if that does not help, restart the machine", errors.Join(failed...))
	}
	if err := os.RemoveAll(l.State()); err != nil {
		return err
	}
	if left := n.leftovers(ctx); len(left) > 0 {
		return fmt.Errorf("the cluster is down but has left behind: %s", strings.Join(left, "; "))
	}
	return nil
}

// running lists the live processes of the cluster, recorded or not; with names only those.
func (n *Node) running(names ...string) []process.Record {
	var records []process.Record
	for _, name := range Components {
		if r := process.Read(n.Layout.PIDFile(name)); r.Alive() {
			records = append(records, r)
		}
	}
	for _, r := range process.Find(n.Layout.State()) {
		if !slices.ContainsFunc(records, func(o process.Record) bool { return o.PID == r.PID }) {
			records = append(records, r)
		}
	}
	if len(names) == 0 {
		return records
	}
	return slices.DeleteFunc(records, func(r process.Record) bool { return !slices.Contains(names, r.Name) })
}

// leftovers lists everything of the cluster that can still be seen.
func (n *Node) leftovers(ctx context.Context) []string {
	var left []string
	for _, r := range append(n.running(), host.ContainerProcesses()...) {
		left = append(left, "process "+r.String())
	}
	for _, point := range host.MountsBelow(n.Layout.State()) {
		left = append(left, "mount "+point)
	}
	left = append(left, host.NetworkLeftovers(ctx)...)
	left = append(left, host.CgroupLeftovers()...)
	left = append(left, host.Residue(n.Layout.State())...)
	if _, err := os.Stat(n.Layout.State()); err == nil {
		left = append(left, "folder "+n.Layout.State())
	}
	return left
}

// awaitDeleted waits until the API server no longer has the object.
func awaitDeleted(ctx context.Context, client *kube.Client, path string) error {
	return process.Until(ctx, time.Minute, "deleting "+path, func(ctx context.Context) error {
		_, err := client.Raw(ctx, path)
		switch {
		case errors.Is(err, kube.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return errors.New("it is still there")
	})
}
