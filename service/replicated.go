package service

import (
	"cmp"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service/scheduler"
)

// evict replaces tasks on nodes that can not or must not run them any more:
// dead, removed, drained, or outside of the service's constraints by now. The
// replacement keeps the revision: only an update changes that.
func (p *planner) evict() {
	// The task of a global service has no other node, and a job opens its slots
	// itself: only replicas move.
	mode := p.service.Spec.Mode
	movable := !api.Global(mode) && !api.Job(mode) && !p.service.Settings().Stopped
	moving := p.moving()
	for _, s := range p.slots {
		for _, t := range s.wanted() {
			t.lasts = movable && t.serves() && !p.away(t) && (!p.welcome(t) || moving[t])
		}
		for _, t := range s.wanted() {
			if t.NodeID == "" || t.over() || p.welcome(t) {
				continue
			}
			if p.node(t.NodeID) == nil {
				t.edit().Status = swarm.TaskStatus{
					Timestamp: p.now, State: swarm.TaskStateOrphaned, Message: "node left the cluster",
					ContainerStatus: t.Status.ContainerStatus,
				}
			}
			t.stop()
			if movable && len(s.wanted()) == 0 {
				p.succeed(s, t)
			}
		}
		p.relieve(s)
	}
}

// succeed creates a task that takes another's place, on another node. What is
// known of the failures before stays known.
func (p *planner) succeed(s *slot, t *task) {
	n := p.create(s, t.Revision)
	n.Attempts, n.Failures, n.NotBefore = t.Attempts, t.Failures, t.NotBefore
}

// relieve lets a task that serves last until its successor serves, whatever the
// order of updates: what has to leave a node that works is in no hurry. It lasts
// no longer where no successor can be had, or a node could never be drained.
func (p *planner) relieve(s *slot) {
	var last *task
	for _, t := range s.tasks {
		switch {
		case !t.lasts:
		case last == nil || t.Revision == p.service.Revision && last.Revision != t.Revision:
			if last != nil {
				last.retire()
			}
			last = t
		default:
			t.retire()
		}
	}
	if last == nil {
		return
	}
	if len(s.wanted()) == 0 {
		p.succeed(s, last)
		return
	}
	for _, next := range s.wanted() {
		free := last.Leave && p.welcome(last) // to stay
		switch {
		case free && next.NodeID == last.NodeID || free && p.hopeless(next, last):
			p.stay(s, last)
			return
		case next.running():
			last.retire()
			return
		case !p.hopeless(next, last):
		default:
			last.retire()
			return
		}
	}
}

// retire lets a task last no longer.
func (t *task) retire() {
	t.lasts = false
	t.stop()
}

// maxTries is how many successors in a row may fail before the task that they
// are to relieve is stopped all the same. Once may be chance.
const maxTries = 3

// hopeless tells whether a successor can not be expected to run: there is no
// place for it, or it failed for good or too often.
func (p *planner) hopeless(next, last *task) bool {
	if next.over() {
		return !policyOf(p.revision(next)).restarts(next, p.stable(next))
	}
	return p.homeless(next) && !p.engineOut(next) || next.Failures >= last.Failures+maxTries
}

// engineOut tells whether some node may soon take a task that takes none now: its
// engine does not answer, which passes, or the node is DOWN within seconds.
func (p *planner) engineOut(t *task) bool {
	constraints := p.constraints(t)
	return slices.ContainsFunc(p.engineless(), func(n *api.Node) bool { return scheduler.Allow(constraints, n) })
}

// engineless are the nodes that only lack an engine. There are few, and all nodes
// are looked at for them once.
func (p *planner) engineless() []*api.Node {
	if p.silent == nil {
		p.silent = []*api.Node{}
		for n := range p.nodes {
			if n.NoEngine && n.Status.State == swarm.NodeStateReady && n.Spec.Availability == swarm.NodeAvailabilityActive {
				p.silent = append(p.silent, n)
			}
		}
	}
	return p.silent
}

// homeless tells whether there is no place for a task.
func (p *planner) homeless(t *task) bool {
	return t.NodeID == "" && t.Status.Err != "" && !isWaiting(t.Task)
}

func (p *planner) welcome(t *task) bool {
	n := p.node(t.NodeID)
	if n == nil || n.Status.State == swarm.NodeStateDown || n.Spec.Availability == swarm.NodeAvailabilityDrain {
		return false
	}
	return scheduler.Allow(p.constraints(t), n)
}

// constraints gives those of a task's revision, read once for all its tasks.
// One that can not be read stops no task that already runs.
func (p *planner) constraints(t *task) []scheduler.Constraint { return p.constraintsOf(t.Revision) }

func (p *planner) constraintsOf(revision string) []scheduler.Constraint {
	all, ok := p.parsed[revision]
	if ok {
		return all
	}
	if r := p.revisions[revision]; r != nil && r.Spec.TaskTemplate.Placement != nil {
		all, _ = scheduler.ParseConstraints(r.Spec.TaskTemplate.Placement.Constraints)
	}
	p.parsed[revision] = all
	return all
}

// settle leaves at most one wanted task of the target revision in a slot, and
// one of another where the order of updates allows two at a time.
func (p *planner) settle() {
	target := p.service.Revision
	for _, s := range p.slots {
		all := s.wanted()
		if len(all) < 2 {
			continue
		}
		slices.SortFunc(all, better)
		var current, outdated *task
		for _, t := range all {
			switch {
			case t.Revision == target && current == nil:
				current = t
			case t.Revision != target && outdated == nil:
				outdated = t
			default:
				t.stop()
			}
		}
		if current == nil || outdated == nil {
			continue
		}
		if current.running() || p.meantToEnd(current) || outdated.over() ||
			p.config().Order != swarm.UpdateOrderStartFirst && (current.NodeID != "" || !p.spared(outdated)) {
			outdated.stop() // the new task took over, or may
		}
	}
}

// better orders tasks of a slot by what is lost if they are stopped.
func better(a, b *task) int {
	rank := func(t *task) int {
		switch {
		case t.running():
			return 0
		case !t.over():
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// scale opens or removes slots until there are as many as replicas.
func (p *planner) scale() {
	want, filled := api.Replicas(p.service.Spec.Mode), p.filled()
	if len(filled) > want {
		p.remove(p.surplus(filled, len(filled)-want))
		return
	}
	missing := want - len(filled)
	open := min(missing, p.opening())
	p.closed = open < missing
	for n := 1; open > 0; n++ {
		if s := p.slot(slotKey{number: n}); len(s.wanted()) == 0 {
			p.create(s, p.service.Revision)
			open--
		}
	}
}

// surplus chooses the slots to give up: first those that serve nobody, then
// those on the nodes with most tasks of the service, and of these the newest.
func (p *planner) surplus(filled []*slot, n int) []*slot {
	type candidate struct {
		*slot
		running bool
		nth     int // the how manieth of the service on its node
	}
	slices.SortFunc(filled, func(a, b *slot) int { return cmp.Compare(a.number, b.number) })
	perNode := map[string]int{}
	var all []candidate
	for _, s := range filled {
		c := candidate{slot: s}
		for _, t := range s.wanted() {
			if t.running() && !c.running {
				c.running = true
				perNode[t.NodeID]++
				c.nth = perNode[t.NodeID]
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.running != b.running {
			if b.running {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.nth, a.nth), cmp.Compare(b.number, a.number))
	})
	var out []*slot
	for _, c := range all[:n] {
		out = append(out, c.slot)
	}
	return out
}

// remove gives slots up, with their history.
func (p *planner) remove(slots []*slot) {
	for _, s := range slots {
		for _, t := range s.tasks {
			if t.DesiredState != swarm.TaskStateRemove {
				t.edit().DesiredState = swarm.TaskStateRemove
			}
		}
	}
}

// promote lets prepared tasks run, once their back-off has passed and what they
// replace has ended: one task at a time runs in a slot, unless the update order
// says otherwise.
func (p *planner) promote() {
	for _, s := range p.slots {
		for _, t := range s.wanted() {
			if t.DesiredState != swarm.TaskStateReady || t.over() {
				continue
			}
			if t.NotBefore.After(p.now) {
				p.wakeAt(t.NotBefore)
				p.sayWaiting(t)
				continue
			}
			if slices.ContainsFunc(s.tasks, p.winding) {
				continue
			}
			limit := p.service.Settings().StartTimeout
			if p.beside(s, t) {
				if limit > 0 && t.StartBy.IsZero() { // an update does not wait for room for ever
					t.edit().StartBy = p.now.Add(limit)
				}
				continue
			}
			n := t.edit()
			n.DesiredState = swarm.TaskStateRunning
			if limit > 0 {
				n.StartBy = p.now.Add(limit)
			}
			if isWaiting(n) {
				n.Status.Err = ""
			}
		}
	}
}

// winding tells whether a task was told to stop and may not have done so yet.
// A node that is away can not tell, and is not waited for.
func (p *planner) winding(t *task) bool {
	return !t.gone && !t.lasts && !t.wanted() && !p.ended(t) && !p.away(t)
}

// orphanAfter is how long a node must be DOWN until its tasks are given up for
// good. Swarm's time.
const orphanAfter = 24 * time.Hour

// orphan gives up what nodes took with them that have been DOWN for too long.
// Until then such a task may still run, and keeps its address; from then on it
// is history like any other.
func (p *planner) orphan() {
	for _, s := range p.slots {
		for _, t := range s.tasks {
			if t.before == nil || t.over() || t.wanted() || t.NodeID == "" {
				continue
			}
			n := p.node(t.NodeID)
			if n == nil || n.Status.State != swarm.NodeStateDown {
				continue
			}
			since := n.DownSince
			if since.IsZero() { // it went down before that was noted
				since = n.UpdatedAt
			}
			if due := since.Add(orphanAfter); due.After(p.now) {
				p.wakeAt(due)
				continue
			}
			t.edit().Status = swarm.TaskStatus{
				Timestamp: p.now, State: swarm.TaskStateOrphaned,
				Message:         "node has been down for " + orphanAfter.String(),
				ContainerStatus: t.Status.ContainerStatus,
			}
		}
	}
}

// reap deletes removed tasks that have ended, and history that is too long.
func (p *planner) reap() {
	for _, s := range p.slots {
		var past []*task
		keep := p.history
		for _, t := range s.tasks {
			switch {
			case t.before == nil:
				keep--
			case t.DesiredState == swarm.TaskStateRemove:
				t.gone = p.ended(t) // on a node that is away it may run, with its address
			case !t.wanted() && t.NodeID == "" && !t.over():
				t.gone = true // no node ever heard of it: this was no attempt
			case t.wanted() || !p.ended(t) || t.rests:
				keep--
			case p.current(t) && t.Status.State == swarm.TaskStateComplete:
				keep-- // or the job would do it again
			default:
				past = append(past, t)
			}
		}
		if p.history < 0 || len(past) <= max(keep, 0) {
			continue
		}
		slices.SortFunc(past, func(a, b *task) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		for _, t := range past[max(keep, 0):] {
			t.gone = true
		}
	}
}

// keptRevisions is how many of the newest revisions stay even if nothing uses
// them, so that there is something to go back to.
const keptRevisions = 10

// dropRevisions finds the revisions that nothing refers to any more.
func (p *planner) dropRevisions() {
	used := map[string]bool{}
	for _, s := range p.slots {
		for _, t := range s.tasks {
			// A task deleted by this plan counts: until that has happened for
			// certain, its revision must be there.
			used[t.Revision] = true
		}
	}
	all := make([]*api.Revision, 0, len(p.revisions))
	for _, r := range p.revisions {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *api.Revision) int {
		return cmp.Or(cmp.Compare(b.Number, a.Number), cmp.Compare(a.ID, b.ID))
	})
	for i, r := range all {
		if s := p.service; s != nil && (i < keptRevisions || r.ID == s.Revision || r.ID == s.PreviousRevision) {
			continue
		}
		if !used[r.ID] {
			p.dropped = append(p.dropped, r)
		}
	}
}
