package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
	"shoal/lb"
)

// tableName is the nftables table (family ip) that is ours alone.
const tableName = "shoal_lb"

// Sets and maps of the table. A connection costs two lookups, whatever their
// size: the first finds how many backends there are, the second takes one.
const (
	setSubnets = "subnets"       // all networks' addresses
	mapPorts   = "ports"         // protocol . port -> chain for its number of backends
	mapVIPs    = "vips"          // address -> chain for its number of backends
	mapPortTo  = "port_backends" // protocol . port . n -> address . port
	mapVIPTo   = "vip_backends"  // address . n -> address
	setLoops   = "loops"         // source . destination that are one container
	setClosed  = "closed"        // protocol . port published with nothing behind
	setBack    = "back"          // source . next hop that are one node
	setKin     = "kin"           // source . destination that share another network than the destination's
)

// chainNone leaves a packet as it is: for ports and addresses that are claimed
// but have nothing behind them. Every claim is thus in the first map, where a
// second one of the same shows.
const chainNone = "none"

// Chains run a little before the engine's own at the same hook, so that the
// mesh decides first.
var (
	prioDNAT   = *nftables.ChainPriorityRef(-110)
	prioFilter = *nftables.ChainPriorityRef(-10)
	prioSNAT   = *nftables.ChainPriorityRef(90)
)

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

var (
	typePort     = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	typePortPick = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)
	typeVIPPick  = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeMark)
	typeTarget   = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	typePair     = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
)

// ruleset is the kernel's form of a table.
//
// nftables picks a random number below a constant, so a rule can serve only
// services with one number of backends. There is a chain per such number, and
// never one per service: services and their tasks are elements of maps, which
// change one by one and are found by hash. Connections are remembered as long as
// remember says, or as the host has it.
func ruleset(t lb.Table, remember []netkit.Timeouts) *netkit.Ruleset {
	c := contentOf(t)
	back := netkit.Elements{}
	for _, p := range t.Peers {
		back.Add(netkit.Element{Key: netkit.AddrKey(p) + netkit.AddrKey(p)})
	}
	kin := netkit.Elements{}
	for _, k := range t.Kin {
		to := netkit.AddrKey(k.To)
		kin.Add(netkit.Element{Key: netkit.AddrKey(k.From.Addr()) + to, KeyEnd: netkit.AddrKey(netkit.LastAddr(k.From)) + to})
	}
	r := &netkit.Ruleset{Table: tableName, Timeouts: remember, Sets: []netkit.Set{
		{Name: setSubnets, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(t.Subnets)},
		{Name: mapPorts, Key: typePort, Data: nftables.TypeVerdict, Elements: c.elements[mapPorts]},
		{Name: mapVIPs, Key: nftables.TypeIPAddr, Data: nftables.TypeVerdict, Elements: c.elements[mapVIPs]},
		{Name: mapPortTo, Key: typePortPick, Data: typeTarget, Elements: c.elements[mapPortTo]},
		{Name: mapVIPTo, Key: typeVIPPick, Data: nftables.TypeIPAddr, Elements: c.elements[mapVIPTo]},
		{Name: setLoops, Key: typePair, Elements: c.elements[setLoops]},
		{Name: setClosed, Key: typePort, Elements: c.elements[setClosed]},
		{Name: setBack, Key: typePair, Elements: back},
		{Name: setKin, Key: typePair, Interval: true, Concat: true, Elements: kin},
	}}
	r.Chains = append(c.chains(remember), frame(t.NodeAddr)...)
	return r
}

// frame is what does not depend on the services.
func frame(nodeAddr netip.Addr) []netkit.Chain {
	published := netkit.Join(netkit.DestLocal(), []expr.Any{
		netkit.Proto(netkit.Reg0), netkit.DestPort(netkit.Reg0 + 1), verdictOf(mapPorts),
	})
	client := localClient(nodeAddr)
	return []netkit.Chain{
		{Name: chainNone},
		{Name: "vip", Rules: []netkit.Rule{{
			Why:   "services by their virtual address",
			Exprs: netkit.Join(netkit.FromContainer(), []expr.Any{netkit.Dest(netkit.Reg0), verdictOf(mapVIPs)}),
		}}},
		{
			Name: "prerouting", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPrerouting, Priority: prioDNAT,
			Rules: slices.Concat(
				[]netkit.Rule{{Why: "virtual addresses serve no published ports", Exprs: netkit.Join(netkit.DestIn(setSubnets), netkit.Goto("vip"))}},
				others(),
				[]netkit.Rule{{Why: "published ports", Exprs: published}},
			),
		},
		{
			Name: "output", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookOutput, Priority: prioDNAT,
			Rules: slices.Concat(
				[]netkit.Rule{{Why: "virtual addresses serve no published ports", Exprs: netkit.Join(netkit.DestIn(setSubnets), netkit.Return())}},
				others(),
				[]netkit.Rule{{Why: "published ports, from the host itself", Exprs: published}},
			),
		},
		{
			Name: "postrouting", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: prioSNAT,
			Rules: []netkit.Rule{
				{
					Why:   "another node redirected it; keep the client's address",
					Exprs: netkit.Join(netkit.ToContainer(), netkit.Entered(), keepSource()),
				},
				{Why: "not of the mesh", Exprs: netkit.Join(netkit.NotRedirected(), netkit.Return())},
				{Why: "not of the mesh", Exprs: netkit.Join(netkit.DestNotIn(setSubnets), netkit.Return())},
				{
					Why:   "a container that reaches itself would answer itself",
					Exprs: netkit.Join(netkit.PairIn(setLoops), sourceNAT(netkit.Gateway)),
				},
				{
					// It would answer a datagram by the network that they share,
					// from an address that was not asked.
					Why:   "a task that shares a network with the client",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.IsProto(unix.IPPROTO_UDP), netkit.PairIn(setKin), sourceNAT(client)),
				},
				{Why: "127.0.0.1 means another host to the container", Exprs: netkit.Join(netkit.SourceLoopback(), sourceNAT(client))},
				{
					// The other node may have the same one, on a bridge perhaps.
					Why:   "one of the host's addresses is known to all",
					Exprs: netkit.Join(netkit.ToTunnel(), netkit.SourceLocal(), sourceNAT(client)),
				},
				{
					// A node takes nothing from outside that names itself as the sender.
					Why:   "a node that reaches its own task by this one",
					Exprs: netkit.Join(netkit.ToTunnel(), sentBack(), sourceNAT(client)),
				},
				{Why: "keep the client's address from others' masquerading", Exprs: keepSource()},
			},
		},
		{
			Name: "input", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookInput, Priority: prioFilter,
			Rules: slices.Concat(
				[]netkit.Rule{{Why: "first packets alone are refused", Exprs: netkit.Join(netkit.NotNew(), netkit.Return())}},
				others(),
				netkit.Reject("published, but no task can take it", []expr.Any{
					netkit.Proto(netkit.Reg0), netkit.DestPort(netkit.Reg0 + 1),
					&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setClosed},
				}),
			),
		},
	}
}

// others leaves to others what is this host's own and yet no place for published
// ports: where containers ask for names, and the loopback network beyond localhost,
// where the host does.
func others() []netkit.Rule {
	rules := []netkit.Rule{{
		Why:   "localhost is 127.0.0.1; the rest is for programs of the host",
		Exprs: netkit.Join(netkit.DestOtherLoopback(), netkit.Return()),
	}}
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rules = append(rules, netkit.Rule{
			Why:   "containers ask for names",
			Exprs: netkit.Join(netkit.DestGateway(), netkit.ToPort(proto, netkit.NamesPort), netkit.Return()),
		})
	}
	return rules
}

func verdictOf(set string) expr.Any {
	return &expr.Lookup{SourceRegister: netkit.Reg0, SetName: set, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}
}

func pickForPort(n int, remember []expr.Any) []expr.Any {
	return netkit.Join(remember, []expr.Any{
		netkit.Proto(netkit.Reg0), netkit.DestPort(netkit.Reg0 + 1),
		&expr.Numgen{Register: netkit.Reg0 + 2, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: mapPortTo, IsDestRegSet: true, DestRegister: netkit.Reg0},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
			RegAddrMin: netkit.Reg0, RegProtoMin: netkit.Reg0 + 1, Specified: true,
		},
	})
}

func pickForVIP(n int, remember []expr.Any) []expr.Any {
	return netkit.Join(remember, []expr.Any{
		netkit.Dest(netkit.Reg0),
		&expr.Numgen{Register: netkit.Reg0 + 1, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: mapVIPTo, IsDestRegSet: true, DestRegister: netkit.Reg0},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: netkit.Reg0},
	})
}

// sourceNAT makes the client look like a.
func sourceNAT(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: netkit.Reg0, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: netkit.Reg0},
	}
}

// sentBack matches what is on its way to the node that it came from.
func sentBack() []expr.Any {
	return []expr.Any{
		netkit.Source(netkit.Reg0),
		&expr.Rt{Register: netkit.Reg0 + 1, Key: expr.RtNexthop4},
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setBack},
	}
}

// localClient is what a client on the host's 127.0.0.1 is seen as: the node's
// address. An address that the host does not have, such as a public one that a
// router translates, would send the answers away; then it is what the host
// itself would send from, or the containers' gateway, which is always there.
func localClient(node netip.Addr) netip.Addr {
	if !node.IsValid() {
		return netkit.Gateway
	}
	routes, err := netlink.RouteGet(node.AsSlice())
	if err != nil || len(routes) == 0 {
		return netkit.Gateway
	}
	// The route to an address of the host's own leads from that very address.
	if a, ok := netip.AddrFromSlice(routes[0].Src); ok && a.Unmap().Is4() && !a.Unmap().IsLoopback() {
		return a.Unmap()
	}
	return netkit.Gateway
}

// keepSource rewrites the source to itself. A connection is rewritten once, so
// rules of others that run later, such as the engine's masquerading of its
// bridges, find it done.
func keepSource() []expr.Any {
	return []expr.Any{
		netkit.Source(netkit.Reg0),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: netkit.Reg0},
	}
}
