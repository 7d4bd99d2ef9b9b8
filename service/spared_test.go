package service

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func reserving(bytes int64) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: bytes}}
	}
}

func onHost(name string) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==" + name}}
	}
}

// TestNoTaskStopsForOneWithoutANode: stop-first, and no node would take the
// replacement even with the old task gone. What runs goes on, the reason is told,
// and the update goes on when a node would.
func TestNoTaskStopsForOneWithoutANode(t *testing.T) {
	for name, test := range map[string]struct {
		option option
		why    string
		cure   func(w *world)
		where  string // all tasks are in the end; "" anywhere
	}{
		"constraint that no node meets": {onHost("nope"), "no suitable node (constraint node.hostname==nope not satisfied on 3 nodes)", func(w *world) {
			w.setNode("n2", func(n *api.Node) { n.Description.Hostname = "nope" })
		}, "n2"},
		"more memory than a node has": {reserving(1 << 40), "no suitable node (insufficient memory on 3 nodes: ", func(w *world) {
			w.setNode("n2", func(n *api.Node) { n.Description.Resources.MemoryBytes = 1 << 42 })
		}, "n2"},
		"all paused": {nil, "no suitable node (3 nodes paused)", func(w *world) {
			for _, id := range []string{"n1", "n2", "n3"} {
				w.setNode(id, func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 3, func(w *world) {
				w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 2}))
				w.wait(time.Minute)
				before := w.tasks(isRunning)
				if test.option == nil {
					for _, id := range []string{"n1", "n2", "n3"} {
						w.setNode(id, func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause })
					}
					w.change("v2")
				} else {
					w.change("v2", test.option)
				}
				w.wait(time.Minute)
				after := w.tasks(isRunning)
				if !slices.EqualFunc(before, after, func(a, b *api.Task) bool { return a.ID == b.ID }) {
					t.Fatalf("other tasks run%s", w.dump())
				}
				waiting := w.tasks(func(t *api.Task) bool { return !isRunning(t) })
				if len(waiting) != 2 || !strings.HasPrefix(waiting[0].Status.Err, test.why) || waiting[0].DesiredState != swarm.TaskStateReady {
					t.Errorf("want two that wait with %q%s", test.why, w.dump())
				}
				if st := w.service().UpdateStatus; st.State != swarm.UpdateStateUpdating || !strings.HasPrefix(st.Message, "update in progress; it waits for a node: "+test.why) {
					t.Errorf("status %+v", st)
				}
				w.expectQuiet()
				w.depose()
				w.lead()
				w.wait(time.Minute)
				w.expectQuiet()

				test.cure(w)
				w.wait(2 * time.Minute)
				w.expectRunning("1:2 2:2 3:2")
				w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
				for _, task := range w.tasks(isRunning) {
					if test.where != "" && task.NodeID != test.where {
						t.Errorf("not all are on %s%s", test.where, w.dump())
					}
				}
				w.expectQuiet()
			})
		})
	}
}

// TestOldTaskMakesRoom: it is not spared where its own node would take the
// replacement once it is gone.
func TestOldTaskMakesRoom(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1", reserving(1<<30))
		for _, id := range []string{"n1", "n2"} {
			w.setNode(id, func(n *api.Node) { n.Description.Resources.MemoryBytes = 1 << 30 })
		}
		w.wait(time.Minute)
		w.expectRunning("1:1 2:1")
		w.change("v2", reserving(1<<30))
		w.wait(time.Minute)
		w.expectRunning("1:2 2:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
	})
}

// TestSparedTaskIsNotInTheWay: a rollback, a drain and an impatient service go on
// as ever.
func TestSparedTaskIsNotInTheWay(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1", updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
		w.wait(time.Minute)
		w.change("v2", onHost("nope"))
		w.wait(time.Minute)
		w.expectRunning("1:1 2:1")
		w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(time.Minute)
		for _, task := range w.tasks(isRunning) {
			if task.NodeID == "n1" {
				t.Errorf("the node does not drain%s", w.dump())
			}
		}
		w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
		w.change("v1", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = nil })
		w.wait(time.Minute)
		w.expectRunning("1:3 2:3")
		before := w.tasks(isRunning)
		w.change("v2", onHost("nope"), func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.start-timeout": "10s"} })
		w.wait(5 * time.Minute)
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back due to failure or early termination of task ")
		if st := w.service().UpdateStatus; strings.Contains(st.Message, noNode) {
			t.Errorf("it still waits: %s", st.Message)
		}
		if after := w.tasks(isRunning); !slices.EqualFunc(before, after, func(a, b *api.Task) bool { return a.ID == b.ID }) {
			t.Errorf("other tasks run%s", w.dump())
		}
		w.expectQuiet()
	})
}

// TestGlobalTaskIsSpared: it has its own node alone.
func TestGlobalTaskIsSpared(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(0, "v1", global)
		w.wait(time.Minute)
		w.update(func(tx *store.Tx) error { // n2 has less
			n, _ := tx.Nodes.Get("n2")
			n = api.Clone(n)
			n.Description.Resources.MemoryBytes = 1 << 20
			return tx.Put(n)
		})
		w.change("v2", reserving(4<<20))
		w.wait(time.Minute)
		w.expectRunning("n1:2 n2:1")
		if st := w.service().UpdateStatus; !strings.Contains(st.Message, "it waits for a node: no suitable node (insufficient memory on 1 node: 1MiB free, 4MiB reserved by the service)") {
			t.Errorf("status %+v", st)
		}
		w.setNode("n2", func(n *api.Node) { n.Description.Resources.MemoryBytes = 1 << 30 })
		w.wait(time.Minute)
		w.expectRunning("n1:2 n2:2")
	})
}
