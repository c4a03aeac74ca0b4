// Package layout says where the local cluster keeps its files and which names and addresses it uses. It only
// computes; it neither reads nor writes.
package layout

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// Names and addresses of the one cluster that a machine can run.
const (
	NodeName    = "metip-node"
	Bridge      = "metip0"
	BridgeMAC   = "02:00:0a:f4:00:01" // fixed: a bridge otherwise takes the MAC of a port, and each new pod changes it
	NodeIP      = "10.244.0.1"
	PodCIDR     = "10.244.0.0/22" // room for the kubelet's 250 pods
	NodePrefix  = "/22"
	ServiceCIDR = "10.96.0.0/16"
	APIService  = "10.96.0.1"
	DNSService  = "10.96.0.10"
	Network     = "metip-cluster" // the CNI network, the nftables table and the cgroup are all called this
	PauseImage  = "localhost/metip-pause:1"

	APIPort     = 6443
	KubeletPort = 10250
	DNSPort     = 1053

	EtcdPort           = 23790 // not etcd's own port, so that a developer's etcd is not in the way
	EtcdPeerPort       = 23800
	KubeletHealthPort  = 10248
	ProxyMetricsPort   = 10249
	ProxyHealthPort    = 10256
	ControllersPort    = 10257
	SchedulerPort      = 10259
	Volumes            = 96 // pre-made local PersistentVolumes; `up` on a running cluster recycles the released ones
	VolumeSize         = "100Gi"
	maxUnixSocketBytes = 107
)

// Layout is the set of paths below one repository root.
type Layout struct{ Root string }

// Bin holds the binaries; it serves as KUBEBUILDER_ASSETS, too.
func (l Layout) Bin() string { return filepath.Join(l.Root, "out", "bin") }

// Binary is the path of one of them.
func (l Layout) Binary(name string) string { return filepath.Join(l.Bin(), name) }

// Images holds image tar files.
func (l Layout) Images() string { return filepath.Join(l.Root, "out", "images") }

// PauseTar is the image of the pods' sandbox container.
func (l Layout) PauseTar() string { return filepath.Join(l.Images(), "pause.tar") }

// Module is the folder of this tool's own Go module.
func (l Layout) Module() string { return filepath.Join(l.Root, "hack", "cluster") }

// State holds everything of a running cluster; it does not exist while the cluster is down.
func (l Layout) State() string { return filepath.Join(l.Root, "out", "cluster") }

// In is a path below State.
func (l Layout) In(elem ...string) string {
	return filepath.Join(append([]string{l.State()}, elem...)...)
}

// LockFile keeps two invocations from changing the cluster at once.
func (l Layout) LockFile() string { return filepath.Join(l.Root, "out", ".cluster.lock") }

// FailedLogs is where the logs of a start that failed are kept.
func (l Layout) FailedLogs() string { return filepath.Join(l.Root, "out", "cluster-failed-logs") }

// Kubeconfig is a component's; "admin" is the user's.
func (l Layout) Kubeconfig(name string) string { return l.In(name + ".conf") }

// Cert and Key are a certificate's files.
func (l Layout) Cert(name string) string { return l.In("pki", name+".crt") }

// Key is the private key that belongs to Cert.
func (l Layout) Key(name string) string { return l.In("pki", name+".key") }

// Log is a component's output.
func (l Layout) Log(name string) string { return l.In("logs", name+".log") }

// PIDFile is a component's process record.
func (l Layout) PIDFile(name string) string { return l.In("pids", name+".json") }

// ContainerdSocket is where the runtime listens.
func (l Layout) ContainerdSocket() string { return l.In("run", "containerd.sock") }

// VolumeDir is the folder behind a PersistentVolume.
func (l Layout) VolumeDir(n int) string { return l.In("volumes", strconv.Itoa(n)) }

// VolumeName is the name of a PersistentVolume.
func VolumeName(n int) string { return fmt.Sprintf("local-%03d", n) }

// APIServer is the API server's address, reachable from the machine and from pods.
func APIServer() string { return fmt.Sprintf("https://%s:%d", NodeIP, APIPort) }

// CheckSocketLength refuses a repository path so long that containerd's sockets would not fit into an address.
func (l Layout) CheckSocketLength() error {
	longest := l.ContainerdSocket() + ".ttrpc"
	if len(longest) > maxUnixSocketBytes {
		return fmt.Errorf("the repository's path is too long: %s has %d bytes and a Unix socket's address holds %d; "+
			"check the repository out in a shorter path", longest, len(longest), maxUnixSocketBytes)
	}
	return nil
}
