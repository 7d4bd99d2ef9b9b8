package plugin

import (
	"errors"
	"fmt"
	"maps"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// A container on several networks has an interface on each, and answers from its
// address on one of them may leave by another: its routes decide, and engines set
// them up in any order. The firewall asks of a sender that the route to it uses the
// interface that it came by. So the route to each address has all of the
// container's interfaces: its own for nearly everything, the others as its permit.

// ownWeight is how much more often the own interface is taken than another: the
// most that the kernel takes.
const ownWeight = 256

// siblings are the other endpoints of an endpoint's container, by ID.
func (p *Plugin) siblings(id string, e Endpoint) map[string]Endpoint {
	out := map[string]Endpoint{}
	if e.Sandbox == "" {
		return out
	}
	for other, o := range p.records.endpoints() {
		if other != id && o.Sandbox == e.Sandbox && linkExists(netkit.HostIface(other)) {
			out[other] = o
		}
	}
	return out
}

// way gives the route to a container's address by all of its interfaces that are
// there.
func way(link netlink.Link, e Endpoint, siblings map[string]Endpoint) (*netlink.Route, error) {
	route := &netlink.Route{Dst: netkit.Host(e.Addr.Addr()), Scope: netlink.SCOPE_LINK, Protocol: netkit.RouteProtocol}
	own := link.Attrs().Index
	hops := []*netlink.NexthopInfo{{LinkIndex: own, Hops: ownWeight - 1}}
	for id, s := range siblings {
		other, err := netlink.LinkByName(netkit.HostIface(id))
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find interface %s: %w", netkit.HostIface(id), err)
		}
		if other.Attrs().Flags&net.FlagUp == 0 {
			continue // the kernel refuses it; its own repair comes
		}
		if err := neighbour(other, s.MAC, e); err != nil {
			return nil, err
		}
		hops = append(hops, &netlink.NexthopInfo{LinkIndex: other.Attrs().Index})
	}
	if len(hops) == 1 {
		route.LinkIndex = own
	} else {
		route.MultiPath = hops
	}
	return route, nil
}

// neighbour tells where an address of a container is found on one of its
// interfaces. A fixed entry saves asking the container, which would not always
// answer: one without a default route does not know the asker.
func neighbour(link netlink.Link, mac string, e Endpoint) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("interface %s: %w", link.Attrs().Name, err)
	}
	n := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: e.Addr.Addr().AsSlice(), HardwareAddr: hw,
	}
	if err := netlink.NeighSet(n); err != nil {
		return fmt.Errorf("neighbour %s on %s: %w", e.Addr.Addr(), link.Attrs().Name, err)
	}
	return nil
}

// relate has the routes to a container's other addresses use its new interface.
func relate(id string, e Endpoint, siblings map[string]Endpoint) error {
	all := maps.Clone(siblings)
	all[id] = e
	return reconnect(all, id)
}

// part undoes relate. It goes before the interface does: the kernel drops a whole
// route with any interface of it.
func part(siblings map[string]Endpoint) error { return reconnect(siblings, "") }

// reconnect sets the routes to all of a container's addresses but one.
func reconnect(all map[string]Endpoint, except string) error {
	var errs []error
	for id, e := range all {
		if id == except {
			continue
		}
		rest := maps.Clone(all)
		delete(rest, id)
		errs = append(errs, connect(id, e, rest))
	}
	return errors.Join(errs...)
}
