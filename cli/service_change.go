package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/compose"
)

// changeTries bounds how often a change is made anew because another one, of
// the managers themselves maybe, came in between.
const changeTries = 10

// retried does what depends on the version of a service again, from its new
// version, for as long as another change comes first.
func retried(try func() error) error {
	var err error
	for range changeTries {
		if err = try(); err == nil || !strings.Contains(err.Error(), "update out of sequence") {
			break
		}
	}
	return err
}

// changeService updates a service from what it is at this moment. change makes
// another spec of it, and may set options, or says what there is nothing to do for.
func (s *session) changeService(ctx context.Context, name string, options *swarm.ServiceUpdateOptions, change func(now *swarm.Service) (nothing string, err error)) (id, nothing string, err error) {
	api, err := s.api()
	if err != nil {
		return "", "", err
	}
	err = retried(func() error {
		service, _, err := api.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
		if err != nil {
			return err
		}
		id = service.ID
		if nothing, err = change(&service); err != nil || nothing != "" {
			return err
		}
		response, err := api.ServiceUpdate(ctx, service.ID, service.Version, service.Spec, *options)
		if s.wrote(err) == nil {
			s.warn(response.Warnings)
		}
		return err
	})
	return id, nothing, err
}

// unchanged guards what is only meant for the spec that was seen first.
func unchanged() func(now *swarm.Service) error {
	var first *swarm.ServiceSpec
	return func(now *swarm.Service) error {
		if first == nil {
			seen := now.Spec
			first = &seen
		} else if len(compose.Differences(*first, now.Spec)) > 0 {
			return errors.New("somebody else has changed the service at the same time: look at it, and try again")
		}
		return nil
	}
}
