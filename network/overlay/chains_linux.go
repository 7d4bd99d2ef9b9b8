package overlay

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// Every packet of every container, and each one of the tunnel's that carries it,
// passes the chains at the hooks. Names of interfaces are dear to compare, so a
// chain asks once where a packet comes from and goes on in one that has rules for
// that alone; what matters to first packets alone is asked of them alone.

// arrival decides who may send at all, and keeps the tunnel's own packets out of
// connection tracking: what is inside is tracked.
func arrival() []netkit.Chain {
	return []netkit.Chain{
		{
			Name: "arrive_task",
			Rules: []netkit.Rule{
				{
					Why:   "the host's 127.0.0.1 is not for containers",
					Exprs: netkit.Join(netkit.DestLoopback(), netkit.Drop()),
				},
				{
					Why:   "sender must be the one that lives behind the interface",
					Exprs: netkit.Join(sourceElsewhere(), netkit.Drop()),
				},
			},
		},
		{
			Name: "arrive_tunnel",
			Rules: []netkit.Rule{
				{
					Why:   "nor is it for other nodes",
					Exprs: netkit.Join(netkit.DestLoopback(), netkit.Drop()),
				},
				{
					Why:   "nobody writes in the clear to an encrypted network",
					Exprs: netkit.Join(netkit.DestIn(setEncrypted), netkit.FromPlainTunnel(), netkit.Drop()),
				},
				{
					Why:   "nor for one of its tasks",
					Exprs: netkit.Join(netkit.SourceIn(setEncrypted), netkit.FromPlainTunnel(), netkit.Drop()),
				},
				{
					Why:   "tasks must live behind the tunnel",
					Exprs: netkit.Join(netkit.SourceIn(setSubnets), sourceElsewhere(), netkit.Drop()),
				},
			},
		},
		{
			Name: "arrive", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioRaw,
			Rules: []netkit.Rule{
				{Why: "from containers", Exprs: netkit.Join(netkit.FromContainer(), netkit.Goto("arrive_task"))},
				{Why: "from other nodes", Exprs: netkit.Join(netkit.FromTunnel(), netkit.Goto("arrive_tunnel"))},
				{
					Why:   "tunnel from a node",
					Exprs: netkit.Join(tunnelPort(), netkit.SourceIn(setEnds), netkit.DestLocal(), []expr.Any{&expr.Notrack{}}),
				},
			},
		},
	}
}

// tracking decides who may begin a connection with whom, before the mesh
// redirects it, and sends answers back by the node that a client came in by: its
// connections keep that node's mark.
func tracking() []netkit.Chain {
	return []netkit.Chain{
		{
			Name: "begin_task",
			Rules: []netkit.Rule{
				{
					Why:   "tasks and virtual addresses of other networks",
					Exprs: netkit.Join(netkit.DestIn(setSubnets), netkit.PairNotIn(setReach), netkit.Drop()),
				},
				{
					// A published port leads out of the network, too, and so do the
					// host's own addresses.
					Why: "no way out of internal networks",
					Exprs: netkit.Join(netkit.SourceIn(setInternal), netkit.DestNotIn(setSubnets),
						netkit.NotToGateway(), netkit.Drop()),
				},
			},
		},
		{
			Name: "begin",
			Rules: []netkit.Rule{
				{Why: "from containers", Exprs: netkit.Join(netkit.FromContainer(), netkit.Goto("begin_task"))},
				{
					// The node it came in by redirected it there, and has
					// looked at who sent it.
					Why: "from other nodes to published ports and within networks alone",
					Exprs: netkit.Join(netkit.FromTunnel(), netkit.DestNotIn(setIngress),
						netkit.PairNotIn(setReach), netkit.Drop()),
				},
			},
		},
		{
			Name: "track_tunnel",
			Rules: []netkit.Rule{
				{Why: "task to task", Exprs: netkit.Join(netkit.SourceIn(setSubnets), netkit.Return())},
				{
					// The kernel's check of the way back sees the mark, and
					// with it the tunnel, however strict it is.
					Why: "client's packet", Exprs: netkit.Join(entry(), []expr.Any{
						&expr.Meta{Key: expr.MetaKeyMARK, Register: netkit.Reg0, SourceRegister: true},
					}),
				},
				{
					Why:   "nobody could be answered by an unknown node",
					Exprs: netkit.Join(netkit.Marked(expr.CmpOpEq), netkit.Drop()),
				},
				{
					// With each packet: the answer goes where the client asked last.
					Why: "remember the node it came in by", Exprs: netkit.Join(netkit.Asking(), entry(), []expr.Any{
						&expr.Ct{Key: expr.CtKeyMARK, Register: netkit.Reg0, SourceRegister: true},
					}),
				},
			},
		},
		{
			Name: "track", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioTrack,
			Rules: []netkit.Rule{
				{Why: "first packets", Exprs: netkit.Join(netkit.New(), netkit.Jump("begin"))},
				{
					Why:   "answer by the same node",
					Exprs: netkit.Join(netkit.Entered(), netkit.Answering(), netkit.FromContainer(), netkit.MarkAnswer()),
				},
				{Why: "from other nodes", Exprs: netkit.Join(netkit.FromTunnel(), netkit.Goto("track_tunnel"))},
			},
		},
		{
			Name: "refusal", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput, Priority: prioTrack,
			Rules: []netkit.Rule{{
				Why:   "refusals too, and what else the host says of a connection",
				Exprs: netkit.Join(netkit.Entered(), netkit.Answering(), netkit.MarkAnswer()),
			}},
		},
	}
}

// forwarding decides what passes the host, after the mesh has redirected it.
func forwarding() []netkit.Chain {
	return []netkit.Chain{
		{
			Name: "speak",
			Rules: []netkit.Rule{
				{
					// Masqueraded as this host, it would look like our tunnel
					// to another node, and could speak for any task.
					Why:   "nobody behind this host may speak for its tunnel",
					Exprs: netkit.Join(netkit.SourceNotIn(setEnds), netkit.Drop()),
				},
				{
					Why:   "nor under another node's address",
					Exprs: netkit.Join(sourceElsewhere(), netkit.Drop()),
				},
			},
		},
		{
			Name: "open_task",
			Rules: append(otherDaemons(), netkit.Rule{
				Why: "containers of the engine's own networks by their published ports alone",
				Exprs: netkit.Join([]expr.Any{
					&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: netkit.Reg0},
					&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setBridges},
				}, netkit.NotRedirected(), netkit.Drop()),
			}),
		},
		{
			Name: "forward_task",
			Rules: slices.Concat(
				[]netkit.Rule{
					{Why: "first packets", Exprs: netkit.Join(netkit.New(), netkit.Jump("open_task"))},
					{
						Why:   "untracked answers would leave under the task's address",
						Exprs: netkit.Join(netkit.Invalid(), netkit.Drop()),
					},
					{
						Why:   "and so would those to a node that has left",
						Exprs: netkit.Join(netkit.Marked(expr.CmpOpNeq), netkit.NotToTunnel(), netkit.Drop()),
					},
					{Why: "the tunnel's port", Exprs: netkit.Join(tunnelPort(), netkit.Jump("speak"))},
					{Why: "to another task of this node", Exprs: netkit.Join(netkit.ToContainer(), netkit.Return())},
				},
				unheardOf(),
				[]netkit.Rule{{
					// Before the first state, and for a network that is gone.
					// Whether that was encrypted is forgotten, and its open
					// connections would go out in the clear by whichever route
					// is left.
					Why:   "no way out of networks that are not known",
					Exprs: netkit.Join(netkit.SourceNotIn(setSubnets), netkit.Drop()),
				}},
			),
		},
		{
			Name: "forward_tunnel",
			Rules: []netkit.Rule{
				{
					Why:   "untracked answers would leave under the task's address",
					Exprs: netkit.Join(netkit.Invalid(), netkit.Drop()),
				},
				{Why: "the tunnel's port", Exprs: netkit.Join(tunnelPort(), netkit.Jump("speak"))},
				{Why: "to a task of this node", Exprs: netkit.Join(netkit.ToContainer(), netkit.Return())},
				{
					Why:   "other nodes' traffic ends here",
					Exprs: netkit.Join(netkit.New(), netkit.Drop()),
				},
				{
					// As when its receiver is gone, and its network with it: a
					// node that has not heard of that goes on sending. What
					// goes on are answers to clients of published ports.
					Why:   "what came in encrypted does not go on in the clear",
					Exprs: netkit.Join(netkit.FromEncryptedTunnel(), netkit.NotRedirected(), netkit.Drop()),
				},
				{
					// Connections to virtual addresses are redirected, too.
					Why: "what came in encrypted does not go on in the clear",
					Exprs: netkit.Join(netkit.FromEncryptedTunnel(), netkit.Established(),
						netkit.SourceNotIn(setIngress), netkit.Drop()),
				},
			},
		},
		{
			Name: "forward_stranger",
			Rules: []netkit.Rule{
				{
					Why:   "from outside by published ports alone",
					Exprs: netkit.Join(netkit.ToContainer(), netkit.Drop()),
				},
				{
					Why:   "from outside by published ports alone, wherever the task is",
					Exprs: netkit.Join(netkit.ToTunnel(), netkit.Drop()),
				},
			},
		},
		{
			Name: "forward", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: prioFilter,
			Rules: []netkit.Rule{
				{Why: "from containers", Exprs: netkit.Join(netkit.FromContainer(), netkit.Goto("forward_task"))},
				{Why: "from other nodes", Exprs: netkit.Join(netkit.FromTunnel(), netkit.Goto("forward_tunnel"))},
				{
					Why:   "from outside, and not redirected",
					Exprs: netkit.Join(netkit.New(), netkit.NotRedirected(), netkit.Jump("forward_stranger")),
				},
				{Why: "the tunnel's port", Exprs: netkit.Join(tunnelPort(), netkit.Jump("speak"))},
			},
		},
	}
}

// delivery decides what reaches the host itself.
func delivery() []netkit.Chain {
	return []netkit.Chain{
		{
			Name: "input", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookInput, Priority: prioFilter,
			Rules: slices.Concat(
				[]netkit.Rule{
					{
						Why:   "tunnels of nodes of this cluster alone",
						Exprs: netkit.Join(tunnelPort(), netkit.SourceNotIn(setEnds), netkit.Drop()),
					},
					// Refusals, too, may come this way.
					{Why: "first packets alone are refused", Exprs: netkit.Join(netkit.NotNew(), netkit.Return())},
				},
				namesAlone(),
				ownDaemon(),
				// The host holds the whole subnet. What nobody took on the way
				// here must not end at one of its own services.
				netkit.Reject("no task or virtual address", netkit.DestIn(setSubnets)),
			),
		},
	}
}

// departure looks at what leaves for a container, another node or the world.
func departure() []netkit.Chain {
	return []netkit.Chain{
		{
			// Routes say so already. These hold while routes are wrong or
			// are not there, as when the encrypted tunnel has just gone.
			Name: "leave_encrypted",
			Rules: []netkit.Rule{
				{
					Why:   "encrypted networks are never sent in the clear",
					Exprs: netkit.Join(netkit.ToPlainTunnel(), netkit.Drop()),
				},
				{
					Why:   "nor past the tunnels",
					Exprs: netkit.Join(netkit.NotToContainer(), netkit.ToNoEncryptedTunnel(), netkit.NotToLoopback(), netkit.Drop()),
				},
			},
		},
		{
			Name: "leave_tunnel",
			Rules: []netkit.Rule{
				{
					Why:   "nor are their tasks' answers",
					Exprs: netkit.Join(netkit.SourceIn(setEncrypted), netkit.ToPlainTunnel(), netkit.Drop()),
				},
				{Why: "no larger than the tunnel takes", Exprs: clampMSS()},
			},
		},
		{
			Name: "leave", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPostrouting, Priority: prioTrack,
			Rules: []netkit.Rule{
				{
					// The tunnel would look for its own way with it, and find itself.
					Why: "the mark has done its work", Exprs: netkit.Join(netkit.Marked(expr.CmpOpNeq), netkit.Unmark()),
				},
				{Why: "to encrypted networks", Exprs: netkit.Join(netkit.DestIn(setEncrypted), netkit.Jump("leave_encrypted"))},
				{Why: "to other nodes", Exprs: netkit.Join(netkit.ToTunnel(), netkit.Goto("leave_tunnel"))},
			},
		},
		{
			Name: "postrouting", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: prioSNAT,
			Rules: []netkit.Rule{{
				Why:   "others know the host, not the network",
				Exprs: netkit.Join(netkit.SourceIn(setOutgoing), netkit.DestNotIn(setSubnets), []expr.Any{&expr.Masq{}}),
			}},
		},
		{
			Name: "depart", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput, Priority: prioRaw,
			Rules: []netkit.Rule{{
				Why:   "tunnel to a node",
				Exprs: netkit.Join(tunnelPort(), netkit.DestIn(setEnds), []expr.Any{&expr.Notrack{}}),
			}},
		},
	}
}

// unheardOf keeps on the node what may be meant for a new subnet of an encrypted
// network: masqueraded as this host it would go out in the clear. Other nodes'
// addresses are in no subnet.
func unheardOf() []netkit.Rule {
	return netkit.Reject("an encrypted network may have grown there",
		netkit.Join(netkit.DestIn(setGrounds), netkit.DestNotIn(setSubnets), netkit.DestNotIn(setEnds)))
}

// namesAlone keeps the gateway from being one more address of the host: it
// answers names, and nothing but that, and to containers alone.
func namesAlone() []netkit.Rule {
	var rules []netkit.Rule
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rules = append(rules, netkit.Rule{
			Why:   "containers ask for names",
			Exprs: netkit.Join(netkit.DestGateway(), netkit.ToPort(proto, netkit.NamesPort), netkit.FromContainer(), netkit.Return()),
		})
	}
	return append(rules, netkit.Reject("the gateway answers names alone", netkit.DestGateway())...)
}
