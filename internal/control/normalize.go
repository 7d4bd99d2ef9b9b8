package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/docker/docker/api/types/swarm"
)

// normalizeSpec fills in what Swarm writes into every stored spec, so that a
// client that reads a spec, changes one field and sends it back has changed one
// field. The caller's spec is left as it is.
func normalizeSpec(in swarm.ServiceSpec) swarm.ServiceSpec {
	s := copySpec(in)
	if s.Name == "" {
		s.Name = randomName()
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	t := &s.TaskTemplate
	if t.Runtime == "" {
		t.Runtime = swarm.RuntimeContainer
	}
	if len(t.Networks) == 0 {
		//lint:ignore SA1019 clients below 1.44 name networks here; one place is enough for those who read
		t.Networks, s.Networks = s.Networks, nil
	}
	if t.ContainerSpec != nil && t.ContainerSpec.Isolation == "" {
		t.ContainerSpec.Isolation = "default"
	}
	if t.RestartPolicy != nil && t.RestartPolicy.Condition == "" {
		t.RestartPolicy.Condition = swarm.RestartPolicyConditionAny
	}
	if m := &s.Mode; m.Global == nil && m.GlobalJob == nil && m.ReplicatedJob == nil {
		if m.Replicated == nil {
			m.Replicated = &swarm.ReplicatedService{}
		}
		if m.Replicated.Replicas == nil {
			m.Replicated.Replicas = new(uint64(1))
		}
	}
	if j := s.Mode.ReplicatedJob; j != nil {
		if j.MaxConcurrent == nil {
			j.MaxConcurrent = new(uint64(1))
		}
		if j.TotalCompletions == nil {
			j.TotalCompletions = new(*j.MaxConcurrent)
		}
	}
	for _, u := range []*swarm.UpdateConfig{s.UpdateConfig, s.RollbackConfig} {
		if u == nil {
			continue
		}
		if u.FailureAction == "" {
			u.FailureAction = swarm.UpdateFailureActionPause
		}
		if u.Order == "" {
			u.Order = swarm.UpdateOrderStopFirst
		}
	}
	// Traefik and others skip a service whose spec names no mode.
	if s.EndpointSpec == nil {
		s.EndpointSpec = &swarm.EndpointSpec{}
	}
	if s.EndpointSpec.Mode == "" {
		s.EndpointSpec.Mode = swarm.ResolutionModeVIP
	}
	for i := range s.EndpointSpec.Ports {
		p := &s.EndpointSpec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = swarm.PortConfigProtocolTCP
		}
		if p.PublishMode == "" {
			p.PublishMode = swarm.PortConfigPublishModeIngress
		}
	}
	return s
}

// copySpec copies what normalizeSpec and the resolving of networks write to.
func copySpec(s swarm.ServiceSpec) swarm.ServiceSpec {
	s.Labels = maps.Clone(s.Labels)
	s.TaskTemplate.ContainerSpec = clone(s.TaskTemplate.ContainerSpec)
	s.TaskTemplate.RestartPolicy = clone(s.TaskTemplate.RestartPolicy)
	s.TaskTemplate.Networks = slices.Clone(s.TaskTemplate.Networks)
	s.Mode.Replicated = clone(s.Mode.Replicated)
	s.Mode.ReplicatedJob = clone(s.Mode.ReplicatedJob)
	s.UpdateConfig = clone(s.UpdateConfig)
	s.RollbackConfig = clone(s.RollbackConfig)
	s.EndpointSpec = clone(s.EndpointSpec)
	if s.EndpointSpec != nil {
		s.EndpointSpec.Ports = slices.Clone(s.EndpointSpec.Ports)
	}
	return s
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// sameJSON compares what clients can see: a nil and an empty list are the same.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Words for services that were given no name.
var (
	nameLeft  = []string{"amber", "brisk", "calm", "deft", "eager", "fair", "glad", "keen", "lucid", "mellow", "nimble", "quiet", "rapid", "solid", "tidy", "vivid"}
	nameRight = []string{"bream", "carp", "cod", "dory", "eel", "gar", "hake", "herring", "ling", "perch", "pike", "roach", "shad", "smelt", "tench", "trout"}
)

func randomName() string {
	return fmt.Sprintf("%s_%s%03d", nameLeft[rand.IntN(len(nameLeft))], nameRight[rand.IntN(len(nameRight))], rand.IntN(1000))
}
