package service

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/internal/api"
)

var t0 = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// model is a service with its tasks in plain memory: plans are applied to it,
// and its tasks are moved along by hand.
type model struct {
	service *api.Service
	tasks   map[string]*api.Task
	revs    map[string]*api.Revision
	nodes   map[string]*api.Node
	running map[string]time.Time
	now     time.Time
	ids     int
}

func newModel(replicas uint64, c swarm.UpdateConfig) *model {
	m := &model{
		service: &api.Service{Meta: api.Meta{ID: "web"}},
		tasks:   map[string]*api.Task{}, revs: map[string]*api.Revision{}, nodes: map[string]*api.Node{},
		running: map[string]time.Time{}, now: t0,
	}
	m.service.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	m.service.Spec.UpdateConfig = &c
	m.revise()
	for _, id := range []string{"n1", "n2", "n3"} {
		m.nodes[id] = readyNode(id)
	}
	return m
}

// revise makes a new revision the wanted one.
func (m *model) revise() {
	n := uint64(len(m.revs) + 1)
	r := &api.Revision{Meta: api.Meta{ID: fmt.Sprint("r", n), CreatedAt: m.now}, ServiceID: "web", Number: n, Spec: m.service.Spec}
	m.revs[r.ID] = r
	m.service = api.Clone(m.service)
	m.service.PreviousRevision, m.service.Revision, m.service.UpdateStatus = m.service.Revision, r.ID, nil
}

func (m *model) plan() *planner {
	in := &input{
		serviceID: "web", service: m.service, revisions: m.revs, history: defaultHistory, now: m.now,
		node: func(id string) *api.Node { return m.nodes[id] },
		nodes: func(yield func(*api.Node) bool) {
			for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
				if !yield(m.nodes[id]) {
					return
				}
			}
		},
		runningSince: func(id string) time.Time { return m.running[id] },
		refers:       func(*swarm.ServiceSpec) error { return nil },
		ports:        func(*swarm.EndpointSpec) ([]swarm.PortConfig, error) { return nil, nil },
		newID:        func() string { m.ids++; return fmt.Sprintf("new%04d", m.ids) },
	}
	for _, t := range m.tasks {
		in.tasks = append(in.tasks, t)
	}
	slices.SortFunc(in.tasks, func(a, b *api.Task) int { return strings.Compare(a.ID, b.ID) })
	return plan(in)
}

// step applies one plan and places what it created. It tells whether anything
// changed.
func (m *model) step() bool {
	p := m.plan()
	steps := p.steps()
	for _, s := range steps {
		for _, o := range s.puts {
			switch o := o.(type) {
			case *api.Service:
				m.service = o
			case *api.Task:
				if _, ok := m.tasks[o.ID]; !ok {
					o.CreatedAt = m.now
				}
				o.UpdatedAt = m.now
				m.tasks[o.ID] = o
			}
		}
		for _, o := range s.deletes {
			delete(m.tasks, o.Head().ID)
		}
	}
	for _, id := range m.ordered() {
		t := m.tasks[id]
		if t.NodeID == "" && t.Home == "" && (t.DesiredState == swarm.TaskStateReady || t.DesiredState == swarm.TaskStateRunning) {
			for _, n := range []string{"n1", "n2", "n3"} {
				if m.usable(n) {
					t = api.Clone(t)
					t.NodeID, t.Status.State, t.UpdatedAt = n, swarm.TaskStateAssigned, m.now
					m.tasks[t.ID] = t
					break
				}
			}
		}
	}
	return len(steps) > 0
}

func (m *model) usable(node string) bool {
	n := m.nodes[node]
	return n != nil && n.Status.State == swarm.NodeStateReady && n.Spec.Availability == swarm.NodeAvailabilityActive
}

// lasts tells whether a task serves where it should not.
func (m *model) lasts(t *api.Task) bool {
	n := m.nodes[t.NodeID]
	return n != nil && n.Status.State == swarm.NodeStateReady && !m.usable(t.NodeID) && (&task{Task: t}).serves()
}

func (m *model) ordered() (ids []string) {
	for id := range m.tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *model) set(id string, state swarm.TaskState) {
	t := api.Clone(m.tasks[id])
	t.Status.State, t.UpdatedAt = state, m.now
	m.tasks[id] = t
	if state == swarm.TaskStateRunning {
		m.running[id] = m.now
	}
}

// advance lets a task do the next thing that a healthy node does with it.
func (m *model) advance(id string) {
	t := m.tasks[id]
	n := m.nodes[t.NodeID]
	if n == nil || n.Status.State != swarm.NodeStateReady || api.Terminal(t.Status.State) {
		return
	}
	switch t.DesiredState {
	case swarm.TaskStateShutdown, swarm.TaskStateRemove:
		m.set(id, swarm.TaskStateShutdown)
	case swarm.TaskStateRunning:
		if t.Status.State != swarm.TaskStateRunning {
			m.set(id, swarm.TaskStateRunning)
		}
	case swarm.TaskStateReady:
		if api.Before(t.Status.State, swarm.TaskStateReady) {
			m.set(id, swarm.TaskStateReady)
		}
	}
}

func (m *model) count(keep func(*api.Task) bool) (n int) {
	for _, t := range m.tasks {
		if keep(t) {
			n++
		}
	}
	return n
}

// alive tells whether a task may be running on its node.
func alive(t *api.Task) bool {
	return t.NodeID != "" && !api.Terminal(t.Status.State) && (t.Status.State == swarm.TaskStateRunning || t.DesiredState == swarm.TaskStateRunning)
}

func (m *model) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %s, revision %s, %+v", m.now.Sub(t0), m.service.Revision, m.service.UpdateStatus)
	for _, id := range m.ordered() {
		t := m.tasks[id]
		fmt.Fprintf(&b, "\n  %s slot %d %s on %q: %s, wanted %s, failures %d", t.ID, t.Slot, t.Revision, t.NodeID, t.Status.State, t.DesiredState, t.Failures)
	}
	return b.String()
}

// TestConvergesFromAnyState starts from tasks that no sane history leads to,
// with a crash, a drained and a dead node on the way: in the end every slot has
// one running task of the wanted revision, and nothing more to do.
func TestConvergesFromAnyState(t *testing.T) {
	states := []swarm.TaskState{"pending", "assigned", "preparing", "ready", "starting", "running", "complete", "shutdown", "failed", "rejected", "orphaned"}
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.Uint64Range(0, 5).Draw(t, "replicas")
		order := rapid.SampledFrom([]string{"", swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}).Draw(t, "order")
		m := newModel(replicas, swarm.UpdateConfig{
			Parallelism: rapid.Uint64Range(0, 3).Draw(t, "parallelism"), Order: order,
			FailureAction: swarm.UpdateFailureActionContinue,
		})
		m.revise()
		for i := range rapid.IntRange(0, 15).Draw(t, "tasks") {
			task := &api.Task{
				Meta:         api.Meta{ID: fmt.Sprintf("old%04d", i), CreatedAt: t0.Add(-time.Duration(i) * time.Minute), UpdatedAt: t0},
				ServiceID:    "web",
				Slot:         rapid.IntRange(1, 7).Draw(t, "slot"),
				Revision:     rapid.SampledFrom([]string{"r1", "r2", "lost"}).Draw(t, "revision"),
				DesiredState: rapid.SampledFrom([]swarm.TaskState{"ready", "running", "shutdown", "remove"}).Draw(t, "desired"),
				NodeID:       rapid.SampledFrom([]string{"", "n1", "n2", "n3", "gone"}).Draw(t, "node"),
				Failures:     rapid.IntRange(0, 4).Draw(t, "failures"),
			}
			task.Status.State = "pending"
			if task.NodeID != "" {
				task.Status.State = rapid.SampledFrom(states).Draw(t, "state")
			}
			if task.Status.State == swarm.TaskStateRunning {
				m.running[task.ID] = t0
			}
			m.tasks[task.ID] = task
		}
		for tick := range 1200 {
			for range 10 {
				if !m.step() {
					break
				}
			}
			if m.step() {
				t.Fatalf("plans do not come to rest, %s", m)
			}
			for slot := range 8 {
				wanted := m.count(func(t *api.Task) bool { return t.Slot == slot && (&task{Task: t}).wanted() && !m.lasts(t) })
				if limit := map[bool]int{false: 1, true: 2}[order == swarm.UpdateOrderStartFirst]; wanted > limit {
					t.Fatalf("%d wanted tasks in slot %d, %s", wanted, slot, m)
				}
			}
			switch tick {
			case 5:
				m.nodes["n1"] = readyNode("n1")
				m.nodes["n1"].Status.State = swarm.NodeStateDown
			case 10:
				m.nodes["n2"] = readyNode("n2")
				m.nodes["n2"].Spec.Availability = swarm.NodeAvailabilityDrain
			case 20:
				delete(m.nodes, "n1")
				m.nodes["n2"] = readyNode("n2")
			}
			for _, id := range m.ordered() {
				if tick < 20 && m.tasks[id].Status.State == swarm.TaskStateRunning && rapid.IntRange(0, 20).Draw(t, "crash") == 0 {
					m.set(id, swarm.TaskStateFailed)
				} else {
					m.advance(id)
				}
			}
			m.now = m.now.Add(time.Second)
		}
		good := m.count(func(t *api.Task) bool {
			return t.DesiredState == swarm.TaskStateRunning && t.Status.State == swarm.TaskStateRunning && t.Revision == m.service.Revision && m.usable(t.NodeID)
		})
		wanted := m.count(func(t *api.Task) bool { return (&task{Task: t}).wanted() })
		if good != int(replicas) || wanted != int(replicas) {
			t.Fatalf("%d good and %d wanted of %d, %s", good, wanted, replicas, m)
		}
		if n := m.count(func(t *api.Task) bool { return t.DesiredState == swarm.TaskStateRemove }); n != 0 {
			t.Fatalf("%d removed tasks are left, %s", n, m)
		}
		if st := m.service.UpdateStatus; st != nil && st.State != swarm.UpdateStateCompleted {
			t.Fatalf("the update did not end, %s", m)
		}
		if n := m.count(func(*api.Task) bool { return true }); n > 7*defaultHistory {
			t.Fatalf("%d tasks kept", n)
		}
	})
}

// TestDrainedNodeServesUntilOthersDo drains nodes one after another under a
// healthy service, with an update on the way: a slot that served serves on.
func TestDrainedNodeServesUntilOthersDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "replicas")
		m := newModel(uint64(n), swarm.UpdateConfig{Parallelism: 1, Order: rapid.SampledFrom([]string{"", swarm.UpdateOrderStartFirst}).Draw(t, "order")})
		settle := func() {
			for range 100 {
				m.step()
				for _, id := range m.ordered() {
					m.advance(id)
				}
				m.now = m.now.Add(time.Second)
			}
		}
		settle()
		drain := func(id string, yes bool) {
			n := readyNode(id)
			if yes {
				n.Spec.Availability = swarm.NodeAvailabilityDrain
			}
			m.nodes[id] = n
		}
		updated := false
		for range rapid.IntRange(10, 60).Draw(t, "ticks") {
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				drain("n1", true)
				drain("n2", false)
			case 1:
				drain("n1", false)
				drain("n2", true)
			case 2:
				if !updated && m.service.Spec.UpdateConfig.Order == swarm.UpdateOrderStartFirst {
					m.revise()
					updated = true
				}
			}
			for range 10 {
				if !m.step() {
					break
				}
			}
			for slot := 1; slot <= n; slot++ {
				if m.count(func(t *api.Task) bool { return t.Slot == slot && (&task{Task: t}).serves() }) == 0 {
					t.Fatalf("slot %d serves nobody, %s", slot, m)
				}
			}
			for _, id := range m.ordered() {
				if rapid.Bool().Draw(t, "advances") {
					m.advance(id)
				}
			}
			m.now = m.now.Add(time.Second)
		}
		settle()
		if left := m.count(func(t *api.Task) bool { return alive(t) && !m.usable(t.NodeID) }); left > 0 {
			t.Fatalf("%d tasks are left on drained nodes, %s", left, m)
		}
		if up := m.count(alive); up != n {
			t.Fatalf("%d tasks are up of %d, %s", up, n, m)
		}
	})
}

// TestUpdateKeepsItsPromise updates a healthy service whose tasks take any time
// they like, in any order, with newer specs on the way: stop-first never has
// more than the parallelism out of service, start-first never has any, nor more
// than the parallelism on top.
func TestUpdateKeepsItsPromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "replicas")
		parallelism := rapid.IntRange(1, 4).Draw(t, "parallelism")
		startFirst := rapid.Bool().Draw(t, "start-first")
		c := swarm.UpdateConfig{Parallelism: uint64(parallelism), Delay: time.Duration(rapid.IntRange(0, 3).Draw(t, "delay")) * time.Second}
		if startFirst {
			c.Order = swarm.UpdateOrderStartFirst
		}
		m := newModel(uint64(n), c)
		settle := func() {
			for range 200 {
				m.step()
				for _, id := range m.ordered() {
					m.advance(id)
				}
				m.now = m.now.Add(time.Second)
			}
		}
		settle()
		m.revise()
		for tick := range rapid.IntRange(10, 80).Draw(t, "ticks") {
			m.step()
			if tick == 15 && rapid.Bool().Draw(t, "supersede") {
				m.revise()
				m.step()
			}
			serving := m.count(func(t *api.Task) bool {
				return t.Status.State == swarm.TaskStateRunning && t.DesiredState == swarm.TaskStateRunning
			})
			up := m.count(alive)
			if startFirst {
				// A task that is stopping still counts as up.
				stopping := m.count(func(t *api.Task) bool { return alive(t) && t.DesiredState == swarm.TaskStateShutdown })
				if serving < n || up-stopping > n+parallelism {
					t.Fatalf("%d serve and %d are up of %d, %s", serving, up, n, m)
				}
			} else if serving < n-parallelism || up > n {
				t.Fatalf("%d serve and %d are up of %d, %s", serving, up, n, m)
			}
			for _, id := range m.ordered() {
				if rapid.Bool().Draw(t, "advances") {
					m.advance(id)
				}
			}
			m.now = m.now.Add(time.Second)
		}
		settle()
		if done := m.count(func(t *api.Task) bool {
			return t.Status.State == swarm.TaskStateRunning && t.Revision == m.service.Revision
		}); done != n || m.service.UpdateStatus == nil || m.service.UpdateStatus.State != swarm.UpdateStateCompleted {
			t.Fatalf("the update did not end, %s", m)
		}
	})
}

func TestBackOff(t *testing.T) {
	task := &api.Task{Meta: api.Meta{ID: "t"}}
	task.Status.State = swarm.TaskStateFailed
	p := policyOf(&api.Revision{})
	within := func(got, want time.Duration) bool { return got >= want && got <= want+want/10 }
	for i, want := range []time.Duration{1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		if got := p.wait(task, i); !within(got, want*time.Second) {
			t.Errorf("after %d failures: %s, want %s", i, got, want*time.Second)
		}
	}
	if first, again := p.wait(task, 9), p.wait(api.Clone(task), 9); first != again {
		t.Errorf("the same attempt waits for %s and for %s", first, again)
	}
	if got := p.wait(task, 10_000); !within(got, maxBackOff) {
		t.Errorf("after very many failures: %s", got)
	}
	other := &api.Task{Meta: api.Meta{ID: "u"}}
	if p.wait(task, 9) == p.wait(other, 9) {
		t.Error("two tasks that failed together restart together")
	}
	hour, none := time.Hour, time.Duration(0)
	r := &api.Revision{}
	r.Spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: &hour}
	if got := policyOf(r).wait(task, 5); !within(got, hour) {
		t.Errorf("a delay above the cap became %s", got)
	}
	r.Spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: &none}
	if got := policyOf(r).wait(task, 1); got != 0 {
		t.Errorf("without delay, the first restart waits %s", got)
	}
	if got := policyOf(r).wait(task, 3); !within(got, 4*time.Second) {
		t.Errorf("without delay, the third restart waits %s", got)
	}
}

// TestCompletedAttemptsAreNoFailures: what completed many times and then fails
// once has failed once.
func TestCompletedAttemptsAreNoFailures(t *testing.T) {
	m := newModel(1, swarm.UpdateConfig{})
	end := func(state swarm.TaskState) (restarted *api.Task) {
		for m.step() {
		}
		for _, id := range m.ordered() {
			if task := m.tasks[id]; task.DesiredState == swarm.TaskStateRunning {
				m.set(id, state)
			}
		}
		m.step()
		for _, task := range m.tasks {
			if task.DesiredState == swarm.TaskStateReady {
				restarted = task
			}
		}
		m.now = m.now.Add(time.Hour)
		return restarted
	}
	for range 5 {
		if task := end(swarm.TaskStateComplete); task.Failures != 0 || task.NotBefore.Sub(m.now.Add(-time.Hour)) != DefaultDelay {
			t.Fatalf("after completing: %d failures, waits until %s, %s", task.Failures, task.NotBefore, m)
		}
	}
	if task := end(swarm.TaskStateFailed); task.Failures != 1 {
		t.Errorf("after one failure: %d, %s", task.Failures, m)
	}
}

// TestSurplus tells which slots a scale-down gives up.
func TestSurplus(t *testing.T) {
	m := newModel(6, swarm.UpdateConfig{})
	for i, node := range []string{"n1", "n1", "n1", "n2", "n2", "n3"} {
		id := fmt.Sprint("t", i+1)
		m.tasks[id] = &api.Task{Meta: api.Meta{ID: id, CreatedAt: t0}, ServiceID: "web", Slot: i + 1, Revision: "r1", NodeID: node, DesiredState: swarm.TaskStateRunning}
		m.set(id, swarm.TaskStateRunning)
	}
	m.set("t4", swarm.TaskStateStarting)
	m.tasks["t4"].Status.State = swarm.TaskStateStarting
	for replicas, want := range map[uint64]string{6: "", 5: "t4", 4: "t3 t4", 3: "t2 t3 t4", 0: "t1 t2 t3 t4 t5 t6"} {
		m.service.Spec.Mode.Replicated.Replicas = &replicas
		var got []string
		for _, s := range m.plan().steps() {
			for _, o := range s.puts {
				if task, ok := o.(*api.Task); ok && task.DesiredState == swarm.TaskStateRemove {
					got = append(got, task.ID)
				}
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("to %d: %v are removed, want %s", replicas, got, want)
		}
	}
}

// TestRevisionsAreForgotten keeps those in use and the newest few.
func TestRevisionsAreForgotten(t *testing.T) {
	m := newModel(1, swarm.UpdateConfig{})
	for range 4 + keptRevisions {
		m.revise()
	}
	m.tasks["t"] = &api.Task{Meta: api.Meta{ID: "t"}, ServiceID: "web", Slot: 1, Revision: "r2", NodeID: "n1", DesiredState: swarm.TaskStateShutdown}
	var got []string
	for _, r := range m.plan().dropped {
		got = append(got, r.ID)
	}
	slices.Sort(got)
	if want := "r1 r3 r4 r5"; strings.Join(got, " ") != want {
		t.Errorf("dropped %v, want %s", got, want)
	}
	m.service, m.tasks = nil, nil
	if n := len(m.plan().dropped); n != 5+keptRevisions {
		t.Errorf("%d of 15 revisions of a removed service are dropped", n)
	}
}

// TestHistoryLimitZero deletes what has ended, and nothing else: a task that is
// stopping still blocks its slot.
func TestHistoryLimitZero(t *testing.T) {
	m := newModel(1, swarm.UpdateConfig{})
	m.service.Spec.Mode.Replicated.Replicas = new(uint64)
	for id, state := range map[string]swarm.TaskState{"ended": swarm.TaskStateShutdown, "stopping": swarm.TaskStateRunning} {
		m.tasks[id] = &api.Task{Meta: api.Meta{ID: id}, ServiceID: "web", Slot: 1, Revision: "r1", NodeID: "n1", DesiredState: swarm.TaskStateShutdown}
		m.set(id, state)
	}
	p := m.plan()
	p.history = 0
	p.reap()
	for _, task := range p.slots[0].tasks {
		if task.gone != (task.ID == "ended") {
			t.Errorf("%s: deleted is %v", task.ID, task.gone)
		}
	}
}

func TestHistoryBudget(t *testing.T) {
	for _, tt := range []struct{ limit, tasks, want int }{
		{5, 100, 5},
		{-1, 100, -1},
		{0, 100, 0},
		{5, historyBudget + 1, 1},
		{-1, historyBudget + 1, 1},
		{0, historyBudget + 1, 0},
	} {
		if got := withinBudget(tt.limit, tt.tasks); got != tt.want {
			t.Errorf("limit %d with %d tasks: %d, want %d", tt.limit, tt.tasks, got, tt.want)
		}
	}
}
