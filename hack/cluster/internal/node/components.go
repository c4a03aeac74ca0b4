package node

import (
	"fmt"
	"strings"

	"github.com/metip/metip/hack/cluster/internal/host"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/process"
)

// Components are the servers in the order in which they are shown.
var Components = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet", "kube-proxy", "coredns",
}

// start starts a component and records it.
func start(l layout.Layout, name string) error {
	r, err := process.Start(process.Spec{
		Name: name,
		Path: l.Binary(name),
		Args: arguments(l)[name],
		Env:  []string{"PATH=" + l.Bin() + ":" + host.Path, "HOME=" + l.State(), "TMPDIR=" + l.In("tmp")},
		Log:  l.Log(name),
	})
	if err != nil {
		return err
	}
	return r.Write(l.PIDFile(name))
}

// arguments are the components' command lines. Everything listens on loopback or on the bridge.
func arguments(l layout.Layout) map[string][]string {
	etcdClient := fmt.Sprintf("https://127.0.0.1:%d", layout.EtcdPort)
	etcdPeer := fmt.Sprintf("https://127.0.0.1:%d", layout.EtcdPeerPort)
	return map[string][]string{
		"etcd": {
			"--name=metip", "--data-dir=" + l.In("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + etcdClient, "--advertise-client-urls=" + etcdClient,
			"--listen-peer-urls=" + etcdPeer, "--initial-advertise-peer-urls=" + etcdPeer, "--initial-cluster=metip=" + etcdPeer,
			"--client-cert-auth", "--trusted-ca-file=" + l.Cert("etcd-ca"), "--cert-file=" + l.Cert("etcd"), "--key-file=" + l.Key("etcd"),
			"--peer-client-cert-auth", "--peer-trusted-ca-file=" + l.Cert("etcd-ca"), "--peer-cert-file=" + l.Cert("etcd"), "--peer-key-file=" + l.Key("etcd"),
		},
		"kube-apiserver": {
			"--etcd-servers=" + etcdClient, "--etcd-cafile=" + l.Cert("etcd-ca"), "--etcd-certfile=" + l.Cert("etcd"), "--etcd-keyfile=" + l.Key("etcd"),
			"--bind-address=" + layout.NodeIP, fmt.Sprintf("--secure-port=%d", layout.APIPort), "--advertise-address=" + layout.NodeIP,
			"--client-ca-file=" + l.Cert("ca"), "--tls-cert-file=" + l.Cert("apiserver"), "--tls-private-key-file=" + l.Key("apiserver"),
			"--service-account-key-file=" + l.In("pki", "service-account.pub"), "--service-account-signing-key-file=" + l.Key("service-account"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-cluster-ip-range=" + layout.ServiceCIDR,
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--kubelet-certificate-authority=" + l.Cert("ca"), "--kubelet-client-certificate=" + l.Cert("apiserver-kubelet-client"), "--kubelet-client-key=" + l.Key("apiserver-kubelet-client"),
			"--kubelet-preferred-address-types=InternalIP", // the node's name is in nobody's DNS
			"--requestheader-client-ca-file=" + l.Cert("front-proxy-ca"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + l.Cert("front-proxy-client"), "--proxy-client-key-file=" + l.Key("front-proxy-client"),
			"--profiling=false",
		},
		"kube-controller-manager": {
			"--kubeconfig=" + l.Kubeconfig("kube-controller-manager"), "--authentication-kubeconfig=" + l.Kubeconfig("kube-controller-manager"), "--authorization-kubeconfig=" + l.Kubeconfig("kube-controller-manager"),
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", layout.ControllersPort),
			"--tls-cert-file=" + l.Cert("kube-controller-manager"), "--tls-private-key-file=" + l.Key("kube-controller-manager"),
			"--service-account-private-key-file=" + l.Key("service-account"), "--root-ca-file=" + l.Cert("ca"), "--use-service-account-credentials",
			"--cluster-signing-cert-file=" + l.Cert("ca"), "--cluster-signing-key-file=" + l.Key("ca"),
			"--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false",
		},
		"kube-scheduler": {
			"--config=" + l.In("config", "kube-scheduler.yaml"),
			"--authentication-kubeconfig=" + l.Kubeconfig("kube-scheduler"), "--authorization-kubeconfig=" + l.Kubeconfig("kube-scheduler"),
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", layout.SchedulerPort),
			"--tls-cert-file=" + l.Cert("kube-scheduler"), "--tls-private-key-file=" + l.Key("kube-scheduler"),
		},
		"containerd": {"--config=" + l.In("config", "containerd.toml")},
		"kubelet": {
			"--config=" + l.In("config", "kubelet.yaml"), "--kubeconfig=" + l.Kubeconfig("kubelet"), "--root-dir=" + l.In("kubelet"),
			"--hostname-override=" + layout.NodeName, "--node-ip=" + layout.NodeIP,
		},
		"kube-proxy": {"--config=" + l.In("config", "kube-proxy.yaml")},
		"coredns":    {"-conf=" + l.In("config", "Corefile")},
	}
}

// logTail is the end of a component's output, for an error message.
func logTail(content []byte) string {
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	return "    " + strings.Join(lines, "\n    ")
}
