package lb

import (
	"net/netip"
	"slices"

	"github.com/docker/docker/api/types/swarm"

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
	mesh := slices.ContainsFunc(e.Ports, func(p api.Port) bool { return p.Protocol == "udp" })
	for _, b := range e.Backends {
		if mesh {
			for _, at := range b.Networks {
				if at.NetworkID == ingress {
					out = appendKin(out, b, at)
				}
			}
		}
		if a := state.Tasks[b.TaskID]; a != nil && publishesUDP(a) {
			if at, ok := front(b.Networks, state.Networks); ok {
				out = appendKin(out, b, at)
			}
		}
	}
	return out
}

func publishesUDP(a *api.Assignment) bool {
	return a.Revision != nil && a.Revision.Spec.EndpointSpec != nil && slices.ContainsFunc(a.Revision.Spec.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode == swarm.PortConfigPublishModeHost && p.Protocol == swarm.PortConfigProtocolUDP
	})
}

// appendKin adds who shares one of a task's other networks than to.
func appendKin(out []Kin, b api.Backend, to api.Attachment) []Kin {
	for _, at := range b.Networks {
		if at.NetworkID != to.NetworkID && at.Addr.Addr().Is4() && to.Addr.Addr().Is4() {
			out = append(out, Kin{at.Addr.Masked(), to.Addr.Addr()})
		}
	}
	return out
}
