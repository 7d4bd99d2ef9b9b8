package control

import (
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// resolveNetworks replaces names of networks by IDs.
func resolveNetworks(tx *store.Tx, spec *swarm.ServiceSpec) error {
	seen := map[string]bool{}
	for i, a := range spec.TaskTemplate.Networks {
		n, own := api.Predefined(a.Target)
		if !own {
			var err error
			if n, err = findNetwork(&tx.View, a.Target); err != nil {
				return err
			}
		}
		switch {
		case n.Spec.Ingress:
			return invalid("Service cannot be explicitly attached to the ingress network %q", n.Spec.Name)
		case len(a.DriverOpts) > 0:
			return unsupported("driver options of a network attachment are")
		case own && len(a.Aliases) > 0:
			return invalid("network %s knows no names: alias %s is for networks of the cluster", n.Spec.Name, a.Aliases[0])
		case seen[n.ID]:
			return invalid("network %s is given more than once", n.Spec.Name)
		}
		seen[n.ID] = true
		if !own {
			tx.Check(n) // it must still be there when the service comes to be
		}
		spec.TaskTemplate.Networks[i].Target = n.ID
	}
	if seen[api.HostNetwork] {
		return onHost(spec)
	}
	return nil
}

// onHost checks a service whose tasks share their node's network. No engine takes
// another network beside it, and there is nothing to publish.
func onHost(spec *swarm.ServiceSpec) error {
	switch {
	case len(spec.TaskTemplate.Networks) > 1:
		return invalid("network host can not be combined with other networks")
	case spec.EndpointSpec != nil && len(spec.EndpointSpec.Ports) > 0:
		return invalid("ports can not be published with network host: what the tasks listen on are ports of their nodes already")
	}
	return nil
}

// PredefinedResource says a predefined network in the words of the engine's API.
func PredefinedResource(n *api.Network) network.Inspect {
	return network.Inspect{
		Name: n.Spec.Name, ID: n.ID, Scope: scopeSwarm, Driver: n.Spec.Name, EnableIPv4: true,
		IPAM:    network.IPAM{Driver: defaultIPAM, Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: n.Spec.Labels,
	}
}

// predefinedAttachments says of a task which of its engine's own networks it is on.
func predefinedAttachments(t *swarm.TaskSpec) (out []swarm.NetworkAttachment) {
	for _, n := range api.PredefinedOf(t) {
		out = append(out, swarm.NetworkAttachment{Network: swarm.Network{
			ID: n.ID, Spec: n.Spec, DriverState: swarm.Driver{Name: n.Spec.Name}, IPAMOptions: &swarm.IPAMOptions{},
		}})
	}
	return out
}
