package service

import (
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service/scheduler"
)

// input is all that a plan depends on.
type input struct {
	serviceID string
	service   *api.Service // nil once it was removed
	tasks     []*api.Task
	revisions map[string]*api.Revision // of the service, by ID
	node      func(id string) *api.Node
	nodes     func(yield func(*api.Node) bool) // all of them: for what can not do without a look at each
	// runningSince tells when a task was first seen running, also of one that
	// has ended since; zero if it never was.
	runningSince func(taskID string) time.Time
	// ports gives what the service would publish by another spec; see PlanPorts.
	ports func(*swarm.EndpointSpec) ([]swarm.PortConfig, error)
	// refers tells whether all that a spec refers to is still there.
	refers func(*swarm.ServiceSpec) error
	// takes tells why no node would take a task of a revision, if another were gone;
	// "" if one would. Nil takes all.
	takes   func(r *api.Revision, gone *api.Task) string
	history int // how many tasks to keep in a slot, ended ones included; negative: all
	now     time.Time
	newID   func() string
}

// planner is a plan in the making: the slots as they will be.
type planner struct {
	*input
	slots   []*slot
	bySlot  map[slotKey]*slot
	changed *api.Service // the service, if the plan changes it
	dropped []*api.Revision
	closed  bool      // slots that should be open wait for their turn
	wake    time.Time // when to plan again even if nothing changes; zero: never
	parsed  map[string][]scheduler.Constraint
	silent  []*api.Node // see engineless; nil: not looked for yet
}

// slotKey names a slot: by its number, or by its node in a global service.
type slotKey struct {
	number int
	home   string
}

// slot is one place in a service, with all tasks that ever filled it and are
// still remembered.
type slot struct {
	slotKey
	tasks []*task
}

// task is one task as the plan leaves it.
type task struct {
	*api.Task
	before *api.Task // nil if the plan creates it
	gone   bool      // the plan deletes it
	lasts  bool      // it has to leave its node, and runs until another of its slot does
	rests  bool      // it ended so lately that others wait for the delay to pass
}

// edit gives the task for writing; what is stored stays as it is.
func (t *task) edit() *api.Task {
	if t.Task == t.before {
		t.Task = api.Clone(t.before)
	}
	return t.Task
}

func (t *task) wanted() bool  { return !t.gone && !t.lasts && scheduler.Wanted(t.Task) }
func (t *task) over() bool    { return api.Terminal(t.Status.State) }
func (t *task) running() bool { return t.Status.State == swarm.TaskStateRunning }

// serves tells whether something would be missed if the task stopped now.
func (t *task) serves() bool {
	return t.running() && !t.Unhealthy && t.DesiredState == swarm.TaskStateRunning
}

// plan decides what has to change about one service. It is idempotent: what it
// asks for, once done, is not asked for again.
func plan(in *input) *planner {
	p := &planner{input: in, bySlot: map[slotKey]*slot{}, parsed: map[string][]scheduler.Constraint{}}
	for _, t := range in.tasks {
		p.slot(slotKey{t.Slot, t.Home}).add(&task{Task: t, before: t})
	}
	if in.service == nil {
		p.remove(p.slots)
		p.orphan()
		p.reap()
		p.dropRevisions()
		return p
	}
	p.adopt()
	p.evict()
	switch mode := p.service.Spec.Mode; {
	case p.service.Settings().Stopped:
		p.halt()
	case api.Job(mode):
		p.job()
	default:
		p.settle()
		if api.Global(mode) {
			p.cover()
		} else {
			p.scale()
		}
		p.update()
		p.restart()
	}
	p.promote()
	p.orphan()
	p.reap()
	p.dropRevisions()
	return p
}

func (p *planner) slot(k slotKey) *slot {
	s, ok := p.bySlot[k]
	if !ok {
		s = &slot{slotKey: k}
		p.bySlot[k] = s
		p.slots = append(p.slots, s)
	}
	return s
}

func (s *slot) add(t *task) { s.tasks = append(s.tasks, t) }

// wanted gives the tasks of a slot that are meant to run: normally one, and
// two while a start-first update replaces one by another. One that only lasts
// until another has taken over is not among them.
func (s *slot) wanted() (tasks []*task) {
	for _, t := range s.tasks {
		if t.wanted() {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// split tells the wanted task of the target revision from one of another.
// After settle there is at most one of each.
func (s *slot) split(target string) (current, outdated *task) {
	for _, t := range s.tasks {
		switch {
		case !t.wanted():
		case t.Revision == target:
			current = t
		default:
			outdated = t
		}
	}
	return current, outdated
}

// filled gives the slots that have a task that is wanted.
func (p *planner) filled() (slots []*slot) {
	for _, s := range p.slots {
		for _, t := range s.tasks {
			if t.wanted() {
				slots = append(slots, s)
				break
			}
		}
	}
	return slots
}

// create adds a task to a slot. It is meant to be only prepared at first;
// promote lets it run, in this plan already if nothing stands in the way.
func (p *planner) create(s *slot, revision string) *task {
	t := &task{Task: &api.Task{
		Meta:         api.Meta{ID: p.newID()},
		ServiceID:    p.serviceID,
		Revision:     revision,
		Slot:         s.number,
		Home:         s.home,
		Iteration:    p.iteration(),
		DesiredState: swarm.TaskStateReady,
		Status:       swarm.TaskStatus{Timestamp: p.now, State: swarm.TaskStatePending, Message: "pending task scheduling"},
	}}
	s.add(t)
	return t
}

// stop lets a task end; its record stays as the history of the slot.
func (t *task) stop() { t.edit().DesiredState = swarm.TaskStateShutdown }

// wakeAt asks for another plan at a time that has not come.
func (p *planner) wakeAt(at time.Time) {
	if p.wake.IsZero() || at.Before(p.wake) {
		p.wake = at
	}
}

// edit gives the service for writing.
func (p *planner) edit() *api.Service {
	if p.changed == nil {
		p.changed = api.Clone(p.service)
		p.service = p.changed
	}
	return p.changed
}

// revision gives the revision of a task. Tasks keep theirs alive, so it is
// there unless the store was tampered with; then the defaults apply.
func (p *planner) revision(t *task) *api.Revision {
	if r, ok := p.revisions[t.Revision]; ok {
		return r
	}
	return &api.Revision{}
}

// away tells whether a task's node has left the cluster, or is thought dead.
func (p *planner) away(t *task) bool {
	if t.NodeID == "" {
		return false
	}
	n := p.node(t.NodeID)
	return n == nil || n.Status.State == swarm.NodeStateDown
}

// ended tells whether a task certainly runs no more, nor ever will.
func (p *planner) ended(t *task) bool {
	return t.over() || !t.wanted() && t.NodeID == "" || t.NodeID != "" && p.node(t.NodeID) == nil
}
