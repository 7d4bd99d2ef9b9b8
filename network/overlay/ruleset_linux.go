package overlay

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"

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
		Chains: slices.Concat(arrival(), tracking(), forwarding(), delivery(), departure()),
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
