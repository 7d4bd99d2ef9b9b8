package session

import (
	"maps"
	"slices"
	"sync"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// A task that is to stop gets its stop signal when no node gives it new
// connections any more. Nodes acknowledge what they have applied; until all have,
// the task's own node sees it as draining. All of this is the leader's memory: a
// leader that begins takes for draining whatever may be, and asks anew. How long
// a task waits at most is its own node's decision, so that no leader's trouble
// can hold a stop up; see task.

// tables is what the leader holds for being in the tables of the nodes. It is
// never changed, only replaced: sessions read it meanwhile.
type tables struct {
	endpoints endpoints
	// generation counts the changes that took tasks out of the endpoints.
	generation uint64
	// held has the tasks that some node may still give connections to, and the
	// first generation without them.
	held map[string]uint64
}

// refresh takes in what has changed in the store.
func (t tables) refresh(v *store.View, dirty []store.Dirty, all bool) tables {
	next := tables{generation: t.generation, held: t.held}
	var left []string
	next.endpoints, left = t.endpoints.refresh(v, dirty, all)
	if all {
		// Of a task that was on its way out before this leader began nobody
		// knows who has heard of it.
		for task := range v.Tasks.All() {
			if stopping(task) && task.Status.State == swarm.TaskStateRunning && len(task.Networks) > 0 {
				left = append(left, task.ID)
			}
		}
	}
	if len(left)+len(t.held) == 0 {
		return next
	}
	next.held = maps.Clone(t.held)
	if next.held == nil {
		next.held = map[string]uint64{}
	}
	if len(left) > 0 {
		next.generation++
	}
	for _, id := range left {
		next.held[id] = next.generation
	}
	for id := range next.held {
		if task, ok := v.Tasks.Get(id); !ok || api.Terminal(task.Status.State) {
			delete(next.held, id) // there is nothing to stop
		}
	}
	return next
}

// release lets go of the tasks that no node knows any more, where each has
// applied this generation.
func (t tables) release(applied uint64) (next tables, released []string) {
	for id, g := range t.held {
		if g <= applied {
			released = append(released, id)
		}
	}
	if len(released) == 0 {
		return t, nil
	}
	next = t
	next.held = maps.Clone(t.held)
	for _, id := range released {
		delete(next.held, id)
	}
	return next, released
}

// draining tells whether a task that is to stop may still be given connections:
// by nodes that have not applied that, or because it was not even taken out of
// the endpoints yet, since the store is ahead of them.
func (t tables) draining(task *api.Task) bool {
	if !stopping(task) || api.Terminal(task.Status.State) {
		return false
	}
	_, held := t.held[task.ID]
	return held || t.endpoints[task.ServiceID].Serves(task.ID)
}

// stopping tells whether the managers want a task to end.
func stopping(t *api.Task) bool { return !api.Before(t.DesiredState, swarm.TaskStateShutdown) }

// settle releases what nobody is waited for any more, and has the nodes of those
// tasks look again.
func (s *Server) settle(v *store.View) {
	if len(s.now().held) == 0 {
		return
	}
	waited := s.waited(v) // asks gossip, which may be telling this server something
	s.mu.Lock()
	defer s.mu.Unlock()
	applied := s.tables.generation
	for _, id := range waited {
		c := s.sessions[id]
		if c == nil {
			return
		}
		applied = min(applied, c.progress.applied())
	}
	next, released := s.tables.release(applied)
	s.tables = next
	for _, id := range released {
		if t, ok := v.Tasks.Get(id); ok && s.sessions[t.NodeID] != nil {
			s.sessions[t.NodeID].woken.Ring()
		}
	}
}

// waited lists the nodes that have to acknowledge: those with a session, and
// those that are READY without one, whose kernels go on as they were told last.
// One that is DOWN, or that gossip has found gone, holds nobody up.
func (s *Server) waited(v *store.View) []string {
	ids := s.Connected()
	for n := range v.Nodes.All() {
		if n.Status.State == swarm.NodeStateReady && !slices.Contains(ids, n.ID) {
			ids = append(ids, n.ID)
		}
	}
	return slices.DeleteFunc(ids, s.cfg.Gone)
}

func (s *Server) now() tables {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables
}

// progress is how far a node has come with what was sent to it.
type progress struct {
	mu    sync.Mutex
	marks []mark // commits that it has not acknowledged
	done  uint64 // the generation that it has applied; 0 for none
}

// mark says which generation a commit brings a node to.
type mark struct{ number, generation uint64 }

// maxMarks bounds the commits that are remembered of a node that does not
// acknowledge, as while its kernel refuses something: it is sent more all the
// time.
const maxMarks = 64

// sends notes that a commit is about to be sent. Of more than there is room for,
// the newest takes the place of the one before it: acknowledging that one then
// says no more than acknowledging an older one, which is true if less.
func (p *progress) sends(number, generation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.marks) == maxMarks {
		p.marks = p.marks[:maxMarks-1]
	}
	p.marks = append(p.marks, mark{number, generation})
}

// skips notes that the node has nothing to do for a generation: it has applied
// it with what was sent before.
func (p *progress) skips(generation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.marks); n > 0 {
		p.marks[n-1].generation = generation
	} else {
		p.done = generation
	}
}

// acknowledges notes that the node has applied a commit, and those before it.
func (p *progress) acknowledges(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.marks) > 0 && p.marks[0].number <= number {
		p.done = p.marks[0].generation
		p.marks = p.marks[1:]
	}
}

func (p *progress) applied() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}
