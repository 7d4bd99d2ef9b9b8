package service

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// term is one term of leadership: what is kept in memory for as long as it
// lasts. One goroutine uses it.
type term struct {
	store *store.Store
	log   *zap.Logger

	dirty   map[string]bool // services to plan
	wakes   wakes
	nodes   *scheduler.State
	leases  *leases
	global  map[string]bool      // services that follow the nodes
	running map[string]time.Time // when a task was first seen running
	guests  bool                 // there may be some to give an address to, or to forget

	// waiting has the services with tasks that have no node or no address.
	// They are tried again when something was freed, but not more often than
	// every retryWaiting: each try may have to ask all nodes.
	waiting map[string]bool
	freed   bool
	tried   time.Time
}

const retryWaiting = time.Second

// waitingID stands for all services that wait, among the wake times.
const waitingID = ""

func newTerm(s *store.Store, log *zap.Logger) *term {
	return &term{store: s, log: log}
}

// rebuild learns everything from the store.
func (t *term) rebuild(v *store.View) {
	t.dirty, t.waiting, t.global, t.running = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]time.Time{}
	t.wakes, t.freed = wakes{}, false
	t.nodes, t.leases = scheduler.New(), newLeases(t.log)
	for n := range v.Networks.All() {
		t.leases.setNetwork(n)
	}
	for n := range v.Nodes.All() {
		t.nodes.SetNode(n)
	}
	for s := range v.Services.All() {
		t.dirty[s.ID] = true
		t.follow(s)
		t.leases.set(s.ID, vipLeases(s))
	}
	for r := range v.Revisions.All() {
		t.dirty[r.ServiceID] = true // the service may be gone, with this left to remove
	}
	for task := range v.Tasks.All() {
		t.dirty[task.ServiceID] = true
		t.learn(v, task)
	}
	for g := range v.Guests.All() {
		t.leases.set(g.ID, guestLeases(g))
	}
	t.guests = true
	t.leases.resume(v)
}

// absorb learns what has changed since the last time.
func (t *term) absorb(v *store.View, dirty []store.Dirty) {
	for _, d := range dirty { // nodes first: the scheduler counts tasks of nodes that it knows
		if d.Kind == api.KindNode {
			t.absorbNode(v, d.ID)
		}
	}
	for _, d := range dirty {
		switch d.Kind {
		case api.KindNetwork:
			t.absorbNetwork(v, d.ID)
		case api.KindTask:
			t.absorbTask(v, d)
		case api.KindService:
			t.absorbService(v, d.ID)
		case api.KindGuest:
			t.absorbGuest(v, d.ID)
		case api.KindCluster:
			t.absorbCluster(v, d)
		}
	}
}

func (t *term) free(freed bool) { t.freed = t.freed || freed }

func (t *term) absorbNode(v *store.View, id string) {
	if n, ok := v.Nodes.Get(id); ok {
		t.nodes.SetNode(n)
	} else {
		t.nodes.RemoveNode(id)
	}
	t.guests = true // a node that is gone has none
	for task := range v.Tasks.By(store.ByNode, id) {
		t.dirty[task.ServiceID] = true
		t.learn(v, task)
	}
	maps.Copy(t.dirty, t.global)
	t.freed = true
}

// follow remembers the services that have a task on each node.
func (t *term) follow(s *api.Service) {
	if api.Global(s.Spec.Mode) {
		t.global[s.ID] = true
	}
}

func (t *term) absorbNetwork(v *store.View, id string) {
	if n, ok := v.Networks.Get(id); ok {
		t.leases.setNetwork(n)
	} else {
		t.leases.removeNetwork(id)
	}
	t.freed = true
}

func (t *term) absorbService(v *store.View, id string) {
	t.dirty[id] = true
	var held []lease
	if s, ok := v.Services.Get(id); ok {
		held = vipLeases(s)
		t.follow(s)
	} else {
		delete(t.global, id)
	}
	t.free(t.leases.set(id, held))
}

func (t *term) absorbTask(v *store.View, d store.Dirty) {
	if old, ok := d.Old.(*api.Task); ok {
		t.dirty[old.ServiceID] = true
	}
	if task, ok := v.Tasks.Get(d.ID); ok {
		t.dirty[task.ServiceID] = true
		t.learn(v, task)
	} else {
		t.forget(d.ID)
	}
}

func (t *term) absorbCluster(v *store.View, d store.Dirty) {
	old, _ := d.Old.(*api.Cluster)
	if old != nil && historyLimit(old) == historyLimit(v.Cluster()) {
		return
	}
	for s := range v.Services.All() {
		t.dirty[s.ID] = true
	}
}

// learn takes in a task as the store has it.
func (t *term) learn(v *store.View, task *api.Task) {
	r, _ := v.Revisions.Get(task.Revision)
	t.free(t.nodes.SetTask(task, r))
	t.free(t.leases.set(task.ID, taskLeases(task)))
	switch {
	case !scheduler.Wanted(task):
		delete(t.running, task.ID)
	case task.Status.State == swarm.TaskStateRunning:
		if _, ok := t.running[task.ID]; !ok {
			t.running[task.ID] = task.UpdatedAt
		}
	}
}

// runningSince tells since when a task runs. The view may be newer than what has
// been taken in: a task that runs there alone has only just begun.
func (t *term) runningSince(v *store.View, id string) time.Time {
	if since, ok := t.running[id]; ok {
		return since
	}
	if task, ok := v.Tasks.Get(id); ok && task.Status.State == swarm.TaskStateRunning {
		return task.UpdatedAt
	}
	return time.Time{}
}

func (t *term) forget(taskID string) {
	t.free(t.nodes.RemoveTask(taskID))
	t.free(t.leases.set(taskID, nil))
	delete(t.running, taskID)
}

// round plans all dirty services and commits what came out.
func (t *term) round(ctx context.Context, v *store.View, now time.Time) {
	for _, id := range t.wakes.due(now) {
		if id != waitingID {
			t.dirty[id] = true
		}
	}
	t.leases.begin(v)
	t.admitGuests(ctx, v)
	t.wakeWaiting(now)
	ids := slices.Sorted(maps.Keys(t.dirty))
	clear(t.dirty)
	b := &batch{term: t}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		b.add(ctx, t.planService(v, id, now))
	}
	b.flush(ctx)
}

// wakeWaiting tries tasks that wait for a node or an address again, if there is
// reason to.
func (t *term) wakeWaiting(now time.Time) {
	if !t.freed {
		return
	}
	if len(t.waiting) == 0 {
		t.freed = false
		return
	}
	if next := t.tried.Add(retryWaiting); next.After(now) {
		t.wakes.set(waitingID, next)
		return
	}
	t.freed, t.tried = false, now
	for id := range t.waiting {
		t.dirty[id] = true
	}
}

// planService plans one service, and finds addresses and nodes for its tasks.
func (t *term) planService(v *store.View, id string, now time.Time) []step {
	in := t.input(v, id, now)
	p := plan(in)
	t.wakes.set(id, p.wake)
	delete(t.waiting, id)
	if p.service != nil {
		if err := t.provide(v, p); err != nil {
			t.waiting[id] = true
		}
	}
	return p.steps()
}

func (t *term) input(v *store.View, id string, now time.Time) *input {
	s, _ := v.Services.Get(id)
	in := &input{
		serviceID: id, service: s, now: now, newID: api.NewID,
		tasks:     slices.Collect(v.Tasks.By(store.ByService, id)),
		revisions: map[string]*api.Revision{},
		history:   withinBudget(historyLimit(v.Cluster()), v.Tasks.Len()),
		node: func(id string) *api.Node {
			n, _ := v.Nodes.Get(id)
			return n
		},
		nodes:        v.Nodes.All(),
		runningSince: func(id string) time.Time { return t.runningSince(v, id) },
		ports: func(spec *swarm.EndpointSpec) ([]swarm.PortConfig, error) {
			return PlanPorts(v, id, spec, s, nil)
		},
		refers: func(spec *swarm.ServiceSpec) error { return refers(v, spec) },
		takes:  t.taker(v),
	}
	for r := range v.Revisions.By(store.ByService, id) {
		in.revisions[r.ID] = r
	}
	return in
}

// taker asks the nodes on behalf of a plan, all of them once for a revision: whether
// another task is gone matters on its own node alone.
func (t *term) taker(v *store.View) func(r *api.Revision, gone *api.Task) string {
	type answer struct {
		q   scheduler.Request
		why string // no node takes one more
		bad error
	}
	asked := map[string]answer{}
	return func(r *api.Revision, gone *api.Task) string {
		a, ok := asked[r.ID]
		if !ok {
			if a.q, a.bad = request(v, r); a.bad == nil {
				a.why = t.nodes.Refusal(a.q)
			}
			asked[r.ID] = a
		}
		switch {
		case a.bad != nil:
			return a.bad.Error()
		case gone.Home == "" && a.why == "":
			return ""
		}
		own := t.nodes.RefusalInstead(a.q, gone)
		if own == "" || gone.Home != "" { // a task of a global service has no other node
			return own
		}
		return a.why
	}
}

// defaultHistory is Swarm's.
const defaultHistory = 5

func historyLimit(c *api.Cluster) int {
	if c == nil || c.Spec.Orchestration.TaskHistoryRetentionLimit == nil {
		return defaultHistory
	}
	limit := *c.Spec.Orchestration.TaskHistoryRetentionLimit
	if limit < 0 || limit > api.MaxHistory {
		return api.MaxHistory
	}
	return int(limit)
}

// historyBudget is how many tasks there may be in all until history has to give
// way: what has ended must not be what makes a cluster slow.
const historyBudget = 200_000

// withinBudget gives how many tasks to keep in a slot when there are so many in
// all: above the budget the last one alone, whatever the limit says.
func withinBudget(limit, tasks int) int {
	if tasks > historyBudget && (limit < 0 || limit > 1) {
		return 1
	}
	return limit
}
