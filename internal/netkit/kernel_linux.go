package netkit

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds Dump: a table that changes faster than it can be read
// this many times in a row is an error, not a reason to spin.
const dumpAttempts = 10

// Dump calls list until it gives a consistent answer. A netlink dump is not
// atomic: the kernel says when the table changed while it was being read.
func Dump[T any](list func() (T, error)) (T, error) {
	var out T
	var err error
	for range dumpAttempts {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return out, err
		}
	}
	return out, err
}

// Sysctl sets a value below /proc/sys, and writes only when it differs: some
// of them flush caches on every write.
func Sysctl(value string, path ...string) error {
	p := filepath.Join(append([]string{"/proc/sys"}, path...)...)
	if old, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(p, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}

// IPNet gives a prefix in the form netlink takes, host bits kept.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Host is the route to one address alone.
func Host(a netip.Addr) *net.IPNet { return IPNet(netip.PrefixFrom(a, a.BitLen())) }

// Prefix reads an address or subnet as netlink gives it; ok is false for nil
// and for anything but IPv4.
func Prefix(n *net.IPNet) (p netip.Prefix, ok bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if a = a.Unmap(); !ok || !a.Is4() {
		return netip.Prefix{}, false
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits), true
}

// ContainerMTU is the largest packet of a container that reaches other nodes
// whole: what the tunnel takes, or will take once there is one.
func ContainerMTU(encrypted bool) (int, error) {
	overhead := TunnelOverhead
	if encrypted {
		overhead = EncryptedOverhead
	}
	link, err := netlink.LinkByName(Tunnel)
	if err == nil {
		return link.Attrs().MTU + TunnelOverhead - overhead, nil
	}
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return 0, fmt.Errorf("find tunnel: %w", err)
	}
	routes, err := Dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	least := DefaultMTU
	for _, r := range routes {
		if p, ok := Prefix(r.Dst); (ok && p.Bits() > 0) || r.LinkIndex == 0 {
			continue
		}
		// The way to everywhere is likely the way to the other nodes as well.
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("find interface %d: %w", r.LinkIndex, err)
		}
		least = min(least, link.Attrs().MTU)
	}
	return least - overhead, nil
}

// EnsureGateway makes the host own the containers' gateway address.
func EnsureGateway() error {
	r, err := localRoute(Gateway)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("own gateway address %s: %w", Gateway, err)
	}
	return nil
}

// RemoveGateway undoes EnsureGateway.
func RemoveGateway() error {
	r, err := localRoute(Gateway)
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("release gateway address %s: %w", Gateway, err)
	}
	return nil
}

func localRoute(a netip.Addr) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: Host(a), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Scope: netlink.SCOPE_HOST, Protocol: RouteProtocol,
	}, nil
}
