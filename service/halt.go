package service

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// To stop and to start a service goes by its update settings: as many tasks at a
// time, and with the delay between. Order has nothing to order, and failures end
// neither: a task that crashes is restarted like any other.

// What the status of a service says meanwhile. It is an update for clients that
// wait for one: completed, nothing more is going to happen.
const (
	stoppingMessage = "service stopping"
	stoppedMessage  = "service stopped"
	startingMessage = "service starting"
	startedMessage  = "service started"
)

// Starting is the status of a service that was stopped and is to run again. Who
// makes that change sets it, for a client that waits must not see the last one.
func Starting(now time.Time) *swarm.UpdateStatus {
	return &swarm.UpdateStatus{State: swarm.UpdateStateUpdating, StartedAt: &now, Message: startingMessage}
}

// starting tells whether slots are opened in turn now.
func (p *planner) starting() bool {
	st := p.service.UpdateStatus
	return st != nil && st.State == swarm.UpdateStateUpdating && st.StartedAt != nil && st.Message == startingMessage
}

// opening is how many slots may be opened now.
func (p *planner) opening() int {
	if !p.starting() {
		return math.MaxInt
	}
	return p.room(p.filled(), p.config())
}

// halt stops the tasks of a service that was told to stop. Its slots keep their
// history; what a job has completed stays completed.
func (p *planner) halt() {
	if !p.stopped(stoppingMessage) && !p.stopped(stoppedMessage) {
		p.status(swarm.UpdateStateUpdating, stoppingMessage)
	}
	c := p.config()
	room := parallelism(c)
	if api.Job(p.service.Spec.Mode) {
		room = math.MaxInt // it has no such settings
	}
	var rest []*slot
	winding := false
	for _, s := range p.slots {
		if serving(s) == 0 {
			p.close(s) // nobody misses it
		}
		switch {
		case slices.ContainsFunc(s.tasks, p.winding):
			room--
			winding = true
		case serving(s) == 1:
			rest = append(rest, s)
		case p.justEnded(s, c.Delay):
			room--
		}
	}
	slices.SortFunc(rest, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(b.home, a.home))
	})
	for _, s := range rest[:max(0, min(room, len(rest)))] {
		p.close(s)
	}
	if winding || len(rest) > 0 || p.stopped(stoppedMessage) {
		return
	}
	now, st := p.now, *p.service.UpdateStatus
	st.State, st.Message, st.CompletedAt = swarm.UpdateStateCompleted, stoppedMessage, &now
	p.edit().UpdateStatus = &st
}

// stopped tells whether the status says so of the stop.
func (p *planner) stopped(message string) bool {
	st := p.service.UpdateStatus
	return st != nil && st.Message == message
}

// close stops the tasks of a slot.
func (p *planner) close(s *slot) {
	for _, t := range s.wanted() {
		if t.Status.State != swarm.TaskStateComplete || !p.current(t) {
			t.stop()
		}
	}
}

// justEnded tells whether a slot's task was stopped so lately that the delay
// holds the next one back.
func (p *planner) justEnded(s *slot, delay time.Duration) bool {
	since := p.service.UpdateStatus.StartedAt
	for _, t := range s.tasks {
		if t.wanted() || !t.over() || since != nil && t.UpdatedAt.Before(*since) {
			continue
		}
		if free := t.UpdatedAt.Add(delay); free.After(p.now) {
			p.wakeAt(free)
			t.rests = true
			return true
		}
	}
	return false
}
