package overlay

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/network/wireguard"
)

// State is what the kernel of a node should do for the cluster's networks.
type State struct {
	Networks []Network // by ID
	Tunnel   Tunnel
	// Keys are this node's, for encrypted networks. Managers do not know them.
	Keys    Keys
	Daemons Daemons
}

// Daemons are the ports by which the cluster's daemons speak to each other. They
// are nothing for containers.
type Daemons struct {
	Own   uint16           // this node's; zero while it is not known
	Peers []netip.AddrPort // the others', in order
}

// Keys are what a node is known by on encrypted networks.
type Keys struct {
	Private wireguard.Key   // zero: it can not encrypt
	Own     []wireguard.Key // public keys that others may know, Private's first
}

// Network is one network that has containers here.
type Network struct {
	ID       string
	Subnets  []netip.Prefix
	Internal bool // no way out
	Ingress  bool // published ports lead here
	// Encrypted says that its packets go to other nodes by the encrypted tunnel,
	// or not at all.
	Encrypted bool
	// Grounds are where its next subnets will be, if it is encrypted: this node may
	// not have heard of the last one.
	Grounds []netip.Prefix
}

// Tunnel is the way to the other nodes. There is none without peers.
type Tunnel struct {
	Local   netip.Addr // where others send to; not always an address of this host
	Port    uint16     // UDP, the same on every node
	Peers   []Peer     // by address
	Remotes []Remote   // by address
}

// Peer is the other end of the tunnel. Nodes are told apart by address alone: a
// node that left may stay on record for a while, and its address go to another.
type Peer struct {
	Addr netip.Addr
	Mark uint32 // of what came in by this node, and its routing table
	Zone uint16 // of its connections; two nodes may have the same
	// Key is the public key that it uses, zero if it has none; Next is the one
	// that it will use, and Last the one that it used.
	Key, Next, Last wireguard.Key
}

// Remote is the address of a task behind a peer.
type Remote struct {
	Addr, Via netip.Addr
	Encrypted bool // it lies in an encrypted network
}

// defaultPort is that of managers that do not tell one.
const defaultPort = 4789

// Compile gives the state that a node's wanted state asks for. Equal states
// compile to equal ones.
func Compile(state *api.NodeState) State {
	s := State{Tunnel: compileTunnel(state), Daemons: compileDaemons(state)}
	for _, n := range state.Networks {
		net := Network{ID: n.ID, Internal: n.Spec.Internal, Ingress: n.Spec.Ingress, Encrypted: n.Encrypted()}
		for _, sub := range n.Subnets {
			if sub.Prefix.Addr().Is4() {
				net.Subnets = append(net.Subnets, sub.Prefix.Masked())
			}
		}
		if net.Encrypted {
			net.Grounds = n.Grounds(state.AddrPools)
		}
		slices.SortFunc(net.Subnets, comparePrefixes)
		if net.Subnets = slices.Compact(net.Subnets); len(net.Subnets) > 0 {
			s.Networks = append(s.Networks, net)
		}
	}
	slices.SortFunc(s.Networks, func(a, b Network) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

func compileTunnel(state *api.NodeState) Tunnel {
	t := Tunnel{Port: defaultPort}
	if state.DataPathPort != 0 {
		t.Port = uint16(state.DataPathPort)
	}
	if state.Node != nil {
		t.Local, _ = netip.ParseAddr(state.Node.DataPath)
	}
	if !usable(t.Local) {
		return Tunnel{}
	}
	ends := map[string]netip.Addr{} // by node ID
	var records []record
	for id, p := range state.Peers {
		if usable(p.DataPath) && p.DataPath != t.Local {
			ends[id] = p.DataPath
			records = append(records, record{p.Down, Peer{
				Addr: p.DataPath,
				Key:  parseKey(p.WireGuard.Key), Next: parseKey(p.WireGuard.Next), Last: parseKey(p.WireGuard.Last),
			}})
		}
	}
	if len(records) == 0 {
		return Tunnel{}
	}
	slices.SortFunc(records, record.compare)
	for _, r := range records {
		if last := len(t.Peers) - 1; last < 0 || t.Peers[last].Addr != r.Addr {
			t.Peers = append(t.Peers, r.Peer)
		}
	}
	mark(t.Peers)
	for _, r := range state.Remotes {
		via, known := ends[r.NodeID]
		for _, at := range r.Networks {
			if n := state.Networks[at.NetworkID]; known && n != nil && at.Addr.Addr().Is4() {
				t.Remotes = append(t.Remotes, Remote{at.Addr.Addr(), via, n.Encrypted()})
			}
		}
	}
	slices.SortFunc(t.Remotes, func(a, b Remote) int { return cmp.Or(a.Addr.Compare(b.Addr), a.Via.Compare(b.Via)) })
	// Managers never give an address twice; should they, all nodes agree.
	t.Remotes = slices.CompactFunc(t.Remotes, func(a, b Remote) bool { return a.Addr == b.Addr })
	return t
}

// record is what managers have of a node. They may have several at one address,
// such as one of a node that left and joined anew.
type record struct {
	down bool
	Peer
}

// compare puts the one that counts first of those at an address: one that is
// there, and among those one that has a key.
func (r record) compare(other record) int {
	there := 0
	if r.down != other.down {
		if there = -1; r.down {
			there = 1
		}
	}
	return cmp.Or(r.Addr.Compare(other.Addr), there, bytes.Compare(other.Key[:], r.Key[:]))
}

func compileDaemons(state *api.NodeState) (d Daemons) {
	if state.Node != nil {
		own, _ := netip.ParseAddrPort(state.Node.Addr) // a node that has not said it yet has none
		d.Own = own.Port()
	}
	for _, p := range state.Peers {
		if at, err := netip.ParseAddrPort(p.Addr); err == nil && at.Addr().Unmap().Is4() {
			d.Peers = append(d.Peers, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
		}
	}
	slices.SortFunc(d.Peers, netip.AddrPort.Compare)
	d.Peers = slices.Compact(d.Peers)
	return d
}

// parseKey is zero for what is no key: there is no way to that node then.
func parseKey(s string) wireguard.Key {
	k, err := wgtypes.ParseKey(s)
	if err != nil {
		return wireguard.Key{}
	}
	return k
}

// usable tells whether a tunnel can end at an address.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// mark numbers peers by their address, so that a daemon that restarts gives
// each the number that open connections carry. Where two meet, the later one
// takes the next that is free. There are fewer zones: two nodes that share one are
// no better off than without.
func mark(peers []Peer) {
	const zones = 1<<16 - 1 // zone 0 is everybody else's
	taken := map[uint32]bool{}
	for i := range peers {
		h := fnv.New64a()
		_, _ = h.Write(peers[i].Addr.AsSlice())
		n := uint32(binary.BigEndian.Uint64(h.Sum(nil)) % netkit.Marks)
		for taken[n] {
			n = (n + 1) % netkit.Marks
		}
		taken[n] = true
		peers[i].Mark, peers[i].Zone = netkit.Mark(n), uint16(n%zones)+1
	}
}

// subnets lists those of all networks that pick agrees to.
func (s State) subnets(pick func(Network) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range s.Networks {
		if pick(n) {
			out = append(out, n.Subnets...)
		}
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

// grounds lists those of all networks.
func (s State) grounds() []netip.Prefix {
	var out []netip.Prefix
	for _, n := range s.Networks {
		out = append(out, n.Grounds...)
	}
	slices.SortFunc(out, comparePrefixes)
	// Those of two networks are the same, or apart: see api.Network.
	return slices.Compact(out)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func all(Network) bool        { return true }
func internal(n Network) bool { return n.Internal }
func outgoing(n Network) bool { return !n.Internal }
func ingress(n Network) bool  { return n.Ingress }

func encrypted(n Network) bool { return n.Encrypted }

// encrypts tells whether the state needs the encrypted tunnel, and can have it.
func (s State) encrypts() bool {
	return s.Keys.Private != wireguard.Key{} && slices.ContainsFunc(s.Networks, encrypted) &&
		slices.ContainsFunc(s.Tunnel.Peers, func(p Peer) bool { return p.Key != wireguard.Key{} })
}

// clientsEncrypted tells by which tunnel the clients of published ports reach
// other nodes, and the answers come back.
func (s State) clientsEncrypted() bool {
	return slices.ContainsFunc(s.Networks, func(n Network) bool { return n.Ingress && n.Encrypted })
}

// equal compares two states; without remotes, what the firewall and everything
// but the routes to tasks depends on.
func equal(a, b State) bool {
	return a.Daemons.Own == b.Daemons.Own && slices.Equal(a.Daemons.Peers, b.Daemons.Peers) &&
		a.Keys.Private == b.Keys.Private && slices.Equal(a.Keys.Own, b.Keys.Own) &&
		a.Tunnel.Local == b.Tunnel.Local && a.Tunnel.Port == b.Tunnel.Port && slices.Equal(a.Tunnel.Peers, b.Tunnel.Peers) &&
		slices.EqualFunc(a.Networks, b.Networks, func(x, y Network) bool {
			return x.ID == y.ID && x.Internal == y.Internal && x.Ingress == y.Ingress && x.Encrypted == y.Encrypted && slices.Equal(x.Subnets, y.Subnets) &&
				slices.Equal(x.Grounds, y.Grounds)
		})
}
