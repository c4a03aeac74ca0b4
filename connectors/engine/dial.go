package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dialer connects to systems, and refuses addresses that no system has: whatever a name resolves to, and after every redirect, for it
// is the address of the connection itself that is looked at.
type dialer struct {
	net.Dialer
	allowLoopback bool
}

func newDialer(allowLoopback bool) *dialer {
	d := &dialer{Dialer: net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}, allowLoopback: allowLoopback}
	d.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %s %s: %w", network, address, err)
		}
		return d.check(at.Addr())
	}
	return d
}

// metadata addresses of clouds that are not link-local.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16")}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// check an address; IPv4 within IPv6 is looked at as what it is.
func (d *dialer) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch b := a.As16(); {
	case nat64.Contains(a):
		a = netip.AddrFrom4([4]byte(b[12:16]))
	case sixTo4.Contains(a):
		a = netip.AddrFrom4([4]byte(b[2:6]))
	}
	refuse := func(kind string) error {
		return fmt.Errorf("the address %s is %s: connectors do not connect to such addresses", a, kind)
	}
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return refuse("unspecified")
	case a.IsLinkLocalUnicast():
		return refuse("link-local")
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return refuse("multicast or broadcast")
	case a.IsLoopback() && !d.allowLoopback:
		return refuse("the pod itself (loopback)")
	}
	for _, m := range metadata {
		if a == m {
			return refuse("a cloud's metadata service")
		}
	}
	return nil
}
