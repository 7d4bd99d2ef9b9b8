package service

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Ports that the cluster chooses itself: below those that the kernel hands out
// to outgoing connections, as Swarm has it.
const (
	firstAutoPort = 30000
	lastAutoPort  = 32767
)

// BusyPorts are ports that something outside the cluster holds, by store.PortKey.
type BusyPorts map[string]bool

// PlanPorts gives a service's ports with nothing left to choose, or says which
// other service is in the way. A port that was chosen automatically before is
// kept. spec and old may be nil: a service without ports, and a new one.
func PlanPorts(v *store.View, id string, spec *swarm.EndpointSpec, old *api.Service, busy BusyPorts) ([]swarm.PortConfig, error) {
	if spec == nil || len(spec.Ports) == 0 {
		return nil, nil
	}
	taken := portsOfOthers(v, id)
	for _, p := range spec.Ports {
		if p.PublishedPort == 0 {
			continue
		}
		if err := taken.conflict(p); err != nil {
			return nil, err
		}
		taken.mine[portKey(p)] = true
	}
	kept := chosenBefore(old)
	ports := make([]swarm.PortConfig, 0, len(spec.Ports))
	for _, p := range spec.Ports {
		if p.PublishedPort == 0 && p.PublishMode == swarm.PortConfigPublishModeIngress {
			port, err := choose(p, kept, taken, busy)
			if err != nil {
				return nil, err
			}
			p.PublishedPort = port
			taken.mine[portKey(p)] = true
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func choose(p swarm.PortConfig, kept []swarm.PortConfig, taken *takenPorts, busy BusyPorts) (uint32, error) {
	free := func(port uint32) bool {
		p.PublishedPort = port
		key := portKey(p)
		return !taken.mine[key] && !busy[key] && taken.conflict(p) == nil
	}
	for _, k := range kept {
		if k.Name == p.Name && k.Protocol == p.Protocol && k.TargetPort == p.TargetPort && free(k.PublishedPort) {
			return k.PublishedPort, nil
		}
	}
	for port := uint32(firstAutoPort); port <= lastAutoPort; port++ {
		if free(port) {
			return port, nil
		}
	}
	return 0, errdefs.ErrFailedPrecondition.WithMessage("dynamic port space is exhausted: no free port between 30000 and 32767")
}

// chosenBefore gives the ingress ports of a service that it did not ask for by
// number.
func chosenBefore(s *api.Service) []swarm.PortConfig {
	if s == nil {
		return nil
	}
	var kept []swarm.PortConfig
	for _, p := range s.Endpoint.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeIngress && !slices.Contains(s.Endpoint.Spec.Ports, p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// takenPorts answers which service publishes a port.
type takenPorts struct {
	view *store.View
	id   string // the service that asks
	host map[string]*api.Service
	mine map[string]bool
}

func portsOfOthers(v *store.View, id string) *takenPorts {
	t := &takenPorts{view: v, id: id, host: map[string]*api.Service{}, mine: map[string]bool{}}
	for s := range v.Services.All() {
		for _, p := range s.Endpoint.Ports {
			if s.ID != id && p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
				t.host[portKey(p)] = s
			}
		}
	}
	return t
}

// conflict: the routing mesh holds its ports on every node, so they exclude all
// others. Host ports of two services can live on different nodes; the scheduler
// keeps them apart.
func (t *takenPorts) conflict(p swarm.PortConfig) error {
	key := portKey(p)
	if s, ok := t.view.Services.One(store.ByPort, key); ok && s.ID != t.id {
		return portInUse(p, s, "an ingress port")
	}
	if s, ok := t.host[key]; ok && p.PublishMode == swarm.PortConfigPublishModeIngress {
		return portInUse(p, s, "a host-published port")
	}
	return nil
}

func portInUse(p swarm.PortConfig, s *api.Service, as string) error {
	return errdefs.ErrInvalidArgument.WithMessage(
		fmt.Sprintf("port '%d' is already in use by service '%s' (%s) as %s", p.PublishedPort, s.Spec.Name, s.ID, as))
}

func portKey(p swarm.PortConfig) string { return store.PortKey(string(p.Protocol), p.PublishedPort) }
