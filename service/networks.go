package service

import (
	"errors"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// wantedNetwork is a network that a spec attaches its tasks to.
type wantedNetwork struct {
	id      string
	aliases []string
}

// networksOf resolves the networks of a spec on which tasks get addresses: the ingress network if it
// publishes ports through the mesh, then those it names, each once.
func networksOf(v *store.View, spec *swarm.ServiceSpec) ([]wantedNetwork, error) {
	var out []wantedNetwork
	if publishes(spec) {
		n := v.Ingress()
		if n == nil {
			return nil, errors.New("ports are published, but the cluster has no ingress network")
		}
		out = append(out, wantedNetwork{id: n.ID})
	}
	for _, c := range spec.TaskTemplate.Networks {
		if _, own := api.Predefined(c.Target); own {
			continue // its addresses are the engine's business
		}
		n := network(v, c.Target)
		if n == nil {
			return nil, fmt.Errorf("network %s not found", c.Target)
		}
		if !slices.ContainsFunc(out, func(w wantedNetwork) bool { return w.id == n.ID }) {
			out = append(out, wantedNetwork{id: n.ID, aliases: c.Aliases})
		}
	}
	return out, nil
}

// request is what the tasks of a revision ask of a node. What is wrong with their
// networks is said where they get their addresses.
func request(v *store.View, r *api.Revision) (scheduler.Request, error) {
	q, err := scheduler.NewRequest(r)
	if err != nil {
		return q, err
	}
	networks, _ := networksOf(v, &r.Spec)
	q.Networks = len(networks) > 0
	for _, w := range networks {
		if n, ok := v.Networks.Get(w.id); ok && n.Encrypted() {
			q.Encrypted = true
		}
	}
	return q, nil
}

func network(v *store.View, target string) *api.Network {
	if n, ok := v.Networks.Get(target); ok {
		return n
	}
	n, _ := v.Networks.One(store.ByName, target)
	return n
}

// publishes tells whether a spec publishes ports through the routing mesh.
func publishes(spec *swarm.ServiceSpec) bool {
	return spec.EndpointSpec != nil && slices.ContainsFunc(spec.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode != swarm.PortConfigPublishModeHost
	})
}
