package overlay

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// tableName is the nftables table (family ip) that is ours alone.
const tableName = "shoal_overlay"

const (
	setSubnets  = "subnets"  // every address of every network
	setReach    = "reach"    // source . destination that share a network
	setInternal = "internal" // networks without a way out
	setOutgoing = "outgoing" // those with one
	setBridges  = "bridges"  // the engine's own bridges
	setIngress  = "ingress"  // where published ports lead
	setEnds     = "ends"     // addresses of other nodes' tunnels
	setPort     = "port"     // UDP port of the tunnel
	mapEntries  = "entries"  // MAC of a node's tunnel -> its mark

	setEncrypted = "encrypted" // networks that no packet leaves or enters in the clear
	setGrounds   = "grounds"   // where these may have subnets that are not known here yet
)

// Chains filter before the host's own rules at the same hook, and look at
// connections after they are tracked but before the mesh rewrites them.
var (
	prioRaw    = *nftables.ChainPriorityRaw
	prioTrack  = *nftables.ChainPriorityMangle
	prioFilter = *nftables.ChainPriorityRef(-10)
	prioSNAT   = *nftables.ChainPriorityNATSource
)

var typePair = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)

// ruleset is the firewall for a state. bridges are the names of the engine's
// own bridges.
func ruleset(s State, bridges []string) *netkit.Ruleset {
	reach, names := netkit.Elements{}, netkit.Elements{}
	for _, n := range s.Networks {
		parts := spans(n.Subnets)
		for _, from := range parts {
			for _, to := range parts {
				reach.Add(netkit.Element{
					Key:    netkit.AddrKey(from.first) + netkit.AddrKey(to.first),
					KeyEnd: netkit.AddrKey(from.last) + netkit.AddrKey(to.last),
				})
			}
		}
	}
	for _, b := range bridges {
		names.Add(netkit.Element{Key: netkit.IfaceKey(b)})
	}
	ends, entries, port := netkit.Elements{}, netkit.Elements{}, netkit.Elements{}
	for _, p := range s.Tunnel.Peers {
		ends.Add(netkit.Element{Key: netkit.AddrKey(p.Addr)})
		entries.Add(netkit.Element{Key: string(netkit.TunnelMAC(p.Addr)), Data: netkit.IndexKey(p.Mark)})
		entries.Add(netkit.Element{Key: string(netkit.EncryptedMAC(p.Addr)), Data: netkit.IndexKey(p.Mark)})
		port = netkit.Elements{}
		port.Add(netkit.Element{Key: netkit.PortKey(s.Tunnel.Port)[:2]})
	}
	return &netkit.Ruleset{
		Table: tableName,
		Sets: append(daemonSets(s.Daemons), []netkit.Set{
			{Name: setSubnets, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.subnets(all))},
			{Name: setReach, Key: typePair, Interval: true, Concat: true, Elements: reach},
			{Name: setInternal, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.subnets(internal))},
			{Name: setOutgoing, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.subnets(outgoing))},
			{Name: setIngress, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.subnets(ingress))},
			{Name: setEncrypted, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.subnets(encrypted))},
			{Name: setGrounds, Key: nftables.TypeIPAddr, Interval: true, Elements: netkit.Subnets(s.grounds())},
			{Name: setBridges, Key: nftables.TypeIFName, Elements: names},
			{Name: setEnds, Key: nftables.TypeIPAddr, Elements: ends},
			{Name: setPort, Key: nftables.TypeInetService, Elements: port},
			{Name: mapEntries, Key: nftables.TypeEtherAddr, Data: nftables.TypeMark, Elements: entries},
		}...),
		Chains: slices.Concat(sources(), reaches(), answers(), tunnel()),
	}
}

// span is a range of addresses, both ends in it.
type span struct{ first, last netip.Addr }

// spans gives subnets as few ranges as they make: those that a network got one
// after the other mostly touch.
func spans(subnets []netip.Prefix) (out []span) {
	for _, p := range slices.SortedFunc(slices.Values(subnets), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		if n := len(out); n > 0 && out[n-1].last.Next() == p.Addr() {
			out[n-1].last = netkit.LastAddr(p)
		} else {
			out = append(out, span{p.Addr(), netkit.LastAddr(p)})
		}
	}
	return out
}

// sources decides who may send at all.
func sources() []netkit.Chain {
	return []netkit.Chain{{
		Name: "spoof", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioRaw,
		Rules: []netkit.Rule{
			{
				Why:   "the host's 127.0.0.1 is not for containers",
				Exprs: netkit.Join(netkit.FromContainer(), netkit.DestLoopback(), netkit.Drop()),
			},
			{
				Why:   "sender must be the one that lives behind the interface",
				Exprs: netkit.Join(netkit.FromContainer(), sourceElsewhere(), netkit.Drop()),
			},
			{
				Why:   "nor is it for other nodes",
				Exprs: netkit.Join(netkit.FromTunnel(), netkit.DestLoopback(), netkit.Drop()),
			},
			{
				Why:   "nobody writes in the clear to an encrypted network",
				Exprs: netkit.Join(netkit.FromPlainTunnel(), netkit.DestIn(setEncrypted), netkit.Drop()),
			},
			{
				Why:   "nor for one of its tasks",
				Exprs: netkit.Join(netkit.FromPlainTunnel(), netkit.SourceIn(setEncrypted), netkit.Drop()),
			},
			{
				Why:   "tasks must live behind the tunnel",
				Exprs: netkit.Join(netkit.FromTunnel(), netkit.SourceIn(setSubnets), sourceElsewhere(), netkit.Drop()),
			},
		},
	}}
}

// reaches decides who may speak to whom.
func reaches() []netkit.Chain {
	return []netkit.Chain{
		{
			Name: "isolation", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioTrack,
			Rules: []netkit.Rule{
				{
					Why: "tasks and virtual addresses of other networks",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.New(), netkit.DestIn(setSubnets),
						netkit.PairNotIn(setReach), netkit.Drop()),
				},
				{
					// A published port leads out of the network, too, and so do the
					// host's own addresses.
					Why: "no way out of internal networks",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.New(), netkit.SourceIn(setInternal), netkit.DestNotIn(setSubnets),
						netkit.NotToGateway(), netkit.Drop()),
				},
				{
					// The node it came in by redirected it there, and has
					// looked at who sent it.
					Why: "from other nodes to published ports and within networks alone",
					Exprs: netkit.Join(netkit.FromTunnel(), netkit.New(), netkit.DestNotIn(setIngress),
						netkit.PairNotIn(setReach), netkit.Drop()),
				},
			},
		},
		{
			Name: "forward", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: prioFilter,
			Rules: slices.Concat(otherDaemons(), unheardOf(), []netkit.Rule{
				{
					Why:   "untracked answers would leave under the task's address",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.Invalid(), netkit.Drop()),
				},
				{
					Why:   "untracked answers would leave under the task's address",
					Exprs: netkit.Join(netkit.FromTunnel(), netkit.Invalid(), netkit.Drop()),
				},
				{
					Why:   "and so would those to a node that has left",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.NotToTunnel(), netkit.Marked(expr.CmpOpNeq), netkit.Drop()),
				},
				{
					Why: "from outside by published ports alone",
					Exprs: netkit.Join(netkit.NotFromContainer(), netkit.NotFromTunnel(), netkit.ToContainer(), netkit.New(),
						netkit.NotRedirected(), netkit.Drop()),
				},
				{
					Why: "from outside by published ports alone, wherever the task is",
					Exprs: netkit.Join(netkit.NotFromContainer(), netkit.ToTunnel(), netkit.New(),
						netkit.NotRedirected(), netkit.Drop()),
				},
				{
					Why:   "other nodes' traffic ends here",
					Exprs: netkit.Join(netkit.FromTunnel(), netkit.NotToContainer(), netkit.New(), netkit.Drop()),
				},
				{
					// As when its receiver is gone, and its network with it: a
					// node that has not heard of that goes on sending. What
					// goes on are answers to clients of published ports.
					Why: "what came in encrypted does not go on in the clear",
					Exprs: netkit.Join(netkit.FromEncryptedTunnel(), netkit.NotToContainer(), netkit.NotRedirected(),
						netkit.Drop()),
				},
				{
					// Connections to virtual addresses are redirected, too.
					Why: "what came in encrypted does not go on in the clear",
					Exprs: netkit.Join(netkit.FromEncryptedTunnel(), netkit.NotToContainer(), netkit.Established(),
						netkit.SourceNotIn(setIngress), netkit.Drop()),
				},
				{
					// Before the first state, and for a network that is gone.
					// Whether that was encrypted is forgotten, and its open
					// connections would go out in the clear by whichever route
					// is left.
					Why: "no way out of networks that are not known",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.NotToContainer(),
						netkit.SourceNotIn(setSubnets), netkit.Drop()),
				},
				{
					Why: "containers of the engine's own networks by their published ports alone",
					Exprs: netkit.Join(netkit.FromContainer(), []expr.Any{
						&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: netkit.Reg0},
						&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setBridges},
					}, netkit.New(), netkit.NotRedirected(), netkit.Drop()),
				},
				{
					// Masqueraded as this host, it would look like our tunnel
					// to another node, and could speak for any task.
					Why:   "nobody behind this host may speak for its tunnel",
					Exprs: netkit.Join(tunnelPort(), notAnEnd(), netkit.Drop()),
				},
				{
					Why:   "nor under another node's address",
					Exprs: netkit.Join(tunnelPort(), sourceElsewhere(), netkit.Drop()),
				},
			}),
		},
		{
			Name: "input", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookInput, Priority: prioFilter,
			Rules: slices.Concat(
				[]netkit.Rule{{
					Why:   "tunnels of nodes of this cluster alone",
					Exprs: netkit.Join(tunnelPort(), notAnEnd(), netkit.Drop()),
				}},
				namesAlone(),
				ownDaemon(),
				// The host holds the whole subnet. What nobody took on the way
				// here must not end at one of its own services.
				// Only first packets: the refusal itself may come this way.
				netkit.Reject("no task or virtual address", netkit.Join(netkit.New(), netkit.DestIn(setSubnets))),
			),
		},
		{
			Name: "postrouting", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: prioSNAT,
			Rules: []netkit.Rule{{
				Why:   "others know the host, not the network",
				Exprs: netkit.Join(netkit.SourceIn(setOutgoing), netkit.DestNotIn(setSubnets), []expr.Any{&expr.Masq{}}),
			}},
		},
	}
}

// unheardOf keeps on the node what may be meant for a new subnet of an encrypted
// network: masqueraded as this host it would go out in the clear. Other nodes'
// addresses are in no subnet.
func unheardOf() []netkit.Rule {
	return netkit.Reject("an encrypted network may have grown there", netkit.Join(netkit.FromContainer(), netkit.NotToContainer(),
		netkit.DestIn(setGrounds), netkit.DestNotIn(setSubnets), netkit.DestNotIn(setEnds)))
}

// namesAlone keeps the gateway from being one more address of the host: it
// answers names, and nothing but that, and to containers alone.
func namesAlone() []netkit.Rule {
	var rules []netkit.Rule
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rules = append(rules, netkit.Rule{
			Why:   "containers ask for names",
			Exprs: netkit.Join(netkit.FromContainer(), netkit.DestGateway(), netkit.ToPort(proto, netkit.NamesPort), netkit.Return()),
		})
	}
	return append(rules, netkit.Reject("the gateway answers names alone", netkit.Join(netkit.New(), netkit.DestGateway()))...)
}

// answers sends answers back by the node that a client came in by. Its
// connections keep that node's mark.
func answers() []netkit.Chain {
	fromClient := netkit.Join(netkit.FromTunnel(), netkit.SourceNotIn(setSubnets))
	return []netkit.Chain{
		{
			Name: "entry", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioTrack,
			Rules: []netkit.Rule{
				{
					// The kernel's check of the way back sees the mark, and
					// with it the tunnel, however strict it is.
					Why: "client's packet", Exprs: netkit.Join(fromClient, entry(), []expr.Any{
						&expr.Meta{Key: expr.MetaKeyMARK, Register: netkit.Reg0, SourceRegister: true},
					}),
				},
				{
					// With each packet: the answer goes where the client asked last.
					Why: "remember the node it came in by", Exprs: netkit.Join(fromClient, netkit.Asking(), entry(), []expr.Any{
						&expr.Ct{Key: expr.CtKeyMARK, Register: netkit.Reg0, SourceRegister: true},
					}),
				},
				{
					Why:   "nobody could be answered by an unknown node",
					Exprs: netkit.Join(fromClient, netkit.Marked(expr.CmpOpEq), netkit.Drop()),
				},
				{
					Why:   "answer by the same node",
					Exprs: netkit.Join(netkit.FromContainer(), netkit.Answering(), netkit.Entered(), netkit.MarkAnswer()),
				},
			},
		},
		{
			Name: "refusal", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput, Priority: prioTrack,
			Rules: []netkit.Rule{{
				Why:   "refusals too, and what else the host says of a connection",
				Exprs: netkit.Join(netkit.Answering(), netkit.Entered(), netkit.MarkAnswer()),
			}},
		},
		{
			Name: "leave", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPostrouting, Priority: prioTrack,
			Rules: []netkit.Rule{
				// Routes say so already. These hold while routes are wrong or
				// are not there, as when the encrypted tunnel has just gone.
				{
					Why:   "encrypted networks are never sent in the clear",
					Exprs: netkit.Join(netkit.ToPlainTunnel(), netkit.DestIn(setEncrypted), netkit.Drop()),
				},
				{
					Why:   "nor are their tasks' answers",
					Exprs: netkit.Join(netkit.ToPlainTunnel(), netkit.SourceIn(setEncrypted), netkit.Drop()),
				},
				{
					Why: "nor past the tunnels",
					Exprs: netkit.Join(netkit.DestIn(setEncrypted), netkit.NotToContainer(), netkit.ToNoEncryptedTunnel(),
						netkit.NotToLoopback(), netkit.Drop()),
				},
				{Why: "no larger than the tunnel takes", Exprs: netkit.Join(netkit.ToTunnel(), clampMSS())},
				{
					// The tunnel would look for its own way with it, and find itself.
					Why: "the mark has done its work", Exprs: netkit.Join(netkit.Marked(expr.CmpOpNeq), netkit.Unmark()),
				},
			},
		},
	}
}

// tunnel keeps the tunnel's own packets out of connection tracking: what is
// inside is tracked.
func tunnel() []netkit.Chain {
	peer := func(addr expr.Any) []expr.Any {
		return []expr.Any{addr, &expr.Lookup{SourceRegister: netkit.Reg0, SetName: setEnds}}
	}
	return []netkit.Chain{
		{
			Name: "arrive", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioRaw,
			Rules: []netkit.Rule{{
				Why:   "tunnel from a node",
				Exprs: netkit.Join(tunnelPort(), peer(netkit.Source(netkit.Reg0)), netkit.DestLocal(), []expr.Any{&expr.Notrack{}}),
			}},
		},
		{
			Name: "depart", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: prioRaw,
			Rules: []netkit.Rule{{
				Why:   "tunnel to a node",
				Exprs: netkit.Join(tunnelPort(), peer(netkit.Dest(netkit.Reg0)), []expr.Any{&expr.Notrack{}}),
			}},
		},
	}
}

// tunnelPort matches packets of the tunnel by their port.
func tunnelPort() []expr.Any {
	return netkit.Join(netkit.IsProto(unix.IPPROTO_UDP), []expr.Any{
		netkit.DestPort(netkit.Reg0), &expr.Lookup{SourceRegister: netkit.Reg0, SetName: setPort},
	})
}

func notAnEnd() []expr.Any { return netkit.SourceNotIn(setEnds) }

// entry loads the mark of the node that sent a packet through the tunnel.
func entry() []expr.Any { return sentBy(mapEntries) }

// sentBy loads what a map has for that node.
func sentBy(name string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: netkit.Reg0, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: name, IsDestRegSet: true, DestRegister: netkit.Reg0},
	}
}

// clampMSS tells both ends of a TCP connection what fits the way between them,
// or they would find out by losing packets.
func clampMSS() []expr.Any {
	const flags, syn, mss = 13, 2, 2 // offset of the flags, the bit, the option's kind
	return netkit.Join(netkit.IsProto(unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: netkit.Reg0, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: netkit.Reg0, DestRegister: netkit.Reg0, Len: 1, Mask: []byte{syn}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: netkit.Reg0, Data: []byte{0}},
		&expr.Rt{Register: netkit.Reg0, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: netkit.Reg0, DestRegister: netkit.Reg0, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: netkit.Reg0, Type: mss, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})
}

// sourceElsewhere matches when the way back to the sender is not the interface
// that the packet came in by. The /32 route of each container is thus also its
// permit, and the two can not disagree.
func sourceElsewhere() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: netkit.Reg0, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: netkit.Reg0, Data: make([]byte, 4)},
	}
}
