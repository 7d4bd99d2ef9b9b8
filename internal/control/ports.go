package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
)

// checkTimeout bounds how long a slow node can hold up a service.
const checkTimeout = 2 * time.Second

// rechoose bounds how often automatic ports are chosen again because the ones
// chosen are taken on some node.
const rechoose = 8

func validateEndpoint(e *swarm.EndpointSpec) error {
	if !oneOf(e.Mode, swarm.ResolutionModeVIP, swarm.ResolutionModeDNSRR) {
		return invalid("invalid resolution mode: %q: --endpoint-mode must be vip or dnsrr", e.Mode)
	}
	type key struct {
		protocol swarm.PortConfigProtocol
		port     uint32
	}
	seen := map[key]bool{}
	for _, p := range e.Ports {
		switch {
		case !oneOf(p.Protocol, swarm.PortConfigProtocolTCP, swarm.PortConfigProtocolUDP, swarm.PortConfigProtocolSCTP):
			return invalid("EndpointSpec: invalid protocol %q of %s: must be tcp, udp or sctp", p.Protocol, portName(p))
		case !oneOf(p.PublishMode, swarm.PortConfigPublishModeIngress, swarm.PortConfigPublishModeHost):
			return invalid("EndpointSpec: invalid publish mode %q of %s: must be ingress or host", p.PublishMode, portName(p))
		case p.TargetPort < 1 || p.TargetPort > 65535:
			return invalid("EndpointSpec: invalid target port %d: must be between 1 and 65535", p.TargetPort)
		case p.PublishedPort > 65535:
			return invalid("EndpointSpec: invalid published port %d: must be between 1 and 65535", p.PublishedPort)
		case e.Mode == swarm.ResolutionModeDNSRR && p.PublishMode == swarm.PortConfigPublishModeIngress:
			return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode: publish %s with mode=host, or use --endpoint-mode vip", portName(p))
		case p.PublishedPort == 0:
			continue
		case seen[key{p.Protocol, p.PublishedPort}]:
			return invalid("EndpointSpec: duplicate published ports provided: %d/%s twice", p.PublishedPort, p.Protocol)
		}
		seen[key{p.Protocol, p.PublishedPort}] = true
	}
	return nil
}

// portName names a port as one publishes it.
func portName(p swarm.PortConfig) string {
	if p.PublishedPort == 0 {
		return fmt.Sprintf("port %d/%s", p.TargetPort, p.Protocol)
	}
	return fmt.Sprintf("port %d:%d/%s", p.PublishedPort, p.TargetPort, p.Protocol)
}

// hostPortsLead refuses ports in host mode by which nobody would be reached. The
// engine serves those of tasks on its own bridge; on networks of the cluster
// nodes do, on a network that answers leave by.
func hostPortsLead(v *store.View, spec *swarm.ServiceSpec) error {
	on, out := publishesIngress(spec), publishesIngress(spec)
	for _, a := range spec.TaskTemplate.Networks {
		if n, ok := v.Networks.Get(a.Target); ok {
			on, out = true, out || !n.Spec.Internal
		}
	}
	for _, p := range spec.EndpointSpec.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && on && !out {
			return invalid("EndpointSpec: port %d/%s is published in host mode, and all networks of the service are internal: nobody could be answered", cmp.Or(p.PublishedPort, p.TargetPort), p.Protocol)
		}
	}
	return nil
}

// freeOnNodes asks the nodes before a port of the mesh is taken, for the mesh
// would take it away from whoever listens there now. It returns the ports that
// an automatic choice has to avoid. That happens before the transaction, which
// may not wait for anything; a program that takes the port in between is found
// by the node itself.
func (c *Control) freeOnNodes(ctx context.Context, v *store.View, id string, spec *swarm.EndpointSpec, old *api.Service) (service.BusyPorts, error) {
	busy := service.BusyPorts{}
	if c.ports == nil {
		return busy, nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	for range rechoose {
		ports, err := service.PlanPorts(v, id, spec, old, busy)
		if err != nil {
			return nil, err
		}
		wanted := newIngress(ports, old)
		if len(wanted) == 0 {
			return busy, nil
		}
		owners, err := c.ports.InUse(ctx, wanted)
		if err != nil {
			// A node that can not be asked is no reason to refuse the service.
			c.log.Warn("not all nodes said whether the published ports are free", zap.Error(err))
		}
		again := false
		for _, o := range owners {
			if asked(spec, o) {
				return nil, portOwned(o)
			}
			key := store.PortKey(o.Protocol, uint32(o.Port))
			again = again || !busy[key]
			busy[key] = true
		}
		if !again {
			break
		}
	}
	return busy, nil
}

// newIngress gives those ingress ports that the service does not have already.
func newIngress(ports []swarm.PortConfig, old *api.Service) []api.Port {
	had := map[string]bool{}
	key := func(p swarm.PortConfig) string { return store.PortKey(string(p.Protocol), p.PublishedPort) }
	if old != nil {
		for _, p := range old.Endpoint.Ports {
			if p.PublishMode == swarm.PortConfigPublishModeIngress {
				had[key(p)] = true
			}
		}
	}
	var wanted []api.Port
	for _, p := range ports {
		if p.PublishMode == swarm.PortConfigPublishModeIngress && !had[key(p)] {
			wanted = append(wanted, api.Port{Protocol: string(p.Protocol), Target: uint16(p.TargetPort), Published: uint16(p.PublishedPort)})
		}
	}
	return wanted
}

// asked tells whether the user named this port, rather than leave the choice.
func asked(spec *swarm.EndpointSpec, o NodePortOwner) bool {
	return slices.ContainsFunc(spec.Ports, func(p swarm.PortConfig) bool {
		return string(p.Protocol) == o.Protocol && p.PublishedPort == uint32(o.Port)
	})
}

func portOwned(o NodePortOwner) error {
	if o.Owner == "" {
		return invalid("port %d/%s is already in use on node %s", o.Port, o.Protocol, o.Node)
	}
	return invalid("port %d/%s is already in use on node %s by %s", o.Port, o.Protocol, o.Node, o.Owner)
}
