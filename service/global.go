package service

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service/scheduler"
)

// cover gives each node that should have a task of a global service its own,
// and takes it from the others.
func (p *planner) cover() {
	wanted := p.homes(func(*api.Node) bool { return true })
	open := p.opening()
	for n := range wanted.each {
		s := p.slot(slotKey{home: n.ID})
		switch {
		case !wanted.take(n) || len(s.wanted()) > 0:
		case open == 0:
			p.closed = true
		default:
			p.create(s, p.service.Revision)
			open--
		}
	}
	p.leave(wanted)
}

// homes are the nodes that tasks of the present revision may be on.
type homes struct {
	nodes []*api.Node // in the order of the store
	is    map[string]bool
}

// homes chooses the nodes of a global service or job.
func (p *planner) homes(also func(*api.Node) bool) homes {
	constraints := p.constraintsOf(p.service.Revision)
	h := homes{is: map[string]bool{}}
	for n := range p.nodes {
		if n.Status.State == swarm.NodeStateReady && n.Spec.Availability != swarm.NodeAvailabilityDrain &&
			scheduler.Allow(constraints, n) && also(n) {
			h.nodes = append(h.nodes, n)
			h.is[n.ID] = true
		}
	}
	return h
}

// each gives the nodes one after the other.
func (h homes) each(yield func(*api.Node) bool) {
	for _, n := range h.nodes {
		if !yield(n) {
			return
		}
	}
}

// take tells whether a node takes tasks that are new to it. A paused one, and one
// without an engine, only keeps what it has.
func (homes) take(n *api.Node) bool {
	return n.Spec.Availability == swarm.NodeAvailabilityActive && !n.NoEngine
}

// leave stops what is on nodes that are none of the service's any more. With a
// node that left the cluster goes its history.
func (p *planner) leave(h homes) {
	for _, s := range p.slots {
		switch {
		case p.node(s.home) == nil:
			p.remove([]*slot{s})
		case !h.is[s.home]:
			for _, t := range s.wanted() {
				if !t.over() || t.Iteration == nil {
					t.stop()
				}
			}
		}
	}
}
