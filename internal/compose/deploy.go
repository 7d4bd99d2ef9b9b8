package compose

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/swarm"
)

// What is below deploy, and what files of version 2 say in its place.

func rollout(u *types.UpdateConfig) *swarm.UpdateConfig {
	if u == nil {
		return nil
	}
	config := &swarm.UpdateConfig{
		Parallelism: 1, Delay: time.Duration(u.Delay), FailureAction: u.FailureAction,
		Monitor: time.Duration(u.Monitor), MaxFailureRatio: u.MaxFailureRatio, Order: u.Order,
	}
	if u.Parallelism != nil {
		config.Parallelism = *u.Parallelism
	}
	return config
}

func (c converter) mode(path string, s types.ServiceConfig, d *types.DeployConfig) (swarm.ServiceMode, error) {
	given, field := d.Replicas, ".deploy.replicas"
	if given == nil {
		given, field = s.Scale, ".scale"
	} else if s.Scale != nil && *s.Scale != *given {
		return swarm.ServiceMode{}, c.checker.errorAt(path+".scale", "deploy.replicas says %d", *given)
	}
	var replicas *uint64
	if given != nil {
		if *given < 0 {
			return swarm.ServiceMode{}, c.checker.errorAt(path+field, "%d is less than nothing", *given)
		}
		n := uint64(*given)
		replicas = &n
	}
	if replicas != nil && strings.HasPrefix(d.Mode, "global") {
		return swarm.ServiceMode{}, c.checker.errorAt(path+field, "replicas can only be used with replicated or replicated-job mode")
	}
	switch d.Mode {
	case "", "replicated":
		return swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: replicas}}, nil
	case "global":
		return swarm.ServiceMode{Global: &swarm.GlobalService{}}, nil
	case "replicated-job":
		return swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: replicas, TotalCompletions: replicas}}, nil
	case "global-job":
		return swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}, nil
	}
	return swarm.ServiceMode{}, c.checker.errorAt(path+".deploy.mode", "unknown mode %q: it is replicated, global, replicated-job or global-job", d.Mode)
}

// resources are those of deploy, and those that files of version 2 say beside it.
func (c converter) resources(path string, s types.ServiceConfig, d *types.DeployConfig) (*swarm.ResourceRequirements, error) {
	out := &swarm.ResourceRequirements{}
	if l := d.Resources.Limits; l != nil {
		out.Limits = &swarm.Limit{NanoCPUs: nano(float32(l.NanoCPUs)), MemoryBytes: int64(l.MemoryBytes), Pids: l.Pids}
	}
	if r := d.Resources.Reservations; r != nil {
		out.Reservations = &swarm.Resources{NanoCPUs: nano(float32(r.NanoCPUs)), MemoryBytes: int64(r.MemoryBytes)}
		for _, g := range r.GenericResources {
			var resource swarm.GenericResource
			if spec := g.DiscreteResourceSpec; spec != nil {
				resource.DiscreteResourceSpec = &swarm.DiscreteGenericResource{Kind: spec.Kind, Value: spec.Value}
			}
			out.Reservations.GenericResources = append(out.Reservations.GenericResources, resource)
		}
	}
	old := func(field string, value int64, into *int64) error {
		if *into != 0 && *into != value {
			return c.checker.errorAt(path+"."+field, "deploy.resources says something else")
		}
		*into = value
		return nil
	}
	if s.CPUS != 0 || s.MemLimit != 0 || s.PidsLimit > 0 {
		if out.Limits == nil {
			out.Limits = &swarm.Limit{}
		}
		if s.CPUS != 0 {
			if err := old("cpus", nano(s.CPUS), &out.Limits.NanoCPUs); err != nil {
				return nil, err
			}
		}
		if s.MemLimit != 0 {
			if err := old("mem_limit", int64(s.MemLimit), &out.Limits.MemoryBytes); err != nil {
				return nil, err
			}
		}
		if s.PidsLimit > 0 {
			if err := old("pids_limit", s.PidsLimit, &out.Limits.Pids); err != nil {
				return nil, err
			}
		}
	}
	if s.MemReservation != 0 {
		if out.Reservations == nil {
			out.Reservations = &swarm.Resources{}
		}
		if err := old("mem_reservation", int64(s.MemReservation), &out.Reservations.MemoryBytes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// nano is a number of processors in billionths. It was read as a float of 32 bits, which is not exactly what the file
// says; the shortest decimal that reads the same is.
func nano(cpus float32) int64 {
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(float64(cpus), 'f', -1, 32))
	if !ok {
		return 0
	}
	r.Mul(r, big.NewRat(1e9, 1))
	return new(big.Int).Div(r.Num(), r.Denom()).Int64()
}

func (c converter) restart(path, restart string, policy *types.RestartPolicy) (*swarm.RestartPolicy, error) {
	if policy != nil {
		return &swarm.RestartPolicy{
			Condition: swarm.RestartPolicyCondition(policy.Condition), Delay: span(policy.Delay),
			MaxAttempts: policy.MaxAttempts, Window: span(policy.Window),
		}, nil
	}
	name, count, counted := strings.Cut(restart, ":")
	if counted && name != "on-failure" {
		return nil, c.checker.errorAt(path+".restart", "maximum retry count cannot be used with restart policy '%s'", name)
	}
	switch name {
	case "":
		return nil, nil
	case "no":
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s.restart is ignored: use deploy.restart_policy.condition none", c.checker.at(path+".restart"), path))
		return nil, nil
	case "always", "unless-stopped":
		return &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny}, nil
	case "on-failure":
		var attempts uint64
		if counted {
			var err error
			if attempts, err = strconv.ParseUint(count, 10, 32); err != nil {
				return nil, c.checker.errorAt(path+".restart", "maximum retry count must be an integer")
			}
		}
		return &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure, MaxAttempts: &attempts}, nil
	}
	return nil, c.checker.errorAt(path+".restart", "unknown restart policy %q", restart)
}

func (c converter) dependencies(path string, all types.DependsOnConfig) ([]Dependency, error) {
	var list []Dependency
	var wrong error
	for _, key := range slices.Sorted(maps.Keys(all)) {
		d := Dependency{Key: key, Condition: Condition(all[key].Condition), Optional: !all[key].Required}
		if d.Condition == "" {
			d.Condition = Started
		}
		switch d.Condition {
		case Started, Healthy, Completed:
		default:
			wrong = errors.Join(wrong, c.checker.errorAt(path+".depends_on."+key+".condition", "unknown condition %q", d.Condition))
			continue
		}
		if on, ok := c.model.Services[key]; !ok {
			if d.Optional {
				continue
			}
			wrong = errors.Join(wrong, c.checker.errorAt(path+".depends_on", "it depends on the service %q, which is not deployed", key))
			continue
		} else if d.Condition == Completed && (on.Deploy == nil || !strings.HasSuffix(on.Deploy.Mode, "-job")) {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".depends_on."+key, "service %q never completes: give it deploy.mode replicated-job or global-job", key))
		}
		list = append(list, d)
	}
	return list, wrong
}
