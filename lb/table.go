// Package lb is the routing mesh: it turns what the managers say about
// services into one table of virtual addresses, published ports and the tasks
// behind them. Package nft puts that table into the kernel.
package lb

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"shoal/internal/api"
)

// Table is everything the mesh of one node does. Equal states compile to equal
// tables.
type Table struct {
	// NodeAddr is what local clients that used 127.0.0.1 are seen as, if the
	// host has it; zero when none is known.
	NodeAddr netip.Addr
	Peers    []netip.Addr   // where other nodes' tunnels end
	Subnets  []netip.Prefix // of all networks: VIPs and tasks lie in them
	Ports    []Port
	VIPs     []VIP
	// Loops are the ways of a local task to itself through the mesh.
	Loops []Loop
	// Kin are clients that share another network with a task than the one that
	// they are sent to by a published UDP port.
	Kin []Kin
	// Contested says that several services claim one port or address, of
	// which the first has it.
	Contested bool
}

// Port is a published port and what serves it.
type Port struct {
	Protocol  string // tcp, udp or sctp
	Published uint16
	Target    uint16
	Backends  []netip.Addr // sorted; empty refuses connections
	// ProxyProtocol has each TCP connection to a task begin with a header that
	// names the client, which takes a plane in userspace.
	ProxyProtocol bool
}

// VIP is a virtual address and what serves it, on every port.
type VIP struct {
	Addr     netip.Addr
	Backends []netip.Addr // sorted; empty refuses connections
}

// Loop is a connection whose ends are the same container: From as it sends, To
// as it is chosen as a backend.
type Loop struct{ From, To netip.Addr }

// WithPorts gives the table with some of its ports, for a plane that leaves the
// others to another.
func (t Table) WithPorts(keep func(Port) bool) Table {
	all := t.Ports
	t.Ports = nil
	for _, p := range all {
		if keep(p) {
			t.Ports = append(t.Ports, p)
		}
	}
	return t
}

// Compile makes the table of a node. Tasks on muted nodes, by node ID, get no
// new connections.
func Compile(state *api.NodeState, muted map[string]bool) Table {
	var t Table
	t.NodeAddr = nodeAddr(state.Node)
	for _, p := range state.Peers {
		if p.DataPath.Is4() {
			t.Peers = append(t.Peers, p.DataPath)
		}
	}
	slices.SortFunc(t.Peers, netip.Addr.Compare)
	t.Peers = slices.Compact(t.Peers)
	ingress := ""
	for _, id := range slices.Sorted(maps.Keys(state.Networks)) {
		n := state.Networks[id]
		if n.Spec.Ingress {
			ingress = id
		}
		for _, s := range n.Subnets {
			if s.Prefix.Addr().Is4() {
				t.Subnets = append(t.Subnets, s.Prefix.Masked())
			}
		}
	}
	slices.SortFunc(t.Subnets, comparePrefixes)
	t.Subnets = slices.Compact(t.Subnets)

	type portKey struct {
		protocol string
		port     uint16
	}
	ports, vips := map[portKey]bool{}, map[netip.Addr]bool{}
	// Managers never give a port to two services, or on a node to two tasks;
	// should they, the first keeps it, on every node alike.
	publish := func(p Port) {
		key := portKey{p.Protocol, p.Published}
		switch {
		case p.Published == 0: // nobody chose one
		case ports[key]:
			t.Contested = true
		default:
			ports[key] = true
			t.Ports = append(t.Ports, p)
		}
	}
	var own []Port // of this node alone: the others hold theirs on all
	for _, id := range slices.Sorted(maps.Keys(state.Endpoints)) {
		e := state.Endpoints[id]
		for _, p := range e.Ports {
			publish(Port{
				Protocol: p.Protocol, Published: p.Published, Target: p.Target, Backends: backends(e, ingress, muted),
				ProxyProtocol: e.ProxyProtocol && p.Protocol == "tcp",
			})
		}
		for _, v := range e.VIPs {
			if _, here := state.Networks[v.NetworkID]; !here || !v.Addr.Is4() {
				continue
			}
			if vips[v.Addr] {
				t.Contested = true
				continue
			}
			vips[v.Addr] = true
			t.VIPs = append(t.VIPs, VIP{v.Addr, backends(e, v.NetworkID, muted)})
		}
		own = append(own, hostPorts(state, e)...)
		t.Loops = append(t.Loops, loops(e, state.Node)...)
		t.Kin = append(t.Kin, kin(state, e, ingress)...)
	}
	for _, p := range own {
		publish(p)
	}
	slices.SortFunc(t.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Protocol, b.Protocol))
	})
	slices.SortFunc(t.VIPs, func(a, b VIP) int { return a.Addr.Compare(b.Addr) })
	slices.SortFunc(t.Loops, func(a, b Loop) int { return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To)) })
	t.Loops = slices.Compact(t.Loops)
	slices.SortFunc(t.Kin, func(a, b Kin) int { return cmp.Or(comparePrefixes(a.From, b.From), a.To.Compare(b.To)) })
	t.Kin = slices.Compact(t.Kin)
	return t
}

// backends are the addresses of a service's tasks on one network.
func backends(e *api.Endpoint, network string, muted map[string]bool) []netip.Addr {
	var out []netip.Addr
	for _, b := range e.Backends {
		if muted[b.NodeID] {
			continue
		}
		for _, a := range b.Networks {
			if a.NetworkID == network && a.Addr.Addr().Is4() {
				out = append(out, a.Addr.Addr())
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// loops pairs every address of a local task with each other one: whichever
// network it reaches the mesh by, it may be chosen on any.
func loops(e *api.Endpoint, node *api.Node) []Loop {
	var out []Loop
	for _, b := range e.Backends {
		if node == nil || b.NodeID != node.ID {
			continue
		}
		for _, from := range b.Networks {
			for _, to := range b.Networks {
				if from.Addr.Addr().Is4() && to.Addr.Addr().Is4() {
					out = append(out, Loop{from.Addr.Addr(), to.Addr.Addr()})
				}
			}
		}
	}
	return out
}

// nodeAddr is the address that others know the node by, if it is one that a
// container can answer.
func nodeAddr(n *api.Node) netip.Addr {
	if n == nil {
		return netip.Addr{}
	}
	for _, s := range []string{n.DataPath, n.Status.Addr} {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() && !a.IsLoopback() && !a.IsUnspecified() {
			return a
		}
	}
	return netip.Addr{}
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
