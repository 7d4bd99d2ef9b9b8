package service

import (
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// rollBack makes the previous spec the wanted one again, and the failed one the
// previous.
func (p *planner) rollBack(message string) error {
	s := p.service
	if s.Previous == nil || s.PreviousRevision == "" {
		return errors.New("there is no previous version")
	}
	if s.PreviousRevision == s.Revision {
		return errors.New("the previous version asks for the same tasks")
	}
	if _, ok := p.revisions[s.PreviousRevision]; !ok {
		return errors.New("the previous version is not kept any more")
	}
	if err := p.refers(s.Previous); err != nil {
		return err
	}
	ports, err := p.ports(s.Previous.EndpointSpec)
	if err != nil {
		return err
	}
	n := p.edit()
	failed := n.Spec
	n.Spec, n.Previous = *n.Previous, &failed
	n.Spec.Labels = api.KeepStopped(n.Spec.Labels, failed.Labels)
	n.Revision, n.PreviousRevision = n.PreviousRevision, n.Revision
	n.Endpoint.Ports, n.Endpoint.Spec = ports, swarm.EndpointSpec{}
	if e := n.Spec.EndpointSpec; e != nil {
		n.Endpoint.Spec = *e
	}
	p.status(swarm.UpdateStateRollbackStarted, message)
	return nil
}

// refers tells whether the networks, secrets and configs of a spec are still there:
// nobody keeps them for a spec that is not in use.
func refers(v *store.View, spec *swarm.ServiceSpec) error {
	if _, err := networksOf(v, spec); err != nil {
		return err
	}
	c := spec.TaskTemplate.ContainerSpec
	if c == nil {
		return nil
	}
	for _, r := range c.Secrets {
		if _, ok := v.Secrets.Get(r.SecretID); !ok {
			return fmt.Errorf("secret %s not found", r.SecretName)
		}
	}
	for _, r := range c.Configs {
		if _, ok := v.Configs.Get(r.ConfigID); !ok {
			return fmt.Errorf("config %s not found", r.ConfigName)
		}
	}
	return nil
}
