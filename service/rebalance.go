package service

import (
	"cmp"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// Move is a task that would be better off on another node.
type Move struct {
	Task     *api.Task
	From, To string // node IDs
}

// Balance finds what to move so that the tasks of each of the services, and all
// together, are spread as they would be if they were placed now. It moves no task
// for a draw, and none twice, so that balancing again finds nothing. Only a task
// that serves, of a service that nothing else happens to, is moved.
func Balance(v *store.View, services []*api.Service) (moves []Move) {
	s := nodesOf(v)
	for _, of := range services {
		if !Movable(of) {
			continue
		}
		r, ok := v.Revisions.Get(of.Revision)
		if !ok {
			continue
		}
		q, err := request(v, r)
		if err != nil {
			continue // none of its tasks can be placed at all
		}
		tasks := movableTasks(v, of)
		// What shares its node with most others goes first.
		slices.SortFunc(tasks, func(a, b *api.Task) int {
			return cmp.Or(cmp.Compare(s.Tasks(b.NodeID), s.Tasks(a.NodeID)), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		for _, t := range tasks {
			if to, better := s.Better(q, t, r); better {
				moves = append(moves, Move{Task: t, From: t.NodeID, To: to})
			}
		}
	}
	return moves
}

// Movable tells whether tasks of a service may be moved now: replicas, and not in
// the middle of something else.
func Movable(s *api.Service) bool {
	if api.Global(s.Spec.Mode) || api.Job(s.Spec.Mode) || s.Settings().Stopped {
		return false
	}
	st := s.UpdateStatus
	return st == nil || st.State == swarm.UpdateStateCompleted || st.State == swarm.UpdateStateRollbackCompleted
}

func movableTasks(v *store.View, s *api.Service) (out []*api.Task) {
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if (&task{Task: t}).serves() && t.Revision == s.Revision && !t.Leave {
			out = append(out, t)
		}
	}
	return out
}

// nodesOf reads the nodes with the tasks on them.
func nodesOf(v *store.View) *scheduler.State {
	s := scheduler.New()
	for n := range v.Nodes.All() {
		s.SetNode(n)
	}
	for t := range v.Tasks.All() {
		r, _ := v.Revisions.Get(t.Revision)
		s.SetTask(t, r)
	}
	return s
}

// moving decides which of the tasks that are to move may go now: as many at a
// time as an update may replace, with its delay between, and none while there is
// one. They leave start-first, like those of a drained node.
func (p *planner) moving() map[*task]bool {
	leaving := map[*task]bool{}
	if p.updating() {
		return leaving
	}
	c := p.config()
	room := len(p.slots)
	if c.Parallelism > 0 {
		room = int(min(c.Parallelism, uint64(room)))
	}
	var want []*task
	for _, s := range p.slots {
		all := s.wanted()
		i := slices.IndexFunc(all, func(t *task) bool { return t.Leave && t.serves() })
		switch {
		case i >= 0 && len(all) > 1:
			leaving[all[i]] = true
			room--
		case i >= 0:
			want = append(want, all[i])
		case p.justMoved(s, c):
			room--
		}
	}
	for _, t := range want[:max(0, min(room, len(want)))] {
		leaving[t] = true
	}
	return leaving
}

// justMoved tells whether a slot's task has moved so lately that the delay
// between updates holds the next one back.
func (p *planner) justMoved(s *slot, c swarm.UpdateConfig) bool {
	moved := slices.ContainsFunc(s.tasks, func(t *task) bool { return t.Leave && !t.wanted() })
	if !moved || c.Delay == 0 {
		return false
	}
	for _, t := range s.wanted() {
		if !t.running() {
			continue
		}
		if free := p.runningSince(t.ID).Add(c.Delay); free.After(p.now) {
			p.wakeAt(free)
			return true
		}
	}
	return false
}

// stay calls a move off: the task goes on where it is.
func (p *planner) stay(s *slot, t *task) {
	t.lasts = false
	for _, next := range s.wanted() {
		if next != t {
			next.stop()
		}
	}
	t.edit().Leave = false
}
