package scheduler

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Request is what the tasks of one revision ask of a node.
type Request struct {
	ServiceID   string
	Constraints []Constraint
	Platforms   []swarm.Platform
	NanoCPUs    int64
	Memory      int64
	MaxPerNode  int // 0 for no limit
	HostPorts   []Port
	Generic     []Amount
	Plugins     []Plugin
	Networks    bool     // on some network of the cluster
	Encrypted   bool     // on a network whose packets between nodes are
	Spread      []string // label descriptors, outermost first
	// Avoid counts what went wrong on a node lately, by node ID. Such a node is
	// chosen only where no other will do, and the one with the least first.
	Avoid map[string]int
}

// Port is a port of the node itself that a task takes.
type Port struct {
	Protocol  swarm.PortConfigProtocol
	Published uint32
}

// NewRequest reads a revision's spec.
func NewRequest(r *api.Revision) (Request, error) {
	q := Request{ServiceID: r.ServiceID, HostPorts: hostPorts(r)}
	q.NanoCPUs, q.Memory = reserved(r)
	q.Plugins = plugins(&r.Spec.TaskTemplate)
	if res := r.Spec.TaskTemplate.Resources; res != nil && res.Reservations != nil {
		q.Generic = amounts(res.Reservations.GenericResources)
	}
	p := r.Spec.TaskTemplate.Placement
	if p == nil {
		return q, nil
	}
	var err error
	if q.Constraints, err = ParseConstraints(p.Constraints); err != nil {
		return Request{}, err
	}
	q.Platforms, q.MaxPerNode = p.Platforms, int(min(p.MaxReplicas, api.MaxTasks))
	for _, pref := range p.Preferences {
		if pref.Spread != nil {
			q.Spread = append(q.Spread, pref.Spread.SpreadDescriptor)
		}
	}
	return q, nil
}

func reserved(r *api.Revision) (cpus, memory int64) {
	if res := r.Spec.TaskTemplate.Resources; res != nil && res.Reservations != nil {
		return res.Reservations.NanoCPUs, res.Reservations.MemoryBytes
	}
	return 0, 0
}

func hostPorts(r *api.Revision) []Port {
	var ports []Port
	if e := r.Spec.EndpointSpec; e != nil {
		for _, p := range e.Ports {
			if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
				ports = append(ports, Port{Protocol: p.Protocol, Published: p.PublishedPort})
			}
		}
	}
	return ports
}
