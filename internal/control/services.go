package control

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
)

// CreateService admits a new service and returns its ID. registryAuth is the
// X-Registry-Auth header, "" for none.
func (c *Control) CreateService(ctx context.Context, spec swarm.ServiceSpec, registryAuth string) (string, error) {
	spec = normalizeSpec(spec)
	if err := validateSpec(&spec); err != nil {
		return "", err
	}
	if err := c.allowSettings(&spec, nil); err != nil {
		return "", err
	}
	if err := validateAuth(registryAuth); err != nil {
		return "", err
	}
	id := api.NewID()
	if err := nameFree(c.View(), spec.Name); err != nil {
		return "", err // before the nodes are asked for their ports
	}
	busy, err := c.freeOnNodes(ctx, c.View(), id, spec.EndpointSpec, nil)
	if err != nil {
		return "", err
	}
	c.references.RLock()
	defer c.references.RUnlock()
	err = c.update(ctx, func(tx *store.Tx) error {
		if err := nameFree(&tx.View, spec.Name); err != nil {
			return err
		}
		s := &api.Service{Meta: api.Meta{ID: id}, Spec: copySpec(spec), RegistryAuth: registryAuth}
		if api.Job(s.Spec.Mode) {
			s.JobStatus = &swarm.JobStatus{LastExecution: c.now().UTC()}
		}
		if err := resolveNetworks(tx, &s.Spec); err != nil {
			return err
		}
		if err := resolveFiles(tx, &s.Spec); err != nil {
			return err
		}
		if err := fillEndpoint(&tx.View, s, nil, busy); err != nil {
			return err
		}
		r, err := newRevision(tx, s)
		if err != nil {
			return err
		}
		s.Revision = r.ID
		return tx.Put(s)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func nameFree(v *store.View, name string) error {
	if _, taken := v.Services.One(store.ByName, name); taken {
		return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("name conflicts with an existing object: service %s already exists", name))
	}
	return nil
}

// Update is how a service is to change.
type Update struct {
	Version          uint64 // of the service that the change was made from
	Spec             swarm.ServiceSpec
	RegistryAuth     string // "" keeps what there is
	RegistryAuthFrom string // "spec" or "previous-spec"; a service has one set of credentials, whatever its spec
	Rollback         bool   // back to the previous spec; Spec does not count
	To               string // with Rollback: back to this revision, by number or name
}

// UpdateService replaces the spec of a service, or goes back to its previous one.
func (c *Control) UpdateService(ctx context.Context, ref string, u Update) error {
	old, err := findService(c.View(), ref)
	if err != nil {
		return err
	}
	if old.Version != u.Version {
		return ErrOutOfSequence
	}
	if err := validateAuth(u.RegistryAuth); err != nil {
		return err
	}
	if err := validateAuthFrom(u.RegistryAuthFrom, old); err != nil {
		return err
	}
	var spec swarm.ServiceSpec
	target, message := old.PreviousRevision, "manually requested rollback"
	switch {
	case u.Rollback && u.To != "":
		r, err := findRevision(c.View(), old, u.To)
		if err != nil {
			return err
		}
		if r.ID == old.Revision {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("service %s is at revision %s already", ref, u.To))
		}
		spec, target, message = specOf(r, &old.Spec), r.ID, fmt.Sprintf("manually requested rollback to revision %d", r.Number)
	case u.Rollback:
		if old.Previous == nil {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("service %s does not have a previous spec", ref))
		}
		spec = *old.Previous
	default:
		spec = normalizeSpec(u.Spec)
		if err := validateChange(&old.Spec, &spec); err != nil {
			return err
		}
		if err := validateSpec(&spec); err != nil {
			return err
		}
	}
	if err := c.allowSettings(&spec, &old.Spec); err != nil {
		return err
	}
	busy, err := c.freeOnNodes(ctx, c.View(), old.ID, spec.EndpointSpec, old)
	if err != nil {
		return err
	}
	c.references.RLock()
	defer c.references.RUnlock()
	return c.update(ctx, func(tx *store.Tx) error {
		old, ok := tx.Services.Get(old.ID)
		if !ok {
			return notFound(api.KindService, ref)
		}
		if old.Version != u.Version {
			return ErrOutOfSequence
		}
		s := api.Clone(old)
		s.Spec = copySpec(spec)
		s.UpdateStatus = nil
		if old.Settings().Stopped && !s.Settings().Stopped && !api.Job(s.Spec.Mode) {
			s.UpdateStatus = service.Starting(c.now().UTC())
		}
		if u.Rollback {
			s.Spec.Labels = api.KeepStopped(s.Spec.Labels, old.Spec.Labels)
		}
		if u.RegistryAuth != "" {
			s.RegistryAuth = u.RegistryAuth
		}
		if err := resolveNetworks(tx, &s.Spec); err != nil {
			return err
		}
		if err := resolveFiles(tx, &s.Spec); err != nil {
			return err
		}
		if err := fillEndpoint(&tx.View, s, old, busy); err != nil {
			return err
		}
		// To stop and to start is nothing that one would go back from, and to change
		// nothing is not either.
		paused, same := sameButStopped(&old.Spec, &s.Spec), sameJSON(&old.Spec, &s.Spec)
		if u.Rollback || !paused && !same {
			s.Previous, s.PreviousRevision = &old.Spec, old.Revision
		}
		if u.Rollback || !paused {
			s.JobStatus = nextRun(old, c.now())
		}
		if u.Rollback {
			s.Revision = target
		}
		if u.Rollback && !api.Job(s.Spec.Mode) {
			s.UpdateStatus = &swarm.UpdateStatus{
				State:     swarm.UpdateStateRollbackStarted,
				StartedAt: new(c.now().UTC()),
				Message:   message,
			}
		}
		if err := revise(tx, s); err != nil {
			return err
		}
		return tx.Put(s)
	})
}

// RemoveService forgets a service. Its tasks and revisions are cleared away by
// those who watch the store.
func (c *Control) RemoveService(ctx context.Context, ref string) error {
	return c.update(ctx, func(tx *store.Tx) error {
		s, err := findService(&tx.View, ref)
		if err != nil {
			return err
		}
		return tx.Delete(api.KindService, s.ID)
	})
}

// Service returns one service by ID, name or beginning of the ID. withDefaults
// shows what applies where the spec says nothing.
func (c *Control) Service(ref string, withDefaults bool) (swarm.Service, error) {
	s, err := findService(c.View(), ref)
	if err != nil {
		return swarm.Service{}, err
	}
	out := dockerService(s)
	if withDefaults {
		out.Spec = insertDefaults(out.Spec)
	}
	return out, nil
}

// Services lists the services that fit the filters, with counts of their tasks
// if status is set.
func (c *Control) Services(f filters.Args, status bool) ([]swarm.Service, error) {
	if err := accept(f, "name", "id", "label", "mode", "runtime"); err != nil {
		return nil, err
	}
	v := c.View()
	services := []swarm.Service{}
	for s := range v.Services.All() {
		if !prefix(f, "name", s.Spec.Name) || !prefix(f, "id", s.ID) || !labelled(f, "label", s.Spec.Labels) ||
			!anyOf(f, "mode", func(m string) bool { return slices.Contains(modeNames(s.Spec.Mode), m) }) ||
			!anyOf(f, "runtime", func(r string) bool { return r == string(swarm.RuntimeContainer) }) {
			continue
		}
		out := dockerService(s)
		if status {
			out.ServiceStatus = serviceStatus(v, s)
		}
		services = append(services, out)
	}
	return services, nil
}

// fillEndpoint sets what a service is reached by. VIPs stay as they are: they
// are allocated by those who watch the store.
func fillEndpoint(v *store.View, s, old *api.Service, busy service.BusyPorts) error {
	if publishesIngress(&s.Spec) && v.Ingress() == nil {
		return errdefs.ErrFailedPrecondition.WithMessage("service needs ingress network, but no ingress network is present")
	}
	if err := hostPortsLead(v, &s.Spec); err != nil {
		return err
	}
	ports, err := service.PlanPorts(v, s.ID, s.Spec.EndpointSpec, old, busy)
	if err != nil {
		return err
	}
	s.Endpoint.Spec = *s.Spec.EndpointSpec
	s.Endpoint.Ports = ports
	return nil
}

// maxAuth bounds what is stored of it next to the specs, see maxSpec.
const maxAuth = 32 << 10

// validateAuth wants base64url of a JSON object, as clients send it.
func validateAuth(header string) error {
	if header == "" {
		return nil
	}
	if len(header) > maxAuth {
		return invalid("invalid X-Registry-Auth header: longer than %d bytes", maxAuth)
	}
	raw, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(header)
	}
	var object map[string]any
	if err != nil || json.Unmarshal(raw, &object) != nil {
		return invalid("invalid X-Registry-Auth header: must be a base64url-encoded JSON object")
	}
	return nil
}

func validateAuthFrom(from string, s *api.Service) error {
	switch from {
	case "", swarm.RegistryAuthFromSpec:
		return nil
	case swarm.RegistryAuthFromPreviousSpec:
		if s.Previous == nil {
			return invalid("service does not have a previous spec")
		}
		return nil
	}
	return invalid("unsupported registryAuthFrom value")
}
