package docker

import (
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestGenericEnv(t *testing.T) {
	got := genericEnv([]swarm.GenericResource{
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "uuid1"}},
		{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "Ssd", Value: 3}},
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "uuid2"}},
	})
	if want := []string{"DOCKER_RESOURCE_GPU=uuid1,uuid2", "DOCKER_RESOURCE_SSD=3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if genericEnv(nil) != nil {
		t.Error("an environment without resources")
	}
}
