package lb

import (
	"net/netip"

	"shoal/internal/api"
)

// hostPorts are the ports that a service's tasks on this node publish on it
// alone. The engine has no part in them: it publishes ports of containers on its
// own bridges, and a task on none of our networks is left to it.
func hostPorts(state *api.NodeState, e *api.Endpoint) (out []Port) {
	for _, b := range e.Backends {
		if state.Tasks[b.TaskID] == nil {
			continue // another node's
		}
		at, ok := front(b.Networks, state.Networks)
		if !ok {
			continue
		}
		for _, p := range b.Ports {
			out = append(out, Port{
				Protocol: p.Protocol, Published: p.Published, Target: p.Target,
				Backends: []netip.Addr{at.Addr.Addr()}, ProxyProtocol: e.ProxyProtocol && p.Protocol == "tcp",
			})
		}
	}
	return out
}

// front is where a task is reached by those who are on none of its networks: the
// network by which it leaves them.
func front(at []api.Attachment, networks map[string]*api.Network) (api.Attachment, bool) {
	for _, on := range at {
		if n := networks[on.NetworkID]; on.Addr.Addr().Is4() && n != nil && !n.Spec.Internal {
			return on, true
		}
	}
	return api.Attachment{}, false
}
