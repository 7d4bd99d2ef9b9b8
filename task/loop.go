package task

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
)

// resyncEvery bounds how long a lost event can go unnoticed. None is lost while
// the connection stands: this is a safety net, and should cost next to nothing.
const resyncEvery = time.Minute

// retryMin and retryMax bound the wait before the engine is asked again for
// something that it failed to do.
const (
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// drainPatience is how long a task that is to stop waits for other nodes to give
// it no more connections, from when this node first hears of it. The leader says
// when that is over, normally within milliseconds; a daemon that restarts needs
// seconds. Beyond, a node that does not answer must not hold up everything else:
// requests that it sends here are refused, which its clients can repeat.
const drainPatience = 10 * time.Second

// entry is one task, or one container whose task nobody knows.
type entry struct {
	id         string
	assignment *api.Assignment // nil when the managers do not list it
	status     status
	told       bool // status was reported since the daemon started

	hold time.Time // until when its stop waits for other nodes at most; zero: it never had to

	container *Container
	seen      bool // container is the engine's word since it was last connected
	ran       bool // it was seen running since the daemon started
	pulled    bool

	busy   action
	cancel context.CancelFunc // of busy
	again  bool               // something happened while busy
	queued action

	tries   int
	retryAt time.Time
}

// saw takes in what is known of the container; sure says that it is all there is
// to know.
func (e *entry) saw(c *Container, sure bool) {
	e.container, e.seen = c, sure
	e.ran = e.ran || c != nil && c.Phase == Running
}

// loop is the one goroutine that knows the tasks. All it does is decide: what
// takes time is done by others, who put the result in the inbox.
type loop struct {
	*Worker
	ctx     context.Context
	tasks   map[string]*entry
	dirty   map[*entry]struct{} // to be looked at in this round
	retries map[*entry]struct{}
	waits   map[*entry]time.Time // when to look at what rests until then
	alone   time.Time            // since when no manager speaks to this node; zero while one does
	lanes   map[action]*lane
	actions sync.WaitGroup

	state     *api.NodeState
	confirmed bool // state came from the managers, not from the disk

	up       bool // the engine is connected
	outage   outage
	listed   bool // tasks includes every container there was since it is up
	listing  bool
	relist   bool
	fresh    bool // the next list is the first since the engine is up
	resyncAt time.Time

	networks networks
}

func newLoop(ctx context.Context, w *Worker) *loop {
	return &loop{
		Worker: w, ctx: ctx,
		tasks: map[string]*entry{}, dirty: map[*entry]struct{}{}, retries: map[*entry]struct{}{},
		waits:    map[*entry]time.Time{},
		lanes:    lanes(w.cfg.Starts),
		resyncAt: time.Now().Add(resyncEvery),
	}
}

// run hears and settles until ctx ends, then waits for what is under way.
func (l *loop) run(ctx context.Context) {
	defer l.actions.Wait()
	timer := time.NewTimer(resyncEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.inbox.kick:
			l.hear(l.inbox.take())
		case <-timer.C:
		}
		l.wake(time.Now())
		l.settle()
		timer.Reset(time.Until(l.nextWake()))
	}
}

func (l *loop) hear(m mail) {
	if m.online != nil {
		l.online(*m.online)
	}
	if m.state != nil {
		l.want(m.state)
	}
	if m.link != nil {
		l.connected(*m.link)
	}
	for _, r := range m.results {
		l.finished(r)
	}
	for _, ls := range m.lists {
		l.listedAll(ls)
	}
	for _, r := range m.synced {
		l.networks.synced(r, time.Now())
		if r.err != nil && l.ctx.Err() == nil {
			l.log.Warn("the engine has not the networks that it should; it is tried again", zap.String("error", brief(r.err.Error())))
		}
	}
	for id := range m.hints {
		if e := l.tasks[id]; e != nil {
			l.doubt(e)
		}
	}
}

// online takes in that a manager speaks to this node, or none any more.
func (l *loop) online(yes bool) {
	if yes == l.alone.IsZero() {
		return
	}
	l.alone = time.Time{}
	if !yes {
		l.alone = time.Now()
	}
	l.touchAll()
}

// restore takes up what the last run left on disk.
func (l *loop) restore(r *record) {
	if r == nil {
		return
	}
	l.state = r.state()
	l.ledger.setState(l.state, false)
	for id, a := range l.state.Tasks {
		e := l.entry(id)
		e.assignment, e.status = a, statusOf(a.Task)
		if st, ok := r.Status[id]; ok {
			e.status = later(e.status, st)
		}
		l.ledger.know(id, e.status)
	}
}

// want takes a new state from the managers.
func (l *loop) want(s *api.NodeState) {
	old := l.state
	l.state = s
	if !l.confirmed || old == nil || old.ClusterID != s.ClusterID {
		l.confirmed = true
		l.touchAll()
		if old == nil || old.ClusterID != s.ClusterID {
			l.listed, l.fresh = false, true // another cluster's containers are ours now
			l.list()
		}
	}
	changed := old == nil || len(old.Tasks) != len(s.Tasks)
	for id, a := range s.Tasks {
		e := l.entry(id)
		if e.assignment == a {
			continue
		}
		if e.assignment == nil || e.assignment.Task.DesiredState != a.Task.DesiredState {
			changed = true
		}
		e.assignment = a
		if a.Draining && e.hold.IsZero() {
			e.hold = time.Now().Add(drainPatience)
		}
		e.status = later(e.status, statusOf(a.Task))
		if !e.told && isNews(e.status, a.Task.Status) {
			l.tell(e)
		} else {
			l.ledger.know(id, e.status)
		}
		l.touch(e)
	}
	for id, e := range l.tasks {
		if e.assignment != nil && s.Tasks[id] == nil {
			e.assignment = nil
			changed = true
			l.ledger.forget(id)
			l.touch(e)
		}
	}
	if old == nil || !maps.Equal(old.Networks, s.Networks) {
		l.networks.due, changed = true, true
	}
	l.ledger.setState(s, changed)
}

// isNews tells whether the managers should hear of a status, who know another.
func isNews(st status, known swarm.TaskStatus) bool {
	a, b := st.ContainerStatus, known.ContainerStatus
	return api.Before(known.State, st.State) ||
		known.State == st.State && !api.Terminal(st.State) && a != nil && b != nil && *a != *b
}

// later gives the status that is further in a task's life. What has ended has
// ended, whatever came to be known of it afterwards.
func later(a, b status) status {
	if !api.Terminal(a.State) && api.Before(a.State, b.State) || a.State == "" {
		return b
	}
	return a
}

func (l *loop) entry(id string) *entry {
	e := l.tasks[id]
	if e == nil {
		e = &entry{id: id}
		l.tasks[id] = e
	}
	return e
}

func (l *loop) touch(e *entry) { l.dirty[e] = struct{}{} }

func (l *loop) touchAll() {
	for _, e := range l.tasks {
		l.touch(e)
	}
}

// settle looks at every task that something happened to, and has done what can
// be done about it now.
func (l *loop) settle() {
	now := time.Now()
	es := make([]*entry, 0, len(l.dirty))
	for e := range l.dirty {
		es = append(es, e)
	}
	clear(l.dirty)
	slices.SortFunc(es, bySlot)
	for _, e := range es {
		l.consider(e, now, false) // those that wait already go first
	}
	for _, ln := range l.lanes {
		for e := ln.pop(); e != nil; e = ln.pop() {
			l.consider(e, now, true)
		}
	}
	l.syncNetworks()
}

// bySlot orders tasks the way users count them.
func bySlot(a, b *entry) int {
	if a.assignment != nil && b.assignment != nil {
		x, y := a.assignment.Task, b.assignment.Task
		if c := cmp.Or(cmp.Compare(x.ServiceID, y.ServiceID), cmp.Compare(x.Slot, y.Slot)); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.id, b.id)
}

// consider takes a task as many steps further as need no waiting, and begins
// what does when it is the task's turn.
func (l *loop) consider(e *entry, now time.Time, turn bool) {
	if e.busy != nothing {
		if interrupts(e.desired(), e.busy) {
			e.cancel()
		}
		return
	}
	do := inspect
	delete(l.waits, e)
	if !e.seen && e.container == nil && l.listed {
		e.seen = true // it would be in the list
	}
	if e.seen {
		do = l.decide(e, now)
	}
	switch {
	case do == nothing, !l.up, !l.listed:
		e.queued = nothing
	case do == forget:
		l.forget(e)
	case do != inspect && !l.confirmed && !e.revives(do):
		// Without managers what ran is kept running, and nothing else is begun:
		// what the disk remembers may be long out of date.
		e.queued = nothing
	case now.Before(e.retryAt):
		l.retries[e] = struct{}{}
	case !turn, l.lanes[do].free == 0:
		l.lanes[do].wait(e, do)
	default:
		l.begin(e, do, now)
	}
}

// decide applies steps until one needs something done.
func (l *loop) decide(e *entry, now time.Time) action {
	for {
		st := next(l.situation(e), now)
		if st.status == nil {
			if !st.at.IsZero() {
				l.waits[e] = st.at
			}
			return st.do
		}
		l.become(e, *st.status)
	}
}

func (l *loop) become(e *entry, st status) {
	e.status = st
	l.tell(e)
	log := l.log.Debug
	if st.Err != "" {
		log = l.log.Info
	}
	log("task", zap.String("task", e.id), zap.String("state", string(st.State)), zap.String("error", st.Err))
}

func (l *loop) tell(e *entry) {
	e.told = true
	l.ledger.tell(e.id, e.status)
}

func (l *loop) forget(e *entry) {
	e.queued = nothing
	delete(l.tasks, e.id)
	delete(l.retries, e)
	delete(l.waits, e)
	l.networks.due = true // its may have been the last container on one
}

// doubt has a task's container looked at again.
func (l *loop) doubt(e *entry) {
	if e.busy != nothing {
		e.again = true
		return
	}
	e.seen = false
	l.touch(e)
}

func (e *entry) desired() swarm.TaskState {
	if e.assignment == nil {
		return gone
	}
	return e.assignment.Task.DesiredState
}

// revives tells whether an action starts again what ran already.
func (e *entry) revives(do action) bool {
	return do == start && e.status.State == swarm.TaskStateRunning
}

func (l *loop) situation(e *entry) situation {
	s := situation{desired: e.desired(), status: e.status, container: e.container, pulled: e.pulled, alone: l.alone}
	if c := e.container; c != nil && c.Phase == Exited {
		// Of one that this run has seen running, the end is not the host's.
		host := !e.ran && !c.FinishedAt.IsZero() && c.FinishedAt.Before(l.cfg.Booted)
		s.cut = host || l.outage.covers(c.FinishedAt)
	}
	if e.assignment != nil {
		s.attempts = e.assignment.Task.Attempts
		if e.assignment.Draining {
			s.hold = e.hold
		}
		if r := e.assignment.Revision; r != nil {
			s.policy = r.Spec.TaskTemplate.RestartPolicy
		}
	}
	return s
}

// retryLater has a task looked at again after a while that grows with each failure.
func (l *loop) retryLater(e *entry) {
	e.retryAt = time.Now().Add(min(retryMin<<min(e.tries, 10), retryMax))
	e.tries++
	l.retries[e] = struct{}{}
}

// wake looks at what was put off until now.
func (l *loop) wake(now time.Time) {
	for e := range l.retries {
		if !now.Before(e.retryAt) {
			delete(l.retries, e)
			l.touch(e)
		}
	}
	for e, at := range l.waits {
		if !now.Before(at) {
			delete(l.waits, e)
			l.touch(e)
		}
	}
	if !now.Before(l.resyncAt) {
		l.resyncAt = now.Add(resyncEvery) // also when the engine is away, and nothing is listed
		l.list()
		l.networks.due = true
	}
	l.networks.wake(now)
}

func (l *loop) nextWake() time.Time {
	at := l.resyncAt
	if r := l.networks.retryAt; !r.IsZero() && r.Before(at) {
		at = r
	}
	for e := range l.retries {
		if e.retryAt.Before(at) {
			at = e.retryAt
		}
	}
	for _, due := range l.waits {
		if due.Before(at) {
			at = due
		}
	}
	return at
}
