package control

import (
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service"
)

// What applies where a spec says nothing, as Swarm shows it.
const (
	defaultStopGrace = 10 * time.Second
	defaultMonitor   = 5 * time.Second
)

// insertDefaults fills a copy of a spec for people to read. What is stored
// stays as the user wrote it.
func insertDefaults(in swarm.ServiceSpec) swarm.ServiceSpec {
	s := copySpec(in)
	t := &s.TaskTemplate
	if c := t.ContainerSpec; c != nil {
		if c.StopGracePeriod == nil {
			c.StopGracePeriod = new(defaultStopGrace)
		}
		if c.DNSConfig == nil {
			c.DNSConfig = &swarm.DNSConfig{}
		}
	}
	t.Resources = clone(t.Resources)
	if t.Resources == nil {
		t.Resources = &swarm.ResourceRequirements{}
	}
	if t.Resources.Limits == nil {
		t.Resources.Limits = &swarm.Limit{}
	}
	if t.Resources.Reservations == nil {
		t.Resources.Reservations = &swarm.Resources{}
	}
	if t.RestartPolicy == nil {
		t.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny}
	}
	if t.RestartPolicy.Delay == nil {
		t.RestartPolicy.Delay = new(service.DefaultDelay) // not Swarm's 5 s: what is shown is what happens
	}
	if t.RestartPolicy.MaxAttempts == nil {
		t.RestartPolicy.MaxAttempts = new(uint64)
	}
	if t.Placement == nil {
		t.Placement = &swarm.Placement{}
	}
	if !api.Job(s.Mode) { // a job may have none, and clients send back what they read
		s.UpdateConfig = updateDefaults(s.UpdateConfig)
		s.RollbackConfig = updateDefaults(s.RollbackConfig)
	}
	return s
}

func updateDefaults(u *swarm.UpdateConfig) *swarm.UpdateConfig {
	if u == nil {
		u = &swarm.UpdateConfig{
			Parallelism:   1,
			FailureAction: swarm.UpdateFailureActionPause,
			Order:         swarm.UpdateOrderStopFirst,
		}
	}
	if u.Monitor == 0 {
		u.Monitor = defaultMonitor
	}
	return u
}
