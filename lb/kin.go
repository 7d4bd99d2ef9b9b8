package lb

import (
	"net/netip"
	"slices"

	"shoal/internal/api"
)

// Kin is a client within a network that From is a subnet of, and a task that it
// is sent to at To, an address on another network. The task has one on From, too,
// and would answer a datagram from there, which the client does not expect. (A
// connection answers from where it began.)
type Kin struct {
	From netip.Prefix
	To   netip.Addr
}

// kin are those of a service's tasks.
func kin(state *api.NodeState, e *api.Endpoint, ingress string) (out []Kin) {
	for _, b := range e.Backends {
		if anyUDP(e.Ports) {
			for _, at := range b.Networks {
				if at.NetworkID == ingress {
					out = appendKin(out, state, b, at)
				}
			}
		}
		if state.Tasks[b.TaskID] != nil && anyUDP(b.Ports) {
			if at, ok := front(b.Networks, state.Networks); ok {
				out = appendKin(out, state, b, at)
			}
		}
	}
	return out
}

func anyUDP(ports []api.Port) bool {
	return slices.ContainsFunc(ports, func(p api.Port) bool { return p.Protocol == "udp" })
}

// appendKin adds who shares one of a task's other networks than to.
func appendKin(out []Kin, state *api.NodeState, b api.Backend, to api.Attachment) []Kin {
	for _, at := range b.Networks {
		if at.NetworkID == to.NetworkID || !at.Addr.Addr().Is4() || !to.Addr.Addr().Is4() {
			continue
		}
		if n := state.Networks[at.NetworkID]; n != nil && len(n.Subnets) > 1 {
			for _, s := range n.Subnets {
				if s.Prefix.Addr().Is4() {
					out = append(out, Kin{s.Prefix.Masked(), to.Addr.Addr()})
				}
			}
			continue
		}
		out = append(out, Kin{at.Addr.Masked(), to.Addr.Addr()})
	}
	return out
}
