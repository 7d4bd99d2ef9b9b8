package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Stop, start and restart change the spec like any other update: a label says
// that a service is stopped, so that every client sees it and none loses it.

func (s *session) powerCommands() []leaf {
	list := func(name, usage string, run func(ctx context.Context, in input) error) leaf {
		return leaf{name: name, args: "SERVICE [SERVICE...]", usage: usage, flags: waitFlags(), arity: atLeastOne, run: run}
	}
	return []leaf{
		list("restart", "Replace all tasks of one or more services, within their update settings", s.serviceRestart),
		list("start", "Start one or more stopped services, within their update settings", s.serviceStart),
		list("stop", "Stop all tasks of one or more services, within their update settings; spec and number of replicas stay", s.serviceStop),
	}
}

func (s *session) serviceRestart(ctx context.Context, in input) error {
	return s.changeAll(ctx, in, func(spec *swarm.ServiceSpec) string {
		spec.Labels = api.SetStopped(spec.Labels, false)
		spec.TaskTemplate.ForceUpdate++
		return ""
	})
}

func (s *session) serviceStart(ctx context.Context, in input) error {
	return s.changeAll(ctx, in, func(spec *swarm.ServiceSpec) string {
		if !stopped(*spec) {
			return "is not stopped"
		}
		spec.Labels = api.SetStopped(spec.Labels, false)
		return ""
	})
}

func (s *session) serviceStop(ctx context.Context, in input) error {
	return s.changeAll(ctx, in, func(spec *swarm.ServiceSpec) string {
		if stopped(*spec) {
			return "is stopped already"
		}
		spec.Labels = api.SetStopped(spec.Labels, true)
		return ""
	})
}

func stopped(spec swarm.ServiceSpec) bool {
	settings, _ := api.ReadSettings(spec.Labels)
	return settings.Stopped
}

// changeAll changes services, and then waits for them to follow. A change that
// there is nothing to do for says so.
func (s *session) changeAll(ctx context.Context, in input, change func(*swarm.ServiceSpec) string) error {
	type changed struct{ id, name string }
	var waitFor []changed
	var failed []error
	for _, name := range in.args {
		id, nothing, err := s.changeSpec(ctx, name, change)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		case nothing != "":
			fmt.Fprintf(s.err, "%s %s\n", name, nothing)
		default:
			fmt.Fprintln(s.out, name)
			waitFor = append(waitFor, changed{id, name})
		}
	}
	if in.Bool("detach") {
		return errors.Join(failed...)
	}
	for _, c := range waitFor {
		if err := s.wait(ctx, c.id, c.name, in.Bool("quiet")); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(failed...)
}

func (s *session) changeSpec(ctx context.Context, name string, change func(*swarm.ServiceSpec) string) (id, nothing string, err error) {
	options := &swarm.ServiceUpdateOptions{RegistryAuthFrom: swarm.RegistryAuthFromSpec}
	return s.changeService(ctx, name, options, func(now *swarm.Service) (string, error) { return change(&now.Spec), nil })
}
