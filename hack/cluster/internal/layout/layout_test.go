package layout

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesFitTogether(t *testing.T) {
	pods, services := netip.MustParsePrefix(PodCIDR), netip.MustParsePrefix(ServiceCIDR)
	if pods.Overlaps(services) {
		t.Error("pods and Services overlap")
	}
	if !pods.Contains(netip.MustParseAddr(NodeIP)) || !strings.HasSuffix(PodCIDR, NodePrefix) {
		t.Error("the node is not in the pods' subnet")
	}
	for _, address := range []string{APIService, DNSService} {
		if !services.Contains(netip.MustParseAddr(address)) {
			t.Errorf("%s is no Service address", address)
		}
	}
	if free := 1<<(32-pods.Bits()) - 3; free < 250 {
		t.Errorf("%d addresses are too few for the kubelet's 250 pods", free)
	}
}

func TestSocketLength(t *testing.T) {
	if err := (Layout{Root: "/home/someone/src/metip"}).CheckSocketLength(); err != nil {
		t.Error(err)
	}
	if err := (Layout{Root: "/" + strings.Repeat("long", 25)}).CheckSocketLength(); err == nil {
		t.Error("a path that no socket fits into was accepted")
	}
}
