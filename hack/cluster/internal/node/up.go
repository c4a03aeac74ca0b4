package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/metip/metip/hack/cluster/internal/host"
	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/pki"
	"github.com/metip/metip/hack/cluster/internal/process"
	"github.com/metip/metip/hack/cluster/internal/render"
)

// patience bounds each wait of a start. On an idle machine each takes a second or two; a busy one may need more.
const patience = time.Minute

// Up starts the cluster, unless it runs already: then it only recycles released volumes. What a crash has left
// behind it removes first. A start that fails leaves nothing but its logs.
func (n *Node) Up(ctx context.Context, dnsUpstream string) error {
	if err := requireRoot("up"); err != nil {
		return err
	}
	unlock, err := n.lock()
	if err != nil {
		return err
	}
	defer unlock()
	began := time.Now()
	health := n.patientHealth(ctx)
	switch {
	case health == nil:
		return n.alreadyUp(ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if err := n.prepare(ctx, health); err != nil {
		return err
	}
	err = n.start(ctx, render.Options{CNIBin: host.CNIBin(), DNSUpstream: dnsUpstream})
	if err != nil {
		n.keepLogs()
		cleaning := n.clean(context.WithoutCancel(ctx))
		return errors.Join(fmt.Errorf("%w\n(all logs: %s)", err, n.Layout.FailedLogs()), cleaning)
	}
	n.Report("the cluster is up after %.1f s; export KUBECONFIG=%s", time.Since(began).Seconds(), n.Layout.Kubeconfig("admin"))
	return nil
}

func (n *Node) alreadyUp(ctx context.Context) error {
	client, err := kube.New(n.Layout)
	if err != nil {
		return err
	}
	recycled, err := recycleVolumes(ctx, n.Layout, client)
	if err != nil {
		return err
	}
	n.Report("the cluster is running already (%d released volumes recycled); KUBECONFIG=%s", recycled, n.Layout.Kubeconfig("admin"))
	return nil
}

// prepare checks what a start needs, installs what is missing and removes what an earlier run left.
func (n *Node) prepare(ctx context.Context, health error) error {
	l := n.Layout
	if err := l.CheckSocketLength(); err != nil {
		return err
	}
	for _, path := range []string{l.Binary("kubernetes"), l.Binary("etcd"), l.Binary("containerd"), l.Binary("coredns"), l.PauseTar()} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is missing; run `make cluster-build` (`cluster build`) first", path)
		}
	}
	if err := host.InstallPackages(ctx, n.Report); err != nil {
		return err
	}
	switch {
	case !errors.Is(health, ErrDown):
		n.Report("%v; removing it and starting anew", health)
	case host.Abandoned(ctx):
		n.Report("a cluster that was started from another folder has been killed; removing what it left")
	default:
		if err := host.ForeignProxy(ctx); err != nil {
			return err
		}
	}
	if err := n.clean(ctx); err != nil {
		return err
	}
	return host.CheckSubnets()
}

// keepLogs moves the logs of a failed start out of the state folder, which goes.
func (n *Node) keepLogs() {
	os.RemoveAll(n.Layout.FailedLogs())                   //nolint:errcheck // the rename says
	os.Rename(n.Layout.In("logs"), n.Layout.FailedLogs()) //nolint:errcheck // a start that failed early has none
}

func (n *Node) start(ctx context.Context, o render.Options) error {
	l := n.Layout
	if err := n.writeFiles(o); err != nil {
		return err
	}
	if err := host.TuneKernel(ctx, l.In("kernel.json")); err != nil {
		return err
	}
	if err := host.MakeBridge(ctx); err != nil {
		return err
	}
	if err := host.MakeTables(ctx, l.In("config", "masquerade.nft")); err != nil {
		return err
	}
	if err := host.MakeCgroups(); err != nil {
		return err
	}
	if err := host.CheckPorts(); err != nil {
		return err
	}
	n.Report("starting the node")
	client, err := kube.New(l)
	if err != nil {
		return err
	}
	// The runtime and the control plane do not need each other; the first to fail ends both.
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	runtime := make(chan error, 1)
	go func() {
		err := n.startRuntime(both)
		if err != nil {
			cancel(err)
		}
		runtime <- err
	}()
	err = n.startControlPlane(both, client)
	if err != nil {
		cancel(err)
	}
	if err := errors.Join(<-runtime, err); err != nil {
		return errors.Join(context.Cause(both))
	}
	return n.startNode(ctx, client)
}

func (n *Node) writeFiles(o render.Options) error {
	l := n.Layout
	for _, dir := range []string{"pki", "logs", "pids", "run", "cni", "config", "tmp", "etcd", "containerd", "kubelet", "pods", "volumes", "opt", "volume-plugins"} {
		mode := os.FileMode(0o755)
		if dir == "pki" || dir == "etcd" || dir == "tmp" {
			mode = 0o700
		}
		if err := os.MkdirAll(l.In(dir), mode); err != nil {
			return err
		}
	}
	if err := pki.WriteAll(l, time.Now()); err != nil {
		return err
	}
	files, err := render.Files(l, o)
	if err != nil {
		return err
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// startRuntime starts containerd and gives it the sandbox image.
func (n *Node) startRuntime(ctx context.Context) error {
	if err := start(n.Layout, "containerd"); err != nil {
		return err
	}
	err := n.await(ctx, "containerd", func(context.Context) error {
		conn, err := net.Dial("unix", n.Layout.ContainerdSocket())
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	return n.importImages(ctx, []string{n.Layout.PauseTar()})
}

func (n *Node) startControlPlane(ctx context.Context, client *kube.Client) error {
	if err := start(n.Layout, "etcd"); err != nil {
		return err
	}
	if err := n.await(ctx, "etcd", func(context.Context) error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", layout.EtcdPort))
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		return err
	}
	if err := start(n.Layout, "kube-apiserver"); err != nil {
		return err
	}
	if err := n.await(ctx, "kube-apiserver", func(ctx context.Context) error {
		_, err := client.Raw(ctx, "/readyz")
		return err
	}); err != nil {
		return err
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := start(n.Layout, name); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts what makes the machine a node, once both the runtime and the API server answer, and waits until
// pods can run, names resolve and claims can be bound.
func (n *Node) startNode(ctx context.Context, client *kube.Client) error {
	l := n.Layout
	if err := start(l, "kubelet"); err != nil {
		return err
	}
	if err := n.await(ctx, "kube-apiserver", func(ctx context.Context) error {
		_, err := client.Raw(ctx, "/api/v1/namespaces/kube-system")
		return err
	}); err != nil {
		return err
	}
	manifests, err := render.Manifests(l)
	if err != nil {
		return err
	}
	for _, manifest := range manifests {
		if err := client.Apply(ctx, manifest); err != nil {
			return err
		}
	}
	if err := start(l, "coredns"); err != nil {
		return err
	}
	// kube-proxy asks for its node once and then only every few seconds.
	if err := n.await(ctx, "kubelet", func(ctx context.Context) error {
		_, err := client.Raw(ctx, "/api/v1/nodes/"+layout.NodeName)
		return err
	}); err != nil {
		return err
	}
	if err := start(l, "kube-proxy"); err != nil {
		return err
	}
	if err := makeVolumes(ctx, l, client); err != nil {
		return err
	}
	if err := n.await(ctx, "kubelet", func(ctx context.Context) error { return nodeReady(ctx, client) }); err != nil {
		return err
	}
	if err := n.await(ctx, "kube-controller-manager", func(ctx context.Context) error {
		_, err := client.Raw(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
		return err
	}); err != nil {
		return err
	}
	// A name that resolves through the Service proves CoreDNS, kube-proxy and the Service network at once.
	return n.await(ctx, "kube-proxy", func(ctx context.Context) error {
		return resolve(ctx, "kubernetes.default.svc.cluster.local.", layout.APIService)
	})
}

// resolve asks the cluster's DNS Service.
func resolve(ctx context.Context, name, want string) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: time.Second}
		return d.DialContext(ctx, "udp", layout.DNSService+":53")
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	if len(addresses) != 1 || addresses[0] != want {
		return fmt.Errorf("%s resolves to %v, not to %s", name, addresses, want)
	}
	return nil
}

// await waits for a condition that a component brings about, and no longer than that component lives.
func (n *Node) await(ctx context.Context, name string, condition func(context.Context) error) error {
	r := process.Read(n.Layout.PIDFile(name))
	err := process.Until(ctx, patience, "waiting for "+name, func(ctx context.Context) error {
		if !r.Alive() {
			return process.Fatal(errors.New("it has ended"))
		}
		return condition(ctx)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	log, _ := os.ReadFile(n.Layout.Log(name))
	return fmt.Errorf("%w; its last output:\n%s", err, logTail(log))
}

// Load imports image tars into the running node.
func (n *Node) Load(ctx context.Context, tars []string) error {
	if err := requireRoot("load"); err != nil {
		return err
	}
	if err := n.Health(ctx); err != nil {
		return fmt.Errorf("%w; run `make cluster-up` (`cluster up`) first", err)
	}
	return n.importImages(ctx, tars)
}

func (n *Node) importImages(ctx context.Context, tars []string) error {
	for _, tar := range tars {
		path, err := filepath.Abs(tar)
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w; `make images` makes MetIP's images", err)
		}
		_, err = process.Command(ctx, n.Layout.Binary("ctr"), "--address", n.Layout.ContainerdSocket(), "--namespace", "k8s.io", "images", "import", path)
		if err != nil {
			return err
		}
		if path != n.Layout.PauseTar() {
			n.Report("loaded %s", tar)
		}
	}
	return nil
}
