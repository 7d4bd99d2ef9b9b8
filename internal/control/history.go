package control

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// History lists the revisions of a service that are kept, the newest first.
func (c *Control) History(ref string) ([]api.RevisionSummary, error) {
	v := c.View()
	s, err := findService(v, ref)
	if err != nil {
		return nil, err
	}
	tasks := map[string]int{}
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if t.Status.State == swarm.TaskStateRunning {
			tasks[t.Revision]++
		}
	}
	out := []api.RevisionSummary{}
	for r := range v.Revisions.By(store.ByService, s.ID) {
		sum := api.RevisionSummary{
			Number: r.Number, Name: revisionName(r), Current: r.ID == s.Revision,
			From: r.From, Changes: r.Changes, Tasks: tasks[r.ID], CreatedAt: r.CreatedAt,
		}
		if spec := r.Spec.TaskTemplate.ContainerSpec; spec != nil {
			sum.Image = spec.Image
		}
		out = append(out, sum)
	}
	slices.SortFunc(out, func(a, b api.RevisionSummary) int { return cmp.Compare(b.Number, a.Number) })
	return out, nil
}

func revisionName(r *api.Revision) string {
	settings, _ := api.ReadSettings(r.Spec.Labels)
	return settings.RevisionName
}

// findRevision finds a revision of a service by its number, or by its name: the
// newest that has it.
func findRevision(v *store.View, s *api.Service, ref string) (*api.Revision, error) {
	number, err := strconv.ParseUint(ref, 10, 64)
	numbered := err == nil
	var found *api.Revision
	for r := range v.Revisions.By(store.ByService, s.ID) {
		if numbered && r.Number == number {
			return r, nil
		}
		if !numbered && revisionName(r) == ref && (found == nil || r.Number > found.Number) {
			found = r
		}
	}
	if found == nil {
		return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf(
			"revision %s of service %s not found: see 'shoal service history %s'", ref, s.Spec.Name, s.Spec.Name))
	}
	return found, nil
}

// specOf gives the spec to go back to a revision with: what its tasks are and
// how they are reached. How many there are, and how they are updated, has been
// decided since and stands.
func specOf(r *api.Revision, present *swarm.ServiceSpec) swarm.ServiceSpec {
	s := copySpec(*present)
	s.TaskTemplate, s.EndpointSpec = r.Spec.TaskTemplate, r.Spec.EndpointSpec
	s.Labels = api.SetRevisionName(s.Labels, revisionName(r))
	return s
}
