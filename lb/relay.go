package lb

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"shoal/internal/api"
)

// Relayed makes the table of a node that has none of the cluster's networks, and
// thus no way to a task: a published port leads to the same port of the nodes
// that have tasks behind it, and these choose a task. Tasks on muted nodes, by
// node ID, count for nothing. It never leads to this node itself or to another
// that would only pass it on, or a connection could go round for ever.
func Relayed(state *api.NodeState, muted map[string]bool) Table {
	t := Table{NodeAddr: nodeAddr(state.Node)}
	taken := map[[2]any]bool{}
	for _, id := range slices.Sorted(maps.Keys(state.Endpoints)) {
		e := state.Endpoints[id]
		nodes := relays(state, e, muted)
		for _, p := range e.Ports {
			k := [2]any{p.Protocol, p.Published}
			if p.Published == 0 || taken[k] {
				continue
			}
			taken[k] = true
			t.Ports = append(t.Ports, Port{Protocol: p.Protocol, Published: p.Published, Target: p.Published, Backends: nodes})
		}
	}
	slices.SortFunc(t.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Protocol, b.Protocol))
	})
	return t
}

// relays are the addresses of the nodes that have tasks of a service.
func relays(state *api.NodeState, e *api.Endpoint, muted map[string]bool) []netip.Addr {
	var out []netip.Addr
	for _, b := range e.Backends {
		p, ok := state.Peers[b.NodeID]
		if ok && !p.Networkless && !muted[b.NodeID] && p.DataPath.Is4() {
			out = append(out, p.DataPath)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
