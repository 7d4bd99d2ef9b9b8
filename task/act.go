package task

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/api"
)

// result is how an action on a task ended.
type result struct {
	id        string
	do        action
	err       error
	cut       bool // it was interrupted: err says nothing
	container *Container
	seen      bool // container is true
}

// listing is how listing the cluster's containers ended.
type listing struct {
	clusterID  string
	containers []Container
	err        error
}

// syncing is how it ended to give the engine the networks that it should have.
type syncing struct {
	inUse bool
	err   error
}

// begin has an action done. The caller has seen that the lane has room.
func (l *loop) begin(e *entry, do action, now time.Time) {
	if st := l.situation(e).begun(do, now); st.status != nil {
		l.become(e, *st.status)
	}
	ctx, cancel := context.WithCancel(l.ctx)
	e.busy, e.queued, e.cancel = do, nothing, cancel
	l.lanes[do].free--
	r := result{id: e.id, do: do, container: e.container, seen: e.seen}
	state, a := l.state, e.assignment
	l.actions.Go(func() {
		defer cancel()
		l.act(ctx, &r, state, a)
		r.cut = ctx.Err() != nil
		l.inbox.put(func(m *mail) { m.results = append(m.results, r) })
	})
}

// act does one action and finds out what it led to.
func (w *Worker) act(ctx context.Context, r *result, s *api.NodeState, a *api.Assignment) {
	x := w.cfg.Executor
	switch r.do {
	case pull:
		r.err = x.Pull(ctx, a)
		return
	case create:
		var id string
		if id, r.err = x.Create(ctx, s, a); r.err == nil {
			r.container = &Container{ID: id, TaskID: r.id, Phase: Created}
		}
		return
	case start:
		r.err = x.Start(ctx, r.container.ID)
	case stop:
		settle(ctx, a, r.container)
		r.err = x.Stop(ctx, r.container.ID)
	case remove:
		r.err = x.Remove(ctx, r.container.ID)
	}
	c, err := x.Inspect(ctx, r.container.ID)
	switch {
	case err == nil:
		r.container, r.seen = c, true
	case errdefs.IsNotFound(err):
		r.container, r.seen, r.err = nil, true, nil // next says what that means
	default:
		r.seen = false
		if r.err == nil {
			r.err = err
		}
	}
}

// settleTime is the rest between the mesh letting go of a task and its stop
// signal. A connection that was made a moment before waits in the task's socket
// to be accepted, and a server that closes its socket at the signal would reset
// it. The rest is for what is still on its way there; then the kernel tells
// whether any waits. A server that accepts none for settleMost is stuck.
const (
	settleTime = 100 * time.Millisecond
	settleMost = 3 * time.Second
	settlePoll = 20 * time.Millisecond
)

// settle lets a task that others may have just connected to accept them.
func settle(ctx context.Context, a *api.Assignment, c *Container) {
	if a == nil || len(a.Task.Networks) == 0 {
		return
	}
	rest(ctx, settleTime)
	for deadline := time.Now().Add(settleMost); awaited(c.PID) && time.Now().Before(deadline) && ctx.Err() == nil; {
		rest(ctx, settlePoll)
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// finished takes in how an action ended.
func (l *loop) finished(r result) {
	e := l.tasks[r.id]
	l.lanes[r.do].free++
	e.busy, e.cancel = nothing, nil
	l.touch(e)
	e.saw(r.container, r.seen && !e.again && l.listed)
	e.again = false
	if r.cut {
		return
	}
	if r.err == nil {
		e.tries, e.retryAt = 0, time.Time{}
		e.pulled = e.pulled || r.do == pull
	}
	switch {
	case transient(r.err):
		e.seen = false
		// What came of it can only be found in the list: the container's ID was
		// never learned.
		if r.do == create {
			l.listed = false
			l.list()
		}
		l.retryLater(e)
	case r.do == stop && r.err != nil, r.do == remove && r.err != nil, r.do == inspect && r.err != nil:
		l.log.Warn("the engine did not "+r.do.String()+" a container",
			zap.String("task", e.id), zap.Int("tries", e.tries+1), zap.String("error", brief(r.err.Error())))
		l.retryLater(e)
	default:
		if e.assignment == nil {
			return
		}
		if st := l.situation(e).done(r.do, r.err, time.Now()); st.status != nil {
			l.become(e, *st.status)
		}
	}
}

// transient tells whether an error says nothing about the task.
func transient(err error) bool {
	return errdefs.IsUnavailable(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// connected takes in that the engine came or went. When it comes, nothing that
// was known about containers counts any more.
func (l *loop) connected(up bool) {
	if l.up && !up {
		l.outage.began(time.Now())
	}
	l.up, l.listed = up, false
	if !up {
		return
	}
	l.outage.ended(time.Now())
	l.fresh, l.networks.due = true, true
	for _, e := range l.tasks {
		e.retryAt, e.tries = time.Time{}, 0
		l.doubt(e)
	}
	l.list()
}

// list has all containers listed, once more if that is under way already: what
// is under way may have missed what made the caller ask.
func (l *loop) list() {
	if l.listing {
		l.relist = true
		return
	}
	if !l.up || l.state == nil {
		return
	}
	l.listing, l.relist = true, false
	clusterID := l.state.ClusterID
	l.actions.Go(func() {
		cs, err := l.cfg.Executor.List(l.ctx, clusterID)
		l.inbox.put(func(m *mail) {
			m.lists = append(m.lists, listing{clusterID: clusterID, containers: cs, err: err})
		})
	})
}

// listedAll compares what the engine has with what is known of it.
func (l *loop) listedAll(ls listing) {
	l.listing = false
	switch {
	case l.relist || ls.clusterID != l.state.ClusterID:
		l.list()
		return
	case ls.err != nil:
		l.log.Warn("the engine did not list its containers", zap.Error(ls.err))
		l.resyncAt = time.Now().Add(retryMin)
		return
	}
	found := make(map[string]bool, len(ls.containers))
	for i := range ls.containers {
		c := &ls.containers[i]
		found[c.TaskID] = true
		l.match(l.entry(c.TaskID), c)
	}
	for id, e := range l.tasks {
		if !found[id] && (e.container != nil || !l.listed) {
			l.doubt(e) // inspecting tells a container that went from one that came meanwhile
		}
	}
	l.listed, l.fresh = true, false
	l.touchAll()
}

// match compares a listed container with what is known of its task.
func (l *loop) match(e *entry, c *Container) {
	switch {
	case e.busy != nothing:
		e.again = true
	case api.Terminal(e.status.State) && c.Phase != Running:
		// Its story is told; a node may keep hundreds of these for their logs.
		e.saw(c, true)
	case l.fresh || e.container == nil || e.container.ID != c.ID || e.container.Phase != c.Phase || e.container.Health != c.Health:
		e.saw(c, false)
	}
}
