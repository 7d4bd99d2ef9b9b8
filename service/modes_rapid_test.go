package service

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/internal/api"
)

// place gives the tasks of a plan the nodes that they are for, or any.
func (m *model) place() {
	for _, id := range m.ordered() {
		t := m.tasks[id]
		if t.NodeID != "" || !(&task{Task: t}).wanted() {
			continue
		}
		for _, n := range []string{"n1", "n2", "n3"} {
			if m.usable(n) && (t.Home == "" || t.Home == n) {
				t = api.Clone(t)
				t.NodeID, t.Status.State, t.UpdatedAt = n, swarm.TaskStateAssigned, m.now
				m.tasks[id] = t
				break
			}
		}
	}
}

// TestModesConvergeFromAnyState: global services and jobs, from tasks that no
// sane history leads to, with crashes, drained, dead and lost nodes, new specs
// and stops on the way.
func TestModesConvergeFromAnyState(t *testing.T) {
	states := []swarm.TaskState{"pending", "assigned", "preparing", "ready", "starting", "running", "complete", "shutdown", "failed", "rejected", "orphaned"}
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]string{"global", "job", "global job"}).Draw(t, "mode")
		total, concurrent := rapid.Uint64Range(0, 6).Draw(t, "total"), rapid.Uint64Range(1, 4).Draw(t, "concurrent")
		m := newModel(0, swarm.UpdateConfig{
			Parallelism:   rapid.Uint64Range(0, 3).Draw(t, "parallelism"),
			Order:         rapid.SampledFrom([]string{"", swarm.UpdateOrderStartFirst}).Draw(t, "order"),
			FailureAction: swarm.UpdateFailureActionContinue,
		})
		switch spec := &m.service.Spec.Mode; mode {
		case "global":
			*spec = swarm.ServiceMode{Global: &swarm.GlobalService{}}
		case "job":
			*spec = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &total, MaxConcurrent: &concurrent}}
		default:
			*spec = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
		}
		job := mode != "global"
		run := uint64(3)
		if job {
			m.service.JobStatus = &swarm.JobStatus{JobIteration: swarm.Version{Index: run}, LastExecution: m.now}
		}
		m.revise()
		for i := range rapid.IntRange(0, 15).Draw(t, "tasks") {
			old := &api.Task{
				Meta:         api.Meta{ID: fmt.Sprintf("old%04d", i), CreatedAt: t0.Add(-time.Duration(i) * time.Minute), UpdatedAt: t0},
				ServiceID:    "web",
				Revision:     rapid.SampledFrom([]string{"r1", "r2", "lost"}).Draw(t, "revision"),
				DesiredState: rapid.SampledFrom([]swarm.TaskState{"ready", "running", "shutdown", "remove"}).Draw(t, "desired"),
				NodeID:       rapid.SampledFrom([]string{"", "n1", "n2", "n3", "gone"}).Draw(t, "node"),
			}
			if mode == "job" {
				old.Slot = rapid.IntRange(0, 8).Draw(t, "slot")
			} else if old.Home = old.NodeID; old.Home == "" {
				old.Home = "n1"
			}
			if job {
				it := rapid.Uint64Range(2, 3).Draw(t, "run")
				old.Iteration = &it
			}
			old.Status.State = "pending"
			if old.NodeID != "" {
				old.Status.State = rapid.SampledFrom(states).Draw(t, "state")
			}
			if old.Status.State == swarm.TaskStateRunning {
				m.running[old.ID] = t0
			}
			m.tasks[old.ID] = old
		}
		underWay := func() int {
			return m.count(func(t *api.Task) bool {
				return (&task{Task: t}).wanted() && !api.Terminal(t.Status.State) && t.Iteration != nil && *t.Iteration == run
			})
		}
		before := underWay()
		for tick := range 250 {
			for range 12 {
				changed := m.step()
				m.place()
				if !changed {
					break
				}
			}
			if m.step() {
				t.Fatalf("plans do not come to rest, %s", m)
			}
			if n := underWay(); mode == "job" && n > max(int(concurrent), before) {
				t.Fatalf("%d tasks of a job at once, %s", n, m)
			}
			before = min(before, max(underWay(), int(concurrent)))
			switch tick {
			case 5:
				m.nodes["n1"] = readyNode("n1")
				m.nodes["n1"].Status.State = swarm.NodeStateDown
			case 10:
				m.nodes["n2"] = readyNode("n2")
				m.nodes["n2"].Spec.Availability = swarm.NodeAvailabilityDrain
			case 15:
				m.service = api.Clone(m.service)
				m.service.Spec.Labels = api.SetStopped(nil, true)
			case 18:
				if n := m.count(alive); n > 2 { // what is on the dead node is unknown
					t.Fatalf("%d tasks are up of a stopped service, %s", n, m)
				}
				m.service = api.Clone(m.service)
				m.service.Spec.Labels, m.service.UpdateStatus = nil, nil
				if !job {
					m.service.UpdateStatus = Starting(m.now)
				}
			case 20:
				delete(m.nodes, "n1")
				m.nodes["n2"] = readyNode("n2")
			}
			for _, id := range m.ordered() {
				running := m.tasks[id].Status.State == swarm.TaskStateRunning
				switch {
				case tick < 20 && running && rapid.IntRange(0, 20).Draw(t, "crash") == 0:
					m.set(id, swarm.TaskStateFailed)
				case job && running && m.tasks[id].DesiredState == swarm.TaskStateRunning:
					m.set(id, swarm.TaskStateComplete)
				default:
					m.advance(id)
				}
			}
			m.now = m.now.Add(time.Second)
		}
		done := map[string]int{}
		for _, t := range m.tasks {
			switch {
			case !job && t.DesiredState == swarm.TaskStateRunning && t.Status.State == swarm.TaskStateRunning && t.Revision == m.service.Revision:
				done[t.Home]++
			case job && t.Status.State == swarm.TaskStateComplete && *t.Iteration == run && t.DesiredState != swarm.TaskStateRemove:
				done[fmt.Sprint(t.Slot, t.Home)]++
			}
		}
		want := map[string]int{"global": 2, "global job": 2, "job": int(total)}[mode]
		if len(done) != want {
			t.Fatalf("done %v of %d, %s", done, want, m)
		}
		if n := m.count(func(t *api.Task) bool { return (&task{Task: t}).wanted() && !api.Terminal(t.Status.State) }); job && n != 0 || !job && n != want {
			t.Fatalf("%d tasks are wanted, %s", n, m)
		}
	})
}
