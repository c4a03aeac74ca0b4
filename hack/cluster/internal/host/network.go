package host

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

// CheckSubnets refuses when an interface or a route of the machine overlaps the pods' or the Services' addresses:
// packets to pods would take the other way ("no route to host").
func CheckSubnets() error {
	content, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return err
	}
	for _, r := range parseRoutes(string(content)) {
		if r.device == layout.Bridge {
			continue
		}
		for _, own := range []string{layout.PodCIDR, layout.ServiceCIDR} {
			if r.network.Overlaps(netip.MustParsePrefix(own)) {
				return fmt.Errorf("the cluster's subnet %s is taken: interface %s has a route to %s; "+
					"take that interface down (`ip link delete %s`, if nothing needs it) or disconnect that network (VPN)",
					own, r.device, r.network, r.device)
			}
		}
	}
	return nil
}

type route struct {
	device  string
	network netip.Prefix
}

// parseRoutes reads /proc/net/route, leaving default routes out.
func parseRoutes(content string) []route {
	var routes []route
	for _, line := range strings.Split(content, "\n") {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		destination, err1 := hex.DecodeString(f[1])
		mask, err2 := hex.DecodeString(f[7])
		if err1 != nil || err2 != nil || len(destination) != 4 || len(mask) != 4 {
			continue // the heading
		}
		// The kernel prints host byte order.
		var addr, m [4]byte
		binary.BigEndian.PutUint32(addr[:], binary.LittleEndian.Uint32(destination))
		binary.BigEndian.PutUint32(m[:], binary.LittleEndian.Uint32(mask))
		ones, _ := net.IPMask(m[:]).Size()
		if ones == 0 {
			continue
		}
		routes = append(routes, route{device: f[0], network: netip.PrefixFrom(netip.AddrFrom4(addr), ones)})
	}
	return routes
}

// MakeBridge makes the pods' bridge. It carries the node's own address, so that nothing depends on the machine's
// other interfaces, and a route to Services, so that they are reached without a default route, too.
func MakeBridge(ctx context.Context) error {
	for _, args := range [][]string{
		{"link", "add", layout.Bridge, "address", layout.BridgeMAC, "type", "bridge"},
		{"addr", "add", layout.NodeIP + layout.NodePrefix, "dev", layout.Bridge},
		{"link", "set", layout.Bridge, "up"},
		{"route", "add", layout.ServiceCIDR, "dev", layout.Bridge, "src", layout.NodeIP},
	} {
		if _, err := run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// bridgeExists also says which interfaces hang on it.
func bridgeExists() (bool, []string) {
	root := filepath.Join("/sys/class/net", layout.Bridge)
	if _, err := os.Stat(root); err != nil {
		return false, nil
	}
	entries, _ := os.ReadDir(filepath.Join(root, "brif"))
	var ports []string
	for _, e := range entries {
		ports = append(ports, e.Name())
	}
	return true, ports
}

// RemoveBridge removes the bridge and the pods' interfaces on it.
func RemoveBridge(ctx context.Context) error {
	exists, ports := bridgeExists()
	if !exists {
		return nil
	}
	for _, port := range ports {
		run(ctx, "ip", "link", "delete", port) //nolint:errcheck // the kernel may be removing it with its namespace
	}
	_, err := run(ctx, "ip", "link", "delete", layout.Bridge)
	return err
}

// masquerade lets pods reach what is outside the cluster.
const masquerade = `table ip ` + layout.Network + ` {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr ` + layout.PodCIDR + ` ip daddr != { ` + layout.PodCIDR + `, ` + layout.ServiceCIDR + ` } masquerade
	}
}
`

// tables are the packet filter tables that exist while a cluster runs: ours and kube-proxy's.
var tables = [][2]string{{"ip", layout.Network}, {"ip", "kube-proxy"}, {"ip6", "kube-proxy"}}

// MakeTables makes our own table. Where forwarding is refused by default (Docker does that), pods are excepted.
func MakeTables(ctx context.Context, file string) error {
	if err := os.WriteFile(file, []byte(masquerade), 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, "nft", "-f", file); err != nil {
		return err
	}
	rules, err := run(ctx, "iptables", "-w", "-S", "FORWARD")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(rules, "-P FORWARD DROP") {
		return nil
	}
	for _, rule := range forwardRules() {
		if _, err := run(ctx, "iptables", append([]string{"-w", "-I", "FORWARD"}, rule...)...); err != nil {
			return err
		}
	}
	return nil
}

func forwardRules() [][]string {
	comment := []string{"-m", "comment", "--comment", layout.Network, "-j", "ACCEPT"}
	return [][]string{append([]string{"-i", layout.Bridge}, comment...), append([]string{"-o", layout.Bridge}, comment...)}
}

// Abandoned tells whether a cluster was killed and left its tables behind, in whichever folder it was: there is the
// table that only ours makes, and nobody listens on the ports of its servers, which share the tables' network.
func Abandoned(ctx context.Context) bool {
	_, err := run(ctx, "nft", "list", "table", tables[0][0], tables[0][1])
	return err == nil && checkPorts("127.0.0.1", loopbackPorts) == nil
}

// OfOthers tells whether a cluster runs here that was started from another folder than the one with this state.
func OfOthers(ctx context.Context, state string) bool {
	if _, err := os.Stat(state); err == nil {
		return false
	}
	_, err := run(ctx, "nft", "list", "table", tables[0][0], tables[0][1])
	return err == nil && checkPorts("127.0.0.1", loopbackPorts) != nil
}

// ForeignProxy refuses when another kube-proxy has its tables on this machine.
func ForeignProxy(ctx context.Context) error {
	for _, t := range tables[1:] {
		if _, err := run(ctx, "nft", "list", "table", t[0], t[1]); err == nil {
			return fmt.Errorf("another Kubernetes node seems to run here: there is an nftables table %q; "+
				"stop that node, or if none runs: nft delete table %s %s", t[1], t[0], t[1])
		}
	}
	return nil
}

// RemoveTables removes our table and kube-proxy's.
func RemoveTables(ctx context.Context) error {
	var failed []error
	for _, t := range tables {
		if _, err := run(ctx, "nft", "list", "table", t[0], t[1]); err != nil {
			continue
		}
		if _, err := run(ctx, "nft", "delete", "table", t[0], t[1]); err != nil {
			failed = append(failed, err)
		}
	}
	rules, err := run(ctx, "iptables", "-w", "-S", "FORWARD")
	if err == nil && strings.Contains(rules, layout.Network) {
		for _, rule := range forwardRules() {
			if _, err := run(ctx, "iptables", append([]string{"-w", "-D", "FORWARD"}, rule...)...); err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// NetworkLeftovers lists what of the above there still is.
func NetworkLeftovers(ctx context.Context) []string {
	var left []string
	if exists, _ := bridgeExists(); exists {
		left = append(left, "interface "+layout.Bridge)
	}
	for _, t := range tables {
		if _, err := run(ctx, "nft", "list", "table", t[0], t[1]); err == nil {
			left = append(left, "nftables table "+t[0]+" "+t[1])
		}
	}
	return left
}

var (
	loopbackPorts = []int{layout.EtcdPort, layout.EtcdPeerPort, layout.KubeletHealthPort, layout.ProxyMetricsPort, layout.ProxyHealthPort, layout.ControllersPort, layout.SchedulerPort}
	nodePorts     = []int{layout.APIPort, layout.KubeletPort, layout.DNSPort}
)

// CheckPorts refuses when one of the cluster's ports is taken. The bridge must be there.
func CheckPorts() error {
	return errors.Join(checkPorts("127.0.0.1", loopbackPorts), checkPorts(layout.NodeIP, nodePorts))
}

func checkPorts(ip string, ports []int) error {
	for _, port := range ports {
		address := fmt.Sprintf("%s:%d", ip, port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("the cluster needs %s: %w; find who has it with `ss -ltnp sport = :%d` and stop that", address, err, port)
		}
		l.Close()
	}
	return nil
}
