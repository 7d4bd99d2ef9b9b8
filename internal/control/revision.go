package control

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// taskInputs is all of a service's spec that a running task depends on. While
// it stays the same, so does the revision, and no task is replaced.
type taskInputs struct {
	Template swarm.TaskSpec
	Ingress  bool // attached to the ingress network
	Host     []swarm.PortConfig
	// Container is what settings ask of a container.
	Container api.Settings
}

// inputsOf takes defaults as said: some clients, docker-py among them, send back a
// spec as they were shown it, with all defaults in it.
func inputsOf(spec *swarm.ServiceSpec) taskInputs {
	in := taskInputs{Template: insertDefaults(*spec).TaskTemplate}
	if s, err := api.ReadSettings(spec.Labels); err == nil {
		in.Container = api.Settings{Privileged: s.Privileged, Devices: s.Devices, GPUs: s.GPUs, Unproven: s.Unproven}
	}
	if spec.EndpointSpec == nil {
		return in
	}
	for _, p := range spec.EndpointSpec.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			in.Host = append(in.Host, p)
		} else {
			in.Ingress = true
		}
	}
	return in
}

// anywhere leaves placement out: what is left makes a task what it is.
func (in taskInputs) anywhere() taskInputs {
	in.Template.Placement = nil
	return in
}

// revise gives a changed service the revision that its tasks should have: the
// one it has if that still fits, or else a new one.
func revise(tx *store.Tx, s *api.Service) error {
	if r, ok := tx.Revisions.Get(s.Revision); ok && sameJSON(inputsOf(&r.Spec), inputsOf(&s.Spec)) {
		return nil
	}
	r, err := newRevision(tx, s)
	if err != nil {
		return err
	}
	s.Revision = r.ID
	return nil
}

// maxChanges bounds what a revision says of its changes.
const maxChanges = 20

func newRevision(tx *store.Tx, s *api.Service) (*api.Revision, error) {
	r := &api.Revision{Meta: api.Meta{ID: api.NewID()}, ServiceID: s.ID, Number: 1, Spec: s.Spec}
	like := uint64(0)
	for o := range tx.Revisions.By(store.ByService, s.ID) {
		r.Number = max(r.Number, o.Number+1)
		if o.Number > like && sameJSON(inputsOf(&o.Spec).anywhere(), inputsOf(&s.Spec).anywhere()) {
			like, r.Like = o.Number, o.First()
		}
		if o.ID == s.Revision {
			r.From, r.Changes = o.Number, changes(&o.Spec, &s.Spec)
		}
	}
	if n := len(r.Changes); n > maxChanges {
		r.Changes = append(r.Changes[:maxChanges:maxChanges], fmt.Sprintf("%d more", n-maxChanges))
	}
	return r, tx.Put(r)
}
