package plugin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"shoal/internal/netkit"
)

// Keys of the engine's IPAM protocol.
const (
	requestType    = "RequestAddressType"
	requestGateway = "com.docker.network.gateway"
)

type requestPoolRequest struct {
	Pool    string
	Options map[string]string
	V6      bool
}

// requestPool accepts a subnet that the managers chose, or the pool that they
// choose a network's subnets from. Its ID says all that later calls need, so there
// is nothing to remember.
func (p *Plugin) requestPool(req requestPoolRequest) (any, error) {
	id := req.Options[OptionNetworkID]
	if id == "" {
		return nil, fmt.Errorf("addresses of driver %s are the cluster's to give, to its own networks", Driver)
	}
	if req.V6 {
		return nil, fmt.Errorf("network %s: IPv6 is not supported", id)
	}
	subnet, err := netip.ParsePrefix(req.Pool)
	if err != nil || !subnet.Addr().Is4() {
		return nil, fmt.Errorf("network %s: %q is not an IPv4 subnet", id, req.Pool)
	}
	subnet = subnet.Masked()
	return map[string]any{"PoolID": id + "@" + subnet.String(), "Pool": subnet.String(), "Data": map[string]string{}}, nil
}

type requestAddressRequest struct {
	PoolID  string
	Address string
	Options map[string]string
}

// askTime bounds how long a container's start waits for the managers. Engines give
// up on a driver after half a minute.
const askTime = 15 * time.Second

// requestAddress has the managers give an address: one engine must not guess at
// what others hold. A task names the one that it has.
func (p *Plugin) requestAddress(req requestAddressRequest) (any, error) {
	networkID, pool, _ := strings.Cut(req.PoolID, "@")
	subnet, err := netip.ParsePrefix(pool)
	if err != nil {
		return nil, fmt.Errorf("address pool %q is not one of ours", req.PoolID)
	}
	var want netip.Addr
	if req.Address != "" {
		if want, err = netip.ParseAddr(req.Address); err != nil || !subnet.Contains(want) {
			return nil, fmt.Errorf("address %q is not in %s", req.Address, subnet)
		}
	}
	switch gateway := req.Options[requestType] == requestGateway; {
	case gateway && !want.IsValid():
		// Engines note a gateway per network. Containers never see it: theirs
		// is link-local.
		return address(subnet.Addr().Next(), subnet), nil
	case gateway, want.IsValid() && p.addrs == nil:
		return address(want, subnet), nil
	case p.addrs == nil:
		return nil, fmt.Errorf("no address was given for a container on %s: containers are attached to this network by the cluster", subnet)
	}
	if want.IsValid() && p.taken(want) {
		return nil, fmt.Errorf("address %s: Address already in use by a container that runs on this node", want)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	given, err := p.addrs.Ask(ctx, networkID, want)
	if err != nil {
		return nil, err
	}
	if !p.records.takes(networkID, subnet, given.Addr()) {
		// After its next start it would not have the container back with it.
		p.addrs.Release(networkID, given.Addr())
		return nil, fmt.Errorf("the managers gave %s, and the engine of this node knows the network without it: it was made here before it grew, and is made anew when no container of this node is on it", given.Addr())
	}
	return address(given.Addr(), p.onLink(given, subnet)), nil
}

// onLink gives the subnet that a container with an address sees. A pool is more
// than that, and managers that are away do not say.
func (p *Plugin) onLink(given, pool netip.Prefix) netip.Prefix {
	if !given.IsSingleIP() {
		return given
	}
	if own, _ := p.around(given.Addr()); own.IsValid() {
		return own
	}
	return pool
}

type releaseAddressRequest struct{ PoolID, Address string }

func (p *Plugin) releaseAddress(req releaseAddressRequest) (any, error) {
	networkID, _, _ := strings.Cut(req.PoolID, "@")
	if a, err := netip.ParseAddr(req.Address); err == nil && p.addrs != nil {
		p.addrs.Release(networkID, a)
	}
	return struct{}{}, nil
}

// InUse lists the addresses of all containers on the cluster's networks here: of
// those on record, and of those that the kernel has a route to. A record that was
// lost must not have running containers' addresses given away.
func (p *Plugin) InUse() (map[netip.Addr]bool, error) {
	used := map[netip.Addr]bool{}
	for _, e := range p.records.endpoints() {
		used[e.Addr.Addr()] = true
	}
	return used, routed(used)
}

// routed adds the addresses that have a route to a container's interface.
func routed(to map[netip.Addr]bool) error {
	links, err := netkit.Dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Attrs().Index] = strings.HasPrefix(l.Attrs().Name, netkit.IfacePrefix)
	}
	routes, err := netkit.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: netkit.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		leads := ours[r.LinkIndex] || slices.ContainsFunc(r.MultiPath, func(h *netlink.NexthopInfo) bool { return ours[h.LinkIndex] })
		if r.Dst == nil || !leads {
			continue
		}
		if dst, ok := netkit.Prefix(r.Dst); ok && dst.IsSingleIP() {
			to[dst.Addr()] = true
		}
	}
	return nil
}

// taken tells whether a container has an address, by the record or, where that
// was lost, by the route. Whoever joined with it too would take its route away.
// What an engine that died left half made holds nothing: nobody has the other end.
func (p *Plugin) taken(addr netip.Addr) bool {
	for id, e := range p.records.endpoints() {
		if e.Addr.Addr() == addr && e.Sandbox != "" && linkExists(netkit.HostIface(id)) && !linkExists(netkit.PeerIface(id)) {
			return true
		}
	}
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil {
		return false // there is no way to it at all
	}
	for _, r := range routes {
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue // it went meanwhile
		}
		if id, ours := strings.CutPrefix(link.Attrs().Name, netkit.IfacePrefix); ours && !linkExists(netkit.PeerIface(id)) {
			return true
		}
	}
	return false
}

func address(a netip.Addr, subnet netip.Prefix) map[string]any {
	return map[string]any{"Address": netip.PrefixFrom(a, subnet.Bits()).String(), "Data": map[string]string{}}
}
