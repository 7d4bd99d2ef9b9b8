package service

import (
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// previewMost bounds how many tasks of one service are placed for a preview.
const previewMost = 10_000

// Kept says which tasks of a service go on when it is changed.
type Kept int

// All tasks go on, none, or those whose node the constraints still allow.
const (
	KeptNowhere Kept = iota
	KeptWhereAllowed
	KeptEverywhere
)

// Preview places the tasks of services that are not there yet, or not yet so, one service after the other, as if all
// that they replace had ended. Nothing is written. kept tells of a service that there is which of its tasks go on.
func Preview(v *store.View, wishes []api.Wish, kept func(api.Wish) Kept) []api.Preview {
	s := scheduler.New()
	for n := range v.Nodes.All() {
		s.SetNode(n)
	}
	for t := range v.Tasks.All() {
		of, _ := v.Revisions.Get(t.Revision)
		s.SetTask(t, of)
	}
	out := make([]api.Preview, len(wishes))
	for i, wish := range wishes {
		if wish.Remove {
			for t := range v.Tasks.By(store.ByService, wish.ID) {
				s.RemoveTask(t.ID)
			}
			continue
		}
		out[i] = preview(v, s, wish, "preview-"+strconv.Itoa(i), kept)
	}
	return out
}

func preview(v *store.View, s *scheduler.State, wish api.Wish, id string, kept func(api.Wish) Kept) (p api.Preview) {
	if wish.ID != "" {
		id = wish.ID
	}
	q, err := request(v, &api.Revision{ServiceID: id, Spec: wish.Spec})
	if err != nil {
		p.Refused = err.Error()
		return p
	}
	if wish.ID != "" {
		goesOn := func(*api.Task) bool { return false }
		switch kept(wish) {
		case KeptEverywhere:
			goesOn = func(*api.Task) bool { return true }
		case KeptWhereAllowed:
			goesOn = func(t *api.Task) bool { return allowed(v, q.Constraints, t) }
		}
		for t := range v.Tasks.By(store.ByService, id) {
			switch {
			case !goesOn(t):
				s.RemoveTask(t.ID)
			case scheduler.Wanted(t) && !api.Terminal(t.Status.State):
				p.Kept++
			}
		}
	}
	want := 1
	mode := wish.Spec.Mode
	switch {
	case mode.Global != nil || mode.GlobalJob != nil:
		// One on each node that will have it: as many as find a place.
		q.MaxPerNode, want = 1, v.Nodes.Len()
	case mode.ReplicatedJob != nil:
		_, concurrent := api.JobSize(mode)
		want = int(concurrent)
	default:
		want = api.Replicas(mode)
	}
	global := mode.Global != nil || mode.GlobalJob != nil
	if !global {
		p.Kept = min(p.Kept, want)
	}
	want = min(want, previewMost)
	pass := s.Pass(q)
	for n := p.Kept; n < want; n++ {
		t := &api.Task{Meta: api.Meta{ID: id + "/" + strconv.Itoa(n)}, ServiceID: id, DesiredState: swarm.TaskStateRunning}
		node, _, err := pass.Place(t)
		if err != nil {
			if !global || p.Kept+len(p.Nodes) == 0 {
				p.Waiting, p.Why = want-n, err.Error()
			}
			break
		}
		if p.Nodes == nil {
			p.Nodes = map[string]int{}
		}
		p.Nodes[nodeName(v, node)]++
	}
	return p
}

// allowed tells whether a task may be where it is under other constraints.
func allowed(v *store.View, constraints []scheduler.Constraint, t *api.Task) bool {
	n, ok := v.Nodes.Get(t.NodeID)
	return ok && scheduler.Allow(constraints, n)
}

func nodeName(v *store.View, id string) string {
	n, ok := v.Nodes.Get(id)
	if !ok {
		return id
	}
	if n.Spec.Name != "" {
		return n.Spec.Name
	}
	return n.Description.Hostname
}
