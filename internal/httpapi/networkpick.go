package httpapi

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// candidate is a network that a client may mean.
type candidate struct {
	id, name string
	cluster  bool
	engineID string // of what the local engine has of a cluster's network; "" for nothing

	engineName string
	attachable bool
}

// labelNetwork is on the engine's part of a network of the cluster.
const labelNetwork = "com.shoal.network.id"

// engineNetwork is what has to be known of a network of the local engine.
type engineNetwork struct {
	ID     string `json:"Id"`
	Name   string
	Labels map[string]string
}

// candidates joins what the engine has with what the cluster has. The engine's
// part of a network of the cluster is no network of its own.
func candidates(local []engineNetwork, cluster []*api.Network) []candidate {
	var all []candidate
	parts := map[string]engineNetwork{}
	known := map[string]bool{}
	for _, n := range cluster {
		known[n.ID] = true
	}
	for _, n := range local {
		if id := n.Labels[labelNetwork]; known[id] {
			parts[id] = n
		} else {
			all = append(all, candidate{id: n.ID, name: n.Name})
		}
	}
	for _, n := range cluster {
		all = append(all, candidate{
			id: n.ID, name: n.Spec.Name, cluster: true, attachable: n.Spec.Attachable,
			engineID: parts[n.ID].ID, engineName: parts[n.ID].Name,
		})
	}
	return all
}

// scopes that a client may ask for.
const (
	scopeSwarm = "swarm"
	scopeLocal = "local"
)

// pick finds the network that a client means, as Docker does: by its whole ID,
// then by its name, then by the beginning of its ID.
func pick(ref, scope string, all []candidate) (candidate, error) {
	var named, begun []candidate
	for _, c := range all {
		switch {
		case scope == scopeSwarm && !c.cluster, scope == scopeLocal && c.cluster:
		case c.id == ref || c.engineID == ref && ref != "":
			return c, nil
		case c.name == ref:
			named = append(named, c)
		case ref != "" && (strings.HasPrefix(c.id, ref) || strings.HasPrefix(c.engineID, ref)):
			begun = append(begun, c)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return candidate{}, invalid("network %s is ambiguous (%d matches found on name)", ref, len(named))
	case len(begun) == 1:
		return begun[0], nil
	case len(begun) > 1:
		return candidate{}, invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(begun))
	}
	return candidate{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", ref))
}
