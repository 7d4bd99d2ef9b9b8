package service

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func global(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }

func globalJob(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}} }

func job(total, concurrent uint64) option {
	return func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &total, MaxConcurrent: &concurrent}}
	}
}

func constrained(to ...string) option {
	return func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = &swarm.Placement{Constraints: to} }
}

func restarting(condition swarm.RestartPolicyCondition, attempts uint64) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: condition, MaxAttempts: &attempts}
	}
}

func (w *world) setStopped(stopped bool) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		s, _ := tx.Services.Get("web")
		s = api.Clone(s)
		s.Spec.Labels, s.UpdateStatus = api.SetStopped(s.Spec.Labels, stopped), nil
		if !stopped && !api.Job(s.Spec.Mode) {
			s.UpdateStatus = Starting(time.Now())
		}
		return tx.Put(s)
	})
}

// TestGlobalFollowsTheNodes: one task on each node that may have one, whatever
// happens to the nodes.
func TestGlobalFollowsTheNodes(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.create(0, "v1", global, published)
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n3:1")
		for _, task := range w.tasks(nil) {
			if task.Slot != 0 || task.NodeID != task.Home {
				t.Errorf("slot %d of %s on %s", task.Slot, task.Home, task.NodeID)
			}
		}
		w.expectQuiet()

		w.update(func(tx *store.Tx) error { return tx.Put(readyNode("n4")) })
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n3:1 n4:1")

		w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(stops + time.Second)
		w.expectRunning("n1:1 n3:1 n4:1")
		w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause })
		w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause })
		w.wait(time.Second)
		w.expectRunning("n1:1 n3:1 n4:1") // a paused node keeps what it has
		w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n3:1 n4:1")
		w.expectQuiet()

		w.down("n3")
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n4:1")
		w.setNode("n3", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
		w.wait(stops + time.Second)
		w.expectRunning("n1:1 n2:1 n3:1 n4:1")

		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindNode, "n4") })
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n3:1")
		if n := len(w.tasks(func(t *api.Task) bool { return t.Home == "n4" })); n != 0 {
			t.Errorf("%d tasks of a node that left%s", n, w.dump())
		}
		w.expectQuiet()

		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
		w.wait(stops + time.Second)
		if n := w.store.View().Tasks.Len(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// TestGlobalUpdate: in groups, over a crash, and back again by itself.
func TestGlobalUpdate(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		w.fate = func(task *api.Task, image string) string {
			if image == "bad" && task.Home == "n2" {
				return "crash 1s"
			}
			return ""
		}
		c := swarm.UpdateConfig{Parallelism: 2, FailureAction: swarm.UpdateFailureActionRollback, Monitor: 3 * time.Second}
		w.create(0, "v1", global, updating(c))
		w.wait(time.Second)
		w.change("v2")
		w.wait(stops + starts/2)
		if n := len(w.tasks(isRunning)); n != 2 {
			t.Errorf("%d tasks run while 2 of 4 are replaced%s", n, w.dump())
		}
		w.wait(10 * time.Second)
		w.expectRunning("n1:2 n2:2 n3:2 n4:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		w.change("bad")
		w.wait(30 * time.Second)
		w.expectRunning("n1:2 n2:2 n3:2 n4:2")
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back due to failure")
		w.expectQuiet()
	})
}

// TestGlobalConstraints: the nodes that a spec names are those that have a task,
// now and after the nodes or the spec change.
func TestGlobalConstraints(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.setNode("n1", func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": "a"} })
		w.create(0, "v1", global, constrained("node.labels.zone==a"))
		w.wait(time.Second)
		w.expectRunning("n1:1")
		w.setNode("n2", func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": "a"} })
		w.setNode("n1", func(n *api.Node) { n.Spec.Labels = nil })
		w.wait(stops + time.Second)
		w.expectRunning("n2:1")
		w.change("v2", constrained("node.labels.zone!=a"))
		w.wait(10 * time.Second)
		w.expectRunning("n1:2 n3:2")
		w.expectQuiet()
		stays := w.tasks(isRunning)[1].ID
		w.change("v2", constrained("node.hostname!=n1"))
		w.wait(10 * time.Second)
		w.expectRunning("n2:3 n3:3")
		if now := w.tasks(isRunning)[1].ID; now != stays {
			t.Errorf("the task on n3 was replaced%s", w.dump())
		}
		w.expectQuiet()
	})
}

// TestGlobalWithoutEngine: a node whose engine does not answer keeps its task, and
// gets one when it answers.
func TestGlobalWithoutEngine(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.setNode("n1", func(n *api.Node) { n.NoEngine = true })
		w.create(0, "v1", global)
		w.wait(time.Second)
		w.expectRunning("n2:1 n3:1")
		w.expectQuiet()
		w.setNode("n2", func(n *api.Node) { n.NoEngine = true })
		w.setNode("n1", func(n *api.Node) { n.NoEngine = false })
		w.wait(time.Second)
		w.expectRunning("n1:1 n2:1 n3:1")
		w.expectQuiet()
	})
}

// TestGlobalWaitsForItsNode: a node without room makes its task wait there, and
// no other.
func TestGlobalWaitsForItsNode(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.setNode("n2", func(n *api.Node) { n.Description.Resources.MemoryBytes = 64 << 20 })
		w.create(0, "v1", global, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: 128 << 20}}
		})
		w.wait(time.Second)
		w.expectRunning("n1:1")
		waiting := w.tasks(func(t *api.Task) bool { return t.Home == "n2" })
		if len(waiting) != 1 || waiting[0].NodeID != "" || !strings.Contains(waiting[0].Status.Err, "insufficient memory on 1 node") {
			t.Fatalf("waiting%s", w.dump())
		}
		w.expectQuiet()
		w.setNode("n2", func(n *api.Node) { n.Description.Resources.MemoryBytes = 1 << 30 })
		w.wait(2 * time.Second)
		w.expectRunning("n1:1 n2:1")
	})
}

// completed counts what a job has done in its present run, and checks that it
// never had more tasks under way than it may.
func (w *world) completed() (n int) {
	w.t.Helper()
	it := w.service().JobStatus.JobIteration.Index
	slots := map[string]bool{}
	for _, t := range w.tasks(nil) {
		if t.Iteration == nil || *t.Iteration != it || t.Status.State != swarm.TaskStateComplete {
			continue
		}
		key := fmt.Sprint(t.Slot, t.Home)
		if slots[key] {
			w.t.Fatalf("slot %s completed twice%s", key, w.dump())
		}
		slots[key] = true
		n++
	}
	return n
}

func (w *world) underWay() int {
	return len(w.tasks(func(t *api.Task) bool {
		return t.DesiredState == swarm.TaskStateRunning && t.NodeID != "" && !api.Terminal(t.Status.State)
	}))
}

func TestJob(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.fate = func(*api.Task, string) string { return "complete 2s" }
		w.create(0, "v1", job(5, 2))
		for range 40 {
			w.wait(250 * time.Millisecond)
			if n := w.underWay(); n > 2 {
				t.Fatalf("%d tasks at once%s", n, w.dump())
			}
		}
		if n := w.completed(); n != 5 || len(w.tasks(nil)) != 5 {
			t.Fatalf("%d completed of %d tasks%s", n, len(w.tasks(nil)), w.dump())
		}
		for i, task := range w.tasks(nil) {
			if task.Slot != i {
				t.Errorf("slots do not count from 0%s", w.dump())
			}
		}
		w.expectQuiet()
		w.wait(time.Hour)
		w.expectQuiet()

		w.change("v2") // another run
		w.wait(20 * time.Second)
		if n := w.completed(); n != 5 {
			t.Fatalf("%d completed in the second run%s", n, w.dump())
		}
		w.expectQuiet()
		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
		w.wait(stops + time.Second)
		if n := w.store.View().Tasks.Len(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// TestJobRetries: a task that fails is tried again within the policy's limit,
// and neither a crash nor a lost node makes the job do anything twice.
func TestJobRetries(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		attempts := map[int]int{}
		w.fate = func(task *api.Task, _ string) string {
			if attempts[task.Slot]++; task.Slot == 1 && attempts[1] < 3 {
				return "crash 1s"
			}
			return "complete 5s"
		}
		w.create(0, "v1", job(3, 3), restarting(swarm.RestartPolicyConditionAny, 5))
		w.wait(3 * time.Second)
		w.down("n1")
		w.depose()
		w.lead()
		w.wait(time.Minute)
		if n := w.completed(); n != 3 {
			t.Fatalf("%d completed%s", n, w.dump())
		}
		w.expectQuiet()
	})
	inWorld(t, 1, func(w *world) {
		w.fate = func(task *api.Task, _ string) string {
			if task.Slot == 0 {
				return "crash 2m" // longer than what counts as stable
			}
			return "complete 1s"
		}
		w.create(0, "v1", job(3, 1), restarting(swarm.RestartPolicyConditionOnFailure, 2))
		w.wait(time.Hour)
		failed := w.tasks(func(t *api.Task) bool { return t.Status.State == swarm.TaskStateFailed })
		if n := w.completed(); n != 2 || len(failed) != 3 {
			t.Fatalf("%d completed, %d failed%s", n, len(failed), w.dump())
		}
		if last := failed[2]; last.DesiredState != swarm.TaskStateRunning {
			t.Errorf("the last failure is wanted %s: clients can not tell it from one that is tried again", last.DesiredState)
		}
		w.expectQuiet()
	})
}

// TestNewRunStopsTheOld: two runs of a job are never in one slot at a time.
func TestNewRunStopsTheOld(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.fate = func(_ *api.Task, image string) string {
			if image == "v1" {
				return ""
			}
			return "complete 1s"
		}
		w.create(0, "v1", job(2, 2))
		w.wait(5 * time.Second)
		w.expectRunning("0:1 1:1")
		w.change("v2")
		w.wait(stops / 2)
		if n := len(w.tasks(isRunning)); n != 0 {
			t.Errorf("%d tasks run while the old ones stop%s", n, w.dump())
		}
		w.wait(10 * time.Second)
		if n := w.completed(); n != 2 {
			t.Fatalf("%d completed%s", n, w.dump())
		}
		w.expectQuiet()
	})
}

func TestGlobalJob(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.fate = func(*api.Task, string) string { return "complete 1s" }
		w.down("n3")
		w.create(0, "v1", globalJob)
		w.wait(10 * time.Second)
		if n := w.completed(); n != 2 {
			t.Fatalf("%d completed%s", n, w.dump())
		}
		w.setNode("n3", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
		w.update(func(tx *store.Tx) error { return tx.Put(readyNode("later")) })
		w.wait(10 * time.Second)
		if n := w.completed(); n != 3 { // the node that came later was no part of this run
			t.Fatalf("%d completed%s", n, w.dump())
		}
		w.expectQuiet()
		w.change("v1")
		w.wait(10 * time.Second)
		if n := w.completed(); n != 4 {
			t.Fatalf("%d completed in the second run%s", n, w.dump())
		}
		w.expectQuiet()
	})
}

// TestStopAndStart: a stopped service keeps all but its tasks.
func TestStopAndStart(t *testing.T) {
	for name, options := range map[string][]option{
		"replicated": {published}, "global": {global, published}, "job": {job(3, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 3, func(w *world) {
				w.create(3, "v1", options...)
				w.wait(time.Second)
				if n := len(w.tasks(isRunning)); n != 3 {
					t.Fatalf("%d tasks run", n)
				}
				vips := len(w.service().Endpoint.VirtualIPs)
				w.setStopped(true)
				w.wait(3*stops + time.Second)
				if n := w.underWay(); n != 0 {
					t.Fatalf("%d tasks of a stopped service%s", n, w.dump())
				}
				w.expectUpdate(swarm.UpdateStateCompleted, stoppedMessage)
				w.expectQuiet()
				w.down("n1")
				w.change("v2", func(s *swarm.ServiceSpec) {})
				w.wait(time.Minute)
				if n := w.underWay(); n != 0 || len(w.service().Endpoint.VirtualIPs) != vips {
					t.Fatalf("%d tasks of a stopped service after an update%s", n, w.dump())
				}
				w.setNode("n1", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
				w.setStopped(false)
				w.wait(10 * time.Second)
				running := w.tasks(isRunning)
				if len(running) != 3 || running[0].Revision != w.service().Revision {
					t.Fatalf("started again: %s%s", w.running(), w.dump())
				}
				if st := w.service().UpdateStatus; name != "job" && (st == nil || st.State != swarm.UpdateStateCompleted || st.Message != startedMessage) {
					t.Errorf("update status %+v", st)
				}
				w.expectQuiet()
			})
		})
	}
}
