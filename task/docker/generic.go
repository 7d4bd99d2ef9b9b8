package docker

import (
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// genericEnv tells a container which of its node's generic resources are its
// own, the way Docker does: DOCKER_RESOURCE_GPU=uuid1,uuid2, or an amount.
func genericEnv(got []swarm.GenericResource) []string {
	values := map[string][]string{}
	for _, r := range got {
		switch {
		case r.NamedResourceSpec != nil:
			values[r.NamedResourceSpec.Kind] = append(values[r.NamedResourceSpec.Kind], r.NamedResourceSpec.Value)
		case r.DiscreteResourceSpec != nil:
			values[r.DiscreteResourceSpec.Kind] = append(values[r.DiscreteResourceSpec.Kind], strconv.FormatInt(r.DiscreteResourceSpec.Value, 10))
		}
	}
	var env []string
	for kind, list := range values {
		env = append(env, "DOCKER_RESOURCE_"+strings.ToUpper(kind)+"="+strings.Join(list, ","))
	}
	slices.Sort(env)
	return env
}
