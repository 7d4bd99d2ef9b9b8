package service

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service/scheduler"
)

// Defaults of an update, as in Swarm. Its default parallelism of 1 is what the
// whole UpdateConfig defaults to; within one, 0 means no limit.
const (
	defaultParallelism = 1
	defaultMonitor     = 5 * time.Second
)

// config gives the settings that the update, or the rollback, goes by.
func (p *planner) config() swarm.UpdateConfig {
	spec := p.service.Spec.UpdateConfig
	if p.rollingBack() {
		spec = p.service.Spec.RollbackConfig
	}
	c := swarm.UpdateConfig{Parallelism: defaultParallelism}
	if spec != nil {
		c = *spec
	}
	if c.Monitor == 0 {
		c.Monitor = defaultMonitor
	}
	c.FailureAction = cmp.Or(c.FailureAction, swarm.UpdateFailureActionPause)
	c.Order = cmp.Or(c.Order, swarm.UpdateOrderStopFirst)
	return c
}

func (p *planner) rollingBack() bool {
	s := p.service.UpdateStatus
	return s != nil && strings.HasPrefix(string(s.State), "rollback_")
}

// adopt makes tasks part of the service's revision that differ from it in placement
// alone and are where it allows. What else a placement says, how tasks are spread
// and how many a node may have, is for tasks to be placed, and moves none: as in
// Swarm. A job's tasks belong to their run.
func (p *planner) adopt() {
	target, ok := p.revisions[p.service.Revision]
	if !ok || api.Job(p.service.Spec.Mode) {
		return
	}
	constraints := p.constraintsOf(target.ID)
	for _, s := range p.slots {
		for _, t := range s.wanted() {
			if t.Revision == target.ID || !p.revision(t).Alike(target) {
				continue
			}
			if n := p.node(t.NodeID); t.NodeID == "" || n != nil && scheduler.Allow(constraints, n) {
				t.edit().Revision = target.ID
			}
		}
	}
}

// update brings outdated slots to the service's revision, as many at a time as
// the settings allow, and keeps UpdateStatus. All it knows it reads off the
// tasks, so that a new leader carries on where the last one stopped.
func (p *planner) update() {
	filled := p.filled()
	outdated := slices.ContainsFunc(filled, func(s *slot) bool {
		_, old := s.split(p.service.Revision)
		return old != nil
	})
	if !p.begin(outdated) {
		return
	}
	c := p.config()
	if culprit := p.tooManyFailures(filled, c); culprit != nil && !p.starting() {
		p.fail(c, culprit)
		return
	}
	p.replaceNext(filled, c)
	p.tellWaiting(filled)
	p.finish(filled, c)
}

// begin tells whether an update is under way, and starts one if tasks are
// outdated and none is. Whoever changes a spec takes the status away: what was
// under way for another spec, paused or stuck, is superseded by that.
func (p *planner) begin(outdated bool) bool {
	st := p.service.UpdateStatus
	open := st != nil && st.State != swarm.UpdateStateCompleted && st.State != swarm.UpdateStateRollbackCompleted
	switch {
	case !open && !outdated:
		return false
	case !open, p.starting() && outdated: // it was changed while it was stopped
		p.status(swarm.UpdateStateUpdating, "update in progress")
	case st.State == swarm.UpdateStatePaused, st.State == swarm.UpdateStateRollbackPaused:
		return false
	case st.StartedAt == nil:
		p.status(st.State, st.Message)
	}
	return true
}

// updating tells whether tasks are being replaced now.
func (p *planner) updating() bool {
	st := p.service.UpdateStatus
	return st != nil && (st.State == swarm.UpdateStateUpdating || st.State == swarm.UpdateStateRollbackStarted)
}

// status begins a new state of the service's update.
func (p *planner) status(state swarm.UpdateState, message string) {
	now := p.now
	p.edit().UpdateStatus = &swarm.UpdateStatus{State: state, StartedAt: &now, Message: message}
}

// failed tells whether a slot's new task crashed before it was stable since the
// update began. A replacement carries the memory of that in Attempts, so that
// it does not matter how much history is kept.
func (p *planner) failed(s *slot) bool {
	t, _ := s.split(p.service.Revision)
	if t == nil || t.before != nil && t.CreatedAt.Before(*p.service.UpdateStatus.StartedAt) {
		return false
	}
	return t.Attempts > 0 || t.over() && p.crashed(t)
}

func (p *planner) crashed(t *task) bool { return !p.meantToEnd(t) && !p.stable(t) }

// meantToEnd tells whether a task has done what it was there for.
func (p *planner) meantToEnd(t *task) bool {
	return t.Status.State == swarm.TaskStateComplete && policyOf(p.revision(t)).condition != swarm.RestartPolicyConditionAny
}

// failedAt is when a slot's new task first failed, as far as the slot's history
// tells: that is when it was replaced, if it was.
func (p *planner) failedAt(s *slot) (first time.Time) {
	for _, t := range s.tasks {
		if t.Revision != p.service.Revision || t.before == nil || t.CreatedAt.Before(*p.service.UpdateStatus.StartedAt) {
			continue
		}
		at := t.CreatedAt
		if t.Attempts == 0 {
			at = t.UpdatedAt
		}
		if (t.Attempts > 0 || t.over()) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// tooManyFailures gives the task whose failure was one too many, if any.
func (p *planner) tooManyFailures(filled []*slot, c swarm.UpdateConfig) *task {
	if c.FailureAction == swarm.UpdateFailureActionContinue {
		return nil
	}
	var culprit *task
	failed := 0
	for _, s := range filled {
		if p.failed(s) {
			failed++
			culprit = lastFailure(s, p.service.Revision)
		}
	}
	if failed == 0 || float32(failed)/float32(len(filled)) <= c.MaxFailureRatio {
		return nil
	}
	return culprit
}

// lastFailure finds the task to name: the newest of the revision that ended, or
// the one that came after it if the history is not kept.
func lastFailure(s *slot, revision string) *task {
	var found *task
	for _, t := range s.tasks {
		if t.Revision != revision {
			continue
		}
		if found == nil || t.over() && (!found.over() || t.CreatedAt.After(found.CreatedAt)) {
			found = t
		}
	}
	return found
}

// rolledBack begins the message of an update that was taken back by itself.
const rolledBack = "update rolled back "

// fail does what the settings say about a failed update.
func (p *planner) fail(c swarm.UpdateConfig, culprit *task) {
	because := "due to failure or early termination of task " + culprit.ID
	if why := reason(culprit); why != "" {
		because += ": " + why
	}
	if p.rollingBack() {
		p.pause(swarm.UpdateStateRollbackPaused, "rollback paused "+because)
		return
	}
	if c.FailureAction == swarm.UpdateFailureActionRollback {
		if err := p.rollBack(rolledBack + because); err != nil {
			p.pause(swarm.UpdateStatePaused, fmt.Sprintf("update paused %s; rolling back is not possible: %v", because, err))
		}
		return
	}
	p.pause(swarm.UpdateStatePaused, "update paused "+because)
}

// reason is why a task failed, or the one before it that it waits to replace.
func reason(t *task) string {
	if isWaiting(t.Task) {
		return strings.TrimPrefix(strings.TrimPrefix(t.Status.Err, waiting(t.Task)), ": ")
	}
	return t.Status.Err
}

// pause stops replacing tasks. StartedAt stays: it tells a newer spec from the
// one that failed.
func (p *planner) pause(state swarm.UpdateState, message string) {
	started := p.service.UpdateStatus.StartedAt
	p.edit().UpdateStatus = &swarm.UpdateStatus{State: state, StartedAt: started, Message: message}
}

// replaceNext replaces outdated tasks, those first that serve nobody anyway.
func (p *planner) replaceNext(filled []*slot, c swarm.UpdateConfig) {
	var outdated []*slot
	for _, s := range filled {
		if current, _ := s.split(p.service.Revision); current == nil {
			outdated = append(outdated, s)
		}
	}
	slices.SortFunc(outdated, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(serving(a), serving(b)), cmp.Compare(a.number, b.number), cmp.Compare(a.home, b.home))
	})
	room := p.room(filled, c)
	for i, s := range outdated {
		_, old := s.split(p.service.Revision)
		// What failed is not tried again while it waits for its turn to go back.
		if i >= room && !(p.rollingBack() && !old.running()) {
			continue
		}
		if (c.Order != swarm.UpdateOrderStartFirst || !old.running()) && !p.spared(old) {
			old.stop()
		}
		p.create(s, p.service.Revision)
	}
}

// spared tells whether a task whose turn it is to be replaced goes on for now: it
// serves, and no node at all would take its replacement, not even once it is gone.
// The replacement waits with the reason, and when a node would take it the order of
// updates applies again. That constraints are met by no node may be a mistake, or
// the node is still to come: in neither case does anybody want to be without both.
func (p *planner) spared(old *task) bool {
	r, ok := p.revisions[p.service.Revision]
	return ok && p.takes != nil && old.serves() && !p.away(old) && p.takes(r, old.Task) != ""
}

// beside tells whether a task must not run yet because one that it replaces was
// spared: the order of updates has one at a time.
func (p *planner) beside(s *slot, t *task) bool {
	return p.config().Order != swarm.UpdateOrderStartFirst && slices.ContainsFunc(s.tasks, func(o *task) bool {
		return o.wanted() && o.Revision != t.Revision && o.serves() && !p.away(o)
	})
}

// noNode begins what an update's message says for as long as it waits for a node.
const noNode = "; it waits for a node: "

// tellWaiting says in the update's status why one of its tasks has no node.
func (p *planner) tellWaiting(filled []*slot) {
	if p.starting() {
		return // that ends without what finds no room
	}
	st := *p.service.UpdateStatus
	st.Message, _, _ = strings.Cut(st.Message, noNode)
	for _, s := range filled {
		if t, _ := s.split(p.service.Revision); t != nil && p.homeless(t) {
			st.Message += noNode + t.Status.Err
			break
		}
	}
	if st.Message != p.service.UpdateStatus.Message {
		p.edit().UpdateStatus = &st
	}
}

func serving(s *slot) int {
	if slices.ContainsFunc(s.tasks, func(t *task) bool { return t.running() && (t.lasts || t.wanted()) }) {
		return 1
	}
	return 0
}

// parallelism is how many tasks may be replaced at a time.
func parallelism(c swarm.UpdateConfig) int {
	if c.Parallelism == 0 {
		return math.MaxInt
	}
	return int(min(c.Parallelism, math.MaxInt32))
}

// room is how many more slots may be in flight.
func (p *planner) room(filled []*slot, c swarm.UpdateConfig) int {
	room := parallelism(c)
	for _, s := range filled {
		if current, _ := s.split(p.service.Revision); current != nil && p.inFlight(s, current, c) {
			room--
		}
	}
	return max(room, 0)
}

// inFlight tells whether a slot still counts as being updated: its new task
// does not run yet, or not for the delay between updates. A failure that the
// settings tolerate does not hold up the others.
func (p *planner) inFlight(s *slot, t *task, c swarm.UpdateConfig) bool {
	switch {
	case t.over() || p.failed(s):
		return false
	case p.starting() && p.homeless(t):
		return false // nothing else waits for what waits for room
	case !t.running():
		return true
	}
	free := p.runningSince(t.ID).Add(c.Delay)
	if free.After(p.now) {
		p.wakeAt(free)
		return true
	}
	return false
}

// finish ends the update once every slot is at the new revision and was watched
// for the monitor time. A failure that the settings tolerate is an end like any
// other: what the new task was to relieve and still serves ends with the update,
// as in Swarm, or one that never runs would keep the update open for ever.
func (p *planner) finish(filled []*slot, c swarm.UpdateConfig) {
	done, failures := !p.closed, 0
	watched := func(since time.Time) {
		if good := since.Add(c.Monitor); good.After(p.now) {
			p.wakeAt(good)
			done = false
		}
	}
	for _, s := range filled {
		t, old := s.split(p.service.Revision)
		switch {
		case t == nil:
			done = false
		case p.failed(s):
			failures++
			watched(p.failedAt(s))
		case old != nil:
			done = false
		case t.over():
			if policyOf(p.revision(t)).restarts(t, p.stable(t)) {
				done = false // its replacement is still to come
			}
		case !t.running():
			done = false
		default:
			watched(p.runningSince(t.ID))
		}
	}
	if !done {
		return
	}
	for _, s := range filled {
		if _, old := s.split(p.service.Revision); old != nil {
			old.stop()
		}
	}
	now, st := p.now, *p.service.UpdateStatus
	st.State, st.Message, st.CompletedAt = swarm.UpdateStateCompleted, completed("update", failures, len(filled)), &now
	switch {
	case p.starting():
		st.Message = startedMessage
	case p.rollingBack():
		st.State = swarm.UpdateStateRollbackCompleted
		// Why the update did not stand is worth more than a second word for
		// the state.
		if st.Message = p.service.UpdateStatus.Message; !strings.HasPrefix(st.Message, rolledBack) {
			st.Message = completed("rollback", failures, len(filled))
		}
	}
	p.edit().UpdateStatus = &st
}

// completed says that an update has ended, and with how many failures.
func completed(what string, failures, of int) string {
	if failures == 0 {
		return what + " completed"
	}
	return fmt.Sprintf("%s completed with failures in %d of %d tasks", what, failures, of)
}
