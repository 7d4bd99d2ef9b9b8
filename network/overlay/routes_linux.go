package overlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
	"shoal/network/wireguard"
)

// Metrics of our routes. A container's own route has the best.
const (
	// viaTunnel gives way to a container of this host.
	viaTunnel = 1
	// lastResort is the worst. A host that is connected to the same subnet
	// keeps its own route.
	lastResort = 1<<32 - 1
)

// holdSubnets makes the host hold every address of the subnets that has no more
// specific route. It then answers ARP for all of them on containers'
// interfaces, and what nobody lives at, virtual addresses among them, is
// delivered to the host, where the mesh rewrites it or the firewall refuses
// it. One route per network serves any number of services.
func holdSubnets(subnets []netip.Prefix) error {
	want, err := held(subnets)
	if err != nil {
		return err
	}
	return setRoutes(want, netlink.Route{Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TYPE|netlink.RT_FILTER_TABLE)
}

func held(subnets []netip.Prefix) ([]netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	var want []netlink.Route
	for _, s := range subnets {
		want = append(want, netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: netkit.IPNet(s), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_MAIN,
			Scope: netlink.SCOPE_HOST, Protocol: netkit.RouteProtocol, Priority: lastResort,
		})
	}
	return want, nil
}

// traffic is what leads into one of the tunnels.
type traffic struct {
	remotes []Remote
	answers []Peer // to what came in by them
}

func (s State) traffic(encrypted bool) (w traffic) {
	// Those at a node without a key have no way, and are refused at once.
	keyless := map[netip.Addr]bool{}
	for _, p := range s.Tunnel.Peers {
		keyless[p.Addr] = p.Key == wireguard.Key{}
	}
	for _, r := range s.Tunnel.Remotes {
		if r.Encrypted == encrypted && !(encrypted && keyless[r.Via]) {
			w.remotes = append(w.remotes, r)
		}
	}
	if s.clientsEncrypted() == encrypted {
		w.answers = s.Tunnel.Peers
	}
	return w
}

// setWays routes remote tasks to their nodes, and marked answers back to the
// node that asked.
func setWays(w traffic, device int) error {
	if device == 0 {
		return nil // they went with the device
	}
	// All tables are meant by naming none.
	return setRoutes(w.routes(device), netlink.Route{LinkIndex: device}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
}

func (w traffic) routes(device int) []netlink.Route {
	var want []netlink.Route
	way := func(dst netip.Prefix, via netip.Addr, table, metric int) {
		want = append(want, netlink.Route{
			LinkIndex: device, Dst: netkit.IPNet(dst), Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			Type: unix.RTN_UNICAST, Table: table, Protocol: netkit.RouteProtocol, Priority: metric,
		})
	}
	for _, p := range w.answers {
		way(everything, p.Addr, int(p.Mark), 0)
	}
	for _, r := range w.remotes {
		way(netip.PrefixFrom(r.Addr, 32), r.Via, unix.RT_TABLE_MAIN, viaTunnel)
	}
	return want
}

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// routeID tells routes apart as the kernel does.
type routeID struct {
	dst           netip.Prefix
	table, metric int
}

// setRoutes makes those of our routes that a filter selects equal to want.
// Routes are replaced, never added: whatever is in the way is wrong.
func setRoutes(want []netlink.Route, filter netlink.Route, by uint64) error {
	filter.Protocol = netkit.RouteProtocol
	have, err := netkit.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &filter, by|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	known := make(map[routeID]netlink.Route, len(have))
	for _, r := range have {
		known[idOf(r)] = r
	}
	// One that can not be set must not keep the others from being right.
	var errs []error
	kept := make(map[routeID]bool, len(want))
	for _, r := range want {
		id := idOf(r)
		kept[id] = true
		if h, ok := known[id]; ok && h.LinkIndex == r.LinkIndex && h.Gw.Equal(r.Gw) && h.Type == r.Type {
			continue
		}
		if err := netlink.RouteReplace(&r); err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", id.dst, err))
		}
	}
	for _, r := range have {
		if id := idOf(r); !kept[id] {
			if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("remove route of %s: %w", id.dst, err))
			}
		}
	}
	return errors.Join(errs...)
}

func idOf(r netlink.Route) routeID {
	dst, ok := netkit.Prefix(r.Dst)
	if !ok {
		dst = everything
	}
	return routeID{dst, r.Table, r.Priority}
}
