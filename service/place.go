package service

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// provide gives the service its virtual addresses, and its tasks a node and
// their addresses. A task that goes without says why in its status; the error
// means that something is still missing.
func (t *term) provide(v *store.View, p *planner) error {
	failed := t.endpoint(v, p)
	passes := map[string]*placer{}
	for _, s := range p.slots {
		for _, task := range s.wanted() {
			if task.NodeID != "" || task.over() || p.backingOff(task) {
				continue
			}
			pl, ok := passes[task.Revision]
			if !ok {
				pl = t.placer(v, p.revisions[task.Revision], p.unlucky(task.Revision), failed)
				passes[task.Revision] = pl
			}
			if err := pl.place(p, task); err != nil {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// placer places the tasks of one revision.
type placer struct {
	term     *term
	pass     *scheduler.Pass
	networks []wantedNetwork
	err      error // why no task can be placed at all
}

const (
	// unluckyAfter is how many tasks of a revision have to fail on a node before
	// others are preferred: the fault may be the node's, such as an image that
	// it can not pull. Twice may be chance.
	unluckyAfter = 3
	// unluckyFor is how long that is held against the node. Swarm's time.
	unluckyFor = 5 * time.Minute
)

// unlucky counts the failures of a revision by node, where they are many.
func (p *planner) unlucky(revision string) map[string]int {
	count := map[string]int{}
	for _, s := range p.slots {
		for _, t := range s.tasks {
			failed := t.Status.State == swarm.TaskStateFailed || t.Status.State == swarm.TaskStateRejected
			if failed && t.Revision == revision && p.now.Sub(t.Status.Timestamp) < unluckyFor {
				count[t.NodeID]++
			}
		}
	}
	maps.DeleteFunc(count, func(_ string, n int) bool { return n < unluckyAfter })
	return count
}

func (t *term) placer(v *store.View, r *api.Revision, avoid map[string]int, err error) *placer {
	pl := &placer{term: t, err: err}
	if pl.err != nil {
		return pl
	}
	if r == nil {
		pl.err = errors.New("the task's revision of the service is missing")
		return pl
	}
	req, err := request(v, r)
	if err != nil {
		pl.err = err
		return pl
	}
	req.Avoid = avoid
	pl.pass = t.nodes.Pass(req)
	pl.networks, pl.err = networksOf(v, &r.Spec)
	return pl
}

// place finds a node and addresses for a task, or notes why there are none.
func (pl *placer) place(p *planner, t *task) error {
	spot, err := pl.find(t.Task)
	if err != nil {
		if t.Status.Err != err.Error() {
			t.edit().Status = swarm.TaskStatus{
				Timestamp: p.now, State: swarm.TaskStatePending, Message: "pending task scheduling", Err: err.Error(),
			}
		}
		return err
	}
	n := t.edit()
	n.NodeID, n.Networks, n.Generic = spot.nodeID, spot.networks, spot.generic
	n.Status.Timestamp, n.Status.State, n.Status.Message = p.now, swarm.TaskStateAssigned, "scheduler assigned task to node"
	if !isWaiting(n) {
		n.Status.Err = ""
	}
	return nil
}

// spot is what a task was found.
type spot struct {
	nodeID   string
	networks []api.Attachment
	generic  []swarm.GenericResource
}

func (pl *placer) find(t *api.Task) (s spot, err error) {
	if pl.err != nil {
		return s, pl.err
	}
	if t.Home != "" {
		s.nodeID = t.Home
		s.generic, err = pl.pass.PlaceOn(t)
	} else {
		s.nodeID, s.generic, err = pl.pass.Place(t)
	}
	if err != nil {
		return s, err
	}
	if s.networks, err = pl.term.leases.attach(t.ID, pl.networks); err != nil {
		pl.term.nodes.RemoveTask(t.ID)
	}
	return s, err
}

// endpoint keeps Endpoint.Spec and the virtual addresses as the spec wants
// them. An address that is still wanted never changes.
func (t *term) endpoint(v *store.View, p *planner) error {
	s := p.service
	want := swarm.EndpointSpec{}
	if s.Spec.EndpointSpec != nil {
		want = *s.Spec.EndpointSpec
	}
	if want.Mode == "" {
		want.Mode = swarm.ResolutionModeVIP
	}
	if !sameEndpoint(s.Endpoint.Spec, want) {
		p.edit().Endpoint.Spec = want
	}
	var networks []wantedNetwork
	if want.Mode == swarm.ResolutionModeVIP {
		var err error
		if networks, err = networksOf(v, &s.Spec); err != nil {
			return fmt.Errorf("allocate virtual addresses: %w", err)
		}
	}
	vips, err := t.leases.vips(s, networks)
	if err != nil {
		return fmt.Errorf("allocate virtual addresses: %w", err)
	}
	if len(vips) != len(s.Endpoint.VirtualIPs) || len(vips) > 0 && !reflect.DeepEqual(vips, s.Endpoint.VirtualIPs) {
		p.edit().Endpoint.VirtualIPs = vips
	}
	return nil
}

// sameEndpoint takes no list of ports and an empty one for the same: encoding
// makes one of the other.
func sameEndpoint(a, b swarm.EndpointSpec) bool {
	return a.Mode == b.Mode && (len(a.Ports) == 0 && len(b.Ports) == 0 || reflect.DeepEqual(a.Ports, b.Ports))
}
