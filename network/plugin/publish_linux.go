package plugin

import (
	"encoding/json"
	"errors"
)

type publishRequest struct {
	NetworkID, EndpointID string
	Options               struct {
		Ports []json.RawMessage `json:"com.docker.network.portmap"`
	}
}

// publish is asked for the ports of a container, on the one of its networks that
// the engine would use for that. Those of tasks the mesh publishes. Those of others
// nobody does, which is better said than found out.
func (p *Plugin) publish(req publishRequest) (any, error) {
	e, known := p.records.endpoint(req.EndpointID)
	n, ours := p.records.network(e.NetworkID)
	if known && ours && len(req.Options.Ports) > 0 && p.addrs != nil && p.addrs.Stranger(n.ID, e.Addr.Addr()) {
		return nil, errors.New("ports of a container that is no task are not published on networks of the cluster: " +
			`leave --publish out, or use "docker service create --publish"`)
	}
	return nothing(struct{}{})
}
