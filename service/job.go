package service

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// iteration is the run that a job is at; nil for what is no job.
func (p *planner) iteration() *uint64 {
	s := p.service
	if s == nil || !api.Job(s.Spec.Mode) {
		return nil
	}
	if s.JobStatus == nil {
		return new(uint64)
	}
	return &s.JobStatus.JobIteration.Index
}

// job runs each slot of a job until one of its tasks has completed. Every change
// of a job's spec is a new run, and the tasks of an earlier one are history. A
// job is never updated: there is nothing of it that has to go on serving.
func (p *planner) job() {
	p.expire()
	if p.service.Spec.Mode.GlobalJob != nil {
		p.jobOnNodes()
		return
	}
	total, concurrent := api.JobSize(p.service.Spec.Mode)
	active := uint64(0)
	var surplus []*slot
	for _, s := range p.slots {
		if s.home != "" || s.number < 0 || uint64(s.number) >= total {
			surplus = append(surplus, s)
		} else if p.attempt(s).active() {
			active++
		}
	}
	p.remove(surplus)
	for n := uint64(0); n < total && active < concurrent; n++ {
		if p.open(p.slot(slotKey{number: int(n)})) {
			active++
		}
	}
}

// jobOnNodes runs a global job once on every node that was a member when it was
// started.
func (p *planner) jobOnNodes() {
	h := p.homes(func(n *api.Node) bool {
		st := p.service.JobStatus
		return st == nil || !n.CreatedAt.After(st.LastExecution)
	})
	for n := range h.each {
		if s := p.slot(slotKey{home: n.ID}); h.take(n) {
			p.open(s)
		}
	}
	p.leave(h)
}

// attempt is how far a slot of a job is.
type attempt struct {
	done bool  // it has completed
	last *task // the newest task of this run; nil if there is none
}

// active tells whether the slot has a task that is on its way.
func (a attempt) active() bool {
	return !a.done && a.last != nil && a.last.wanted() && !a.last.over()
}

func (p *planner) attempt(s *slot) (a attempt) {
	for _, t := range s.tasks {
		if t.gone || t.DesiredState == swarm.TaskStateRemove || !p.current(t) {
			continue
		}
		if t.Status.State == swarm.TaskStateComplete {
			a.done = true
		}
		if a.last == nil || t.wanted() && !a.last.wanted() || t.wanted() == a.last.wanted() && newer(t, a.last) {
			a.last = t
		}
	}
	return a
}

// newer orders tasks of a slot. What the plan just created is the newest.
func newer(a, b *task) bool {
	if a.before == nil || b.before == nil {
		return a.before == nil
	}
	return a.CreatedAt.After(b.CreatedAt)
}

// current tells whether a task belongs to the present run.
func (p *planner) current(t *task) bool {
	it := p.iteration()
	return it != nil && t.Iteration != nil && *t.Iteration == *it
}

// expire makes history of earlier runs, and of all but one task in a slot. What
// has completed stays: it is what counts.
func (p *planner) expire() {
	for _, s := range p.slots {
		a := p.attempt(s)
		for _, t := range s.wanted() {
			complete := t.Status.State == swarm.TaskStateComplete
			if !p.current(t) || !complete && (a.done || t != a.last) {
				t.stop()
			}
		}
	}
}

// open gives a slot that has not completed a task, unless it has one or may
// have no more. It tells whether there is a new one.
func (p *planner) open(s *slot) bool {
	switch a := p.attempt(s); {
	case a.done || a.active():
		return false
	case a.last == nil:
		p.create(s, p.service.Revision)
	case a.last.wanted(): // it failed
		return p.replace(s, a.last)
	default: // it was taken from a node
		p.succeed(s, a.last)
	}
	return true
}
