package service

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

func TestCreateScaleRemove(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.create(3, "v1", published)
		w.wait(time.Second)
		w.expectRunning("1:1 2:1 3:1")
		nodes, addrs := map[string]int{}, map[string]bool{}
		for _, task := range w.tasks(nil) {
			nodes[task.NodeID]++
			if len(task.Networks) != 1 || task.Networks[0].NetworkID != "ingress" || task.Networks[0].Addr.Bits() != 24 {
				t.Errorf("networks %+v", task.Networks)
			}
			addrs[task.Networks[0].Addr.String()] = true
		}
		vips := w.service().Endpoint.VirtualIPs
		if len(vips) != 1 || addrs[vips[0].Addr] {
			t.Errorf("VIPs %v, tasks %v", vips, addrs)
		}
		if len(nodes) != 3 || len(addrs) != 3 {
			t.Errorf("nodes %v, addresses %v", nodes, addrs)
		}
		w.expectQuiet()

		w.scale(6)
		w.wait(time.Second)
		w.expectRunning("1:1 2:1 3:1 4:1 5:1 6:1")
		w.expectQuiet()

		w.scale(2)
		w.wait(stops + time.Second)
		if n := len(w.tasks(nil)); n != 2 || len(w.tasks(isRunning)) != 2 {
			t.Errorf("%d tasks after scaling to 2%s", n, w.dump())
		}
		if w.service().Endpoint.VirtualIPs[0] != vips[0] {
			t.Error("the VIP changed")
		}
		w.expectQuiet()

		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
		w.wait(stops + time.Second)
		if v := w.store.View(); v.Tasks.Len() != 0 || v.Revisions.Len() != 0 {
			t.Errorf("left over: %d tasks, %d revisions", v.Tasks.Len(), v.Revisions.Len())
		}
		w.expectQuiet()
	})
}

func TestLargeServiceIsSplit(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.create(1500, "v1")
		w.wait(2 * time.Second)
		if n := len(w.tasks(isRunning)); n != 1500 || len(w.tasks(nil)) != 1500 {
			t.Fatalf("%d of %d tasks run", n, len(w.tasks(nil)))
		}
		perNode := map[string]int{}
		for _, task := range w.tasks(nil) {
			perNode[task.NodeID]++
		}
		for id, n := range perNode {
			if n != 300 {
				t.Errorf("%d tasks on %s", n, id)
			}
		}
		w.expectQuiet()
	})
}

func TestCrashLoopBacksOff(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		crashing := true
		w.fate = func(task *api.Task, _ string) string {
			if task.Slot == 2 && crashing {
				return "crash 100ms"
			}
			return ""
		}
		w.create(3, "v1")
		w.wait(2*time.Second + starts)
		healthy := w.tasks(func(t *api.Task) bool { return t.Slot != 2 })

		w.wait(10 * time.Minute)
		loop := w.tasks(func(t *api.Task) bool { return t.Slot == 2 })
		last := loop[len(loop)-1]
		if last.Failures < 7 || last.Failures > 12 {
			t.Errorf("%d failures in ten minutes%s", last.Failures, w.dump())
		}
		if len(loop) != defaultHistory {
			t.Errorf("%d tasks kept in the slot", len(loop))
		}
		want := fmt.Sprintf("restart %d waits until ", last.Failures)
		if last.DesiredState != swarm.TaskStateReady || last.Status.State != swarm.TaskStatePending || !strings.HasPrefix(last.Status.Err, want) ||
			!strings.HasSuffix(last.Status.Err, " UTC after "+fmt.Sprint(last.Failures)+" failures in a row: task: non-zero exit (1)") {
			t.Errorf("the waiting task says %+v", last.Status)
		}
		if now := w.tasks(func(t *api.Task) bool { return t.Slot != 2 }); len(now) != 2 || now[0].ID != healthy[0].ID || now[1].ID != healthy[1].ID {
			t.Errorf("the other slots changed%s", w.dump())
		}
		w.expectQuiet()

		// Cured: the last wait passes, and after a stable run a single crash
		// costs no more than the first one did.
		w.mu.Lock()
		crashing = false
		w.mu.Unlock()
		w.wait(maxBackOff + time.Minute + 2*stableRun)
		w.expectRunning("1:1 2:1 3:1")
		cured := w.tasks(func(t *api.Task) bool { return t.Slot == 2 && isRunning(t) })[0]
		w.report(cured.ID, swarm.TaskStateFailed, "killed")
		w.wait(DefaultDelay + starts)
		w.expectRunning("1:1 2:1 3:1")
	})
}

// TestRejectionBacksOff: what a node refuses while it only prepares is not
// tried again before its time, either.
func TestRejectionBacksOff(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.fate = func(*api.Task, string) string { return "reject" }
		w.create(1, "v1")
		w.wait(10 * time.Minute)
		all := w.tasks(func(*api.Task) bool { return true })
		if last := all[len(all)-1]; last.Failures < 7 || last.Failures > 12 {
			t.Errorf("%d attempts in ten minutes%s", last.Failures, w.dump())
		}
		w.change("v2")
		w.wait(time.Second)
		for _, t := range w.tasks(func(t *api.Task) bool { return t.NodeID == "" && t.DesiredState == swarm.TaskStateShutdown }) {
			w.t.Errorf("task %s never came to a node, and is kept as history%s", t.ID, w.dump())
		}
	})
}

// TestUnluckyNodes: an image that only one of three nodes has. The other two fail
// again and again; before long every task runs where it can.
func TestUnluckyNodes(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.fate = func(task *api.Task, _ string) string {
			if task.NodeID == "n2" {
				return ""
			}
			return "reject"
		}
		w.create(3, "v1")
		w.wait(2 * time.Minute)
		up := w.tasks(func(t *api.Task) bool { return t.NodeID == "n2" && t.Status.State == swarm.TaskStateRunning })
		if len(up) != 3 {
			t.Errorf("%d tasks run%s", len(up), w.dump())
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	one, two, delay := uint64(1), uint64(2), 10*time.Second
	tests := []struct {
		name   string
		policy *swarm.RestartPolicy
		end    swarm.TaskState
		least  int // tasks in the slot after ten minutes of ending at once
		most   int
	}{
		{"none", &swarm.RestartPolicy{Condition: "none"}, swarm.TaskStateFailed, 1, 1},
		{"on-failure, completes", &swarm.RestartPolicy{Condition: "on-failure"}, swarm.TaskStateComplete, 1, 1},
		{"on-failure, fails once more", &swarm.RestartPolicy{Condition: "on-failure", MaxAttempts: &one}, swarm.TaskStateFailed, 2, 2},
		{"any, two attempts", &swarm.RestartPolicy{Condition: "any", MaxAttempts: &two}, swarm.TaskStateComplete, 3, 3},
		{"any, as a timer", &swarm.RestartPolicy{Condition: "any", Delay: &delay}, swarm.TaskStateComplete, 50, 60},
		{"nothing said, as a timer", nil, swarm.TaskStateComplete, 250, 600},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				keep := int64(-1)
				w.update(func(tx *store.Tx) error {
					c := api.Clone(tx.Cluster())
					c.Spec.Orchestration.TaskHistoryRetentionLimit = &keep
					return tx.Put(c)
				})
				w.create(1, "v1", func(s *swarm.ServiceSpec) { s.TaskTemplate.RestartPolicy = tt.policy })
				for range 600 {
					w.wait(time.Second)
					for _, task := range w.tasks(isRunning) {
						w.report(task.ID, tt.end, "")
					}
				}
				if n := len(w.tasks(nil)); n < tt.least || n > tt.most {
					t.Errorf("%d tasks, want %d to %d", n, tt.least, tt.most)
				}
				w.expectQuiet()
			})
		})
	}
}

func TestUpdateStopFirst(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(4, "v1", published)
		w.wait(time.Second)
		w.change("v2")
		for i := 0; w.service().UpdateStatus == nil || w.service().UpdateStatus.State != swarm.UpdateStateCompleted; i++ {
			if i > 300 {
				t.Fatalf("the update does not end%s", w.dump())
			}
			w.wait(100 * time.Millisecond)
			if n := len(w.tasks(isRunning)); n < 3 {
				t.Fatalf("%d of 4 run, with parallelism 1%s", n, w.dump())
			}
			if i%5 == 0 { // leaders may come and go meanwhile
				w.depose()
				w.lead()
			}
		}
		w.expectRunning("1:2 2:2 3:2 4:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		if n := len(w.tasks(nil)); n != 8 {
			t.Errorf("%d tasks: something was replaced twice%s", n, w.dump())
		}
		w.expectQuiet()
	})
}

func TestUpdateStartFirst(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 2, Order: swarm.UpdateOrderStartFirst}))
		w.wait(time.Second)
		w.change("v2")
		for range 100 {
			w.wait(100 * time.Millisecond)
			if n := len(w.tasks(isRunning)); n < 3 || n > 5 {
				t.Fatalf("%d of 3 run, with parallelism 2 and start-first%s", n, w.dump())
			}
		}
		w.expectRunning("1:2 2:2 3:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		w.expectQuiet()
	})
}

func TestUpdateDelay(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 1, Delay: 20 * time.Second}))
		w.wait(time.Second)
		w.change("v2")
		w.wait(15 * time.Second)
		w.expectRunning("1:2 2:1 3:1")
		w.wait(20 * time.Second)
		w.expectRunning("1:2 2:2 3:1")
		w.expectQuiet()
		w.wait(22 * time.Second)
		w.expectRunning("1:2 2:2 3:2")
		w.wait(6 * time.Second)
		w.expectUpdate(swarm.UpdateStateCompleted, "")
	})
}

func badV2(fate string) func(*api.Task, string) string {
	return func(_ *api.Task, image string) string {
		if image == "v2" {
			return fate
		}
		return ""
	}
}

func TestFailedUpdatePauses(t *testing.T) {
	for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, 2, func(w *world) {
				w.fate = badV2("crash 1s")
				w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 1, Order: order, Delay: time.Second / 2}))
				w.wait(time.Second)
				w.change("v2")
				w.wait(time.Minute)
				w.expectUpdate(swarm.UpdateStatePaused, "update paused due to failure or early termination of task ")
				old := w.tasks(func(t *api.Task) bool { return isRunning(t) && t.Revision == "web-1" })
				if len(old) < 1 {
					t.Fatalf("a paused update went on%s", w.dump())
				}
				w.expectQuiet()

				// A crash of an old task brings the old revision back: pausing
				// means that nothing more is updated.
				w.report(old[0].ID, swarm.TaskStateFailed, "killed")
				w.wait(5 * time.Second)
				again := w.tasks(func(t *api.Task) bool { return isRunning(t) && t.Slot == old[0].Slot && t.Revision == "web-1" })
				if len(again) != 1 {
					t.Fatalf("slot %d was not restarted with what it ran%s", old[0].Slot, w.dump())
				}

				w.change("v3")
				w.wait(time.Minute)
				w.expectRunning("1:3 2:3 3:3")
				w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
			})
		})
	}
}

// TestCrashAfterMonitor is the misfire of monitoring for less time than the
// delay between updates: the crash must count all the same.
func TestCrashAfterMonitor(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.fate = badV2("crash 15s")
		w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 1, Monitor: time.Second, Delay: 10 * time.Second}))
		w.wait(time.Second)
		w.change("v2")
		w.wait(2 * time.Minute)
		w.expectUpdate(swarm.UpdateStatePaused, "early termination")
	})
}

func TestFailedUpdateRollsBack(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.fate = badV2("crash 1s")
		w.create(4, "v1", published, updating(swarm.UpdateConfig{Parallelism: 2, FailureAction: swarm.UpdateFailureActionRollback}))
		w.wait(time.Second)
		vip := w.service().Endpoint.VirtualIPs[0]
		w.change("v2", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 81, PublishedPort: 8081, PublishMode: "ingress"}}}
		})
		for i := 0; w.service().UpdateStatus == nil || w.service().UpdateStatus.State != swarm.UpdateStateRollbackCompleted; i++ {
			if i > 600 {
				t.Fatalf("the rollback does not end%s", w.dump())
			}
			w.wait(100 * time.Millisecond)
			if i%7 == 0 {
				w.depose()
				w.lead()
			}
		}
		s := w.service()
		if s.Revision != "web-1" || s.PreviousRevision != "web-2" || s.Spec.TaskTemplate.ContainerSpec.Image != "v1" || s.Previous.TaskTemplate.ContainerSpec.Image != "v2" {
			t.Errorf("specs were not swapped: %+v", s)
		}
		if s.Endpoint.Ports[0].PublishedPort != 8080 || s.Endpoint.VirtualIPs[0] != vip {
			t.Errorf("endpoint %+v", s.Endpoint)
		}
		w.expectRunning("1:1 2:1 3:1 4:1")
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back due to failure or early termination of task ")
		w.expectQuiet()
	})
}

func TestFailedRollbackPauses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.create(2, "v1", updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
		w.wait(time.Second)
		w.fate = func(*api.Task, string) string { return "crash 1s" }
		w.change("v2")
		w.wait(time.Minute)
		w.expectUpdate(swarm.UpdateStateRollbackPaused, "rollback paused due to failure")
		w.expectQuiet()
	})
}

func TestRollbackToTakenPortPauses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.fate = badV2("crash 1s")
		w.create(1, "v1", published, updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
		w.wait(time.Second)
		w.update(func(tx *store.Tx) error { // the port passes to another service with the update
			s, _ := tx.Services.Get("web")
			s = api.Clone(s)
			s.Endpoint.Ports = nil
			return tx.Put(s)
		})
		w.update(func(tx *store.Tx) error {
			other := &api.Service{Meta: api.Meta{ID: "other"}}
			other.Spec.Name = "other"
			other.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64)}
			other.Endpoint.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080}}
			return tx.Put(other)
		})
		w.change("v2", func(s *swarm.ServiceSpec) { s.EndpointSpec = nil })
		w.wait(time.Minute)
		w.expectUpdate(swarm.UpdateStatePaused, "port '8080' is already in use by service 'other'")
	})
}

// TestRollbackKeepsChosenPorts: two ports for one target are two ports, before
// a rollback and after.
func TestRollbackKeepsChosenPorts(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.fate = badV2("crash 1s")
		w.create(1, "v1", updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
		auto := swarm.PortConfig{Protocol: "tcp", TargetPort: 80, PublishMode: "ingress"}
		spec := swarm.EndpointSpec{Ports: []swarm.PortConfig{auto, auto}}
		w.update(func(tx *store.Tx) error {
			s, _ := tx.Services.Get("web")
			s = api.Clone(s)
			ports, err := PlanPorts(&tx.View, s.ID, &spec, s, nil)
			s.Spec.EndpointSpec, s.Endpoint.Spec, s.Endpoint.Ports = &spec, spec, ports
			return errors.Join(err, tx.Put(s))
		})
		before := w.service().Endpoint.Ports
		w.wait(time.Second)
		w.change("v2")
		w.wait(time.Minute)
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "")
		after := w.service().Endpoint.Ports
		if !slices.Equal(before, after) || after[0].PublishedPort == after[1].PublishedPort {
			t.Errorf("published %+v, and after the rollback %+v", before, after)
		}
	})
}

func TestFailuresWithinTheRatio(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.fate = func(task *api.Task, image string) string {
			if image == "v2" && task.Slot == 2 {
				return "crash 1s"
			}
			return ""
		}
		w.create(4, "v1", updating(swarm.UpdateConfig{Parallelism: 1, MaxFailureRatio: 0.25}))
		w.wait(time.Second)
		w.change("v2")
		w.wait(time.Minute)
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		if len(w.tasks(func(t *api.Task) bool { return isRunning(t) && t.Revision == "web-2" })) < 3 {
			t.Errorf("not updated%s", w.dump())
		}
	})
}

// TestUpdateEndsOverFailures: an update whose tasks never run ends where its
// settings tolerate that, and the old tasks that served meanwhile with it.
func TestUpdateEndsOverFailures(t *testing.T) {
	tolerant := map[string]swarm.UpdateConfig{
		"continue": {FailureAction: swarm.UpdateFailureActionContinue},
		"ratio":    {FailureAction: swarm.UpdateFailureActionRollback, MaxFailureRatio: 1},
	}
	for name, c := range tolerant {
		for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
			for _, fate := range []string{"reject", "crash 0s"} {
				for _, mode := range []string{"replicated", "global"} {
					t.Run(strings.Join([]string{name, order, fate, mode}, " "), func(t *testing.T) {
						c.Order, c.Parallelism, c.Monitor = order, 1, 4*time.Second
						inWorld(t, 3, func(w *world) {
							w.fate = badV2(fate)
							options := []option{updating(c)}
							if mode == "global" {
								options = append(options, global)
							}
							w.create(3, "v1", options...)
							w.wait(time.Second)
							w.change("v2")
							serves := order == swarm.UpdateOrderStartFirst && fate == "reject"
							for i := 0; w.service().UpdateStatus == nil || w.service().UpdateStatus.State != swarm.UpdateStateCompleted; i++ {
								if i > 300 {
									t.Fatalf("the update does not end%s", w.dump())
								}
								if old := w.tasks(func(t *api.Task) bool { return isRunning(t) && t.Revision == "web-1" }); serves && len(old) != 3 {
									t.Fatalf("%d of 3 serve while others are tried beside them%s", len(old), w.dump())
								}
								w.wait(100 * time.Millisecond)
								if i%5 == 0 {
									w.depose()
									w.lead()
								}
							}
							w.expectUpdate(swarm.UpdateStateCompleted, "update completed with failures in 3 of 3 tasks")
							if wanted := w.tasks(func(t *api.Task) bool { return (&task{Task: t}).wanted() && t.Revision != "web-2" }); len(wanted) > 0 {
								t.Fatalf("old tasks are left%s", w.dump())
							}
							w.wait(time.Second)
							w.expectQuiet()

							// What was tried goes on being tried.
							w.mu.Lock()
							w.fate = badV2("")
							w.mu.Unlock()
							w.wait(time.Minute)
							if n := len(w.tasks(isRunning)); n != 3 {
								t.Fatalf("%d of 3 run%s", n, w.dump())
							}
							w.expectUpdate(swarm.UpdateStateCompleted, "")
						})
					})
				}
			}
		}
	}
}

// TestFailedTasksAreWatched: a new task that failed once has the monitor time to
// come up before what it relieves is stopped.
func TestFailedTasksAreWatched(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.fate = func(task *api.Task, image string) string {
			if image == "v2" && task.Failures == 0 {
				return "reject"
			}
			return ""
		}
		w.create(2, "v1", updating(swarm.UpdateConfig{FailureAction: swarm.UpdateFailureActionContinue, Order: swarm.UpdateOrderStartFirst}))
		w.wait(time.Second)
		w.change("v2")
		for range 100 {
			w.wait(100 * time.Millisecond)
			if n := len(w.tasks(isRunning)); n < 2 {
				t.Fatalf("%d of 2 run%s", n, w.dump())
			}
		}
		w.expectRunning("1:2 2:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed with failures in 2 of 2 tasks")
	})
}

// TestUpdateToWhatEnds: tasks that have done what they are there for have taken
// over, though nobody may have seen them run.
func TestUpdateToWhatEnds(t *testing.T) {
	for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.fate = badV2("complete 0s")
				w.create(2, "v1", updating(swarm.UpdateConfig{Order: order}), func(s *swarm.ServiceSpec) {
					s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure}
				})
				w.wait(time.Second)
				w.change("v2")
				w.wait(30 * time.Second)
				w.expectRunning("")
				w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
				w.expectQuiet()
			})
		})
	}
}

func TestNewerSpecSupersedesStuckOne(t *testing.T) {
	for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, 2, func(w *world) {
				w.fate = badV2("never")
				w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 1, Order: order}))
				w.wait(time.Second)
				w.change("v2")
				w.wait(5 * time.Minute)
				w.expectUpdate(swarm.UpdateStateUpdating, "update in progress")
				w.expectQuiet()
				w.change("v3")
				w.wait(20 * time.Second)
				w.expectRunning("1:3 2:3 3:3")
				w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
			})
		})
	}
}

// TestPlacementMovesWhatMustMove: another placement replaces those tasks alone that
// may not stay where they are.
func TestPlacementMovesWhatMustMove(t *testing.T) {
	for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, 3, func(w *world) {
				w.create(3, "v1", updating(swarm.UpdateConfig{Parallelism: 1, Order: order}))
				w.wait(time.Second)
				w.expectRunning("1:1 2:1 3:1")
				on := func(revision string) map[string]string { // task ID to node
					m := map[string]string{}
					for _, task := range w.tasks(isRunning) {
						if task.Revision != revision {
							t.Fatalf("a task is of revision %s, not %s%s", task.Revision, revision, w.dump())
						}
						m[task.ID] = task.NodeID
					}
					return m
				}
				first := on("web-1")

				w.change("v1", constrained("node.platform.os!=windows"))
				w.wait(0)
				if now := on("web-2"); !maps.Equal(now, first) {
					t.Fatalf("tasks moved that may stay%s", w.dump())
				}
				if st := w.service().UpdateStatus; st != nil {
					t.Fatalf("an update that has nothing to do says %+v", st)
				}
				w.expectQuiet()

				// How they are spread, and how many a node may have, moves none.
				w.change("v1", func(s *swarm.ServiceSpec) {
					s.TaskTemplate.Placement = &swarm.Placement{
						MaxReplicas: 1, Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}},
					}
				})
				w.wait(0)
				if now := on("web-3"); !maps.Equal(now, first) {
					t.Fatalf("tasks moved that may stay%s", w.dump())
				}

				w.change("v1", constrained("node.hostname!=n3"))
				w.wait(30 * time.Second)
				moved := on("web-4")
				for id, node := range first {
					if now, ok := moved[id]; ok != (node != "n3") || ok && now != node {
						t.Errorf("task %s of %s is on %q now%s", id, node, now, w.dump())
					}
				}
				w.expectRunning("1:4 2:4 3:4")
				w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
				w.expectQuiet()

				// Back to where all may be: nobody has to move.
				w.update(func(tx *store.Tx) error {
					s, _ := tx.Services.Get("web")
					s = api.Clone(s)
					s.Spec, s.Previous = *s.Previous, &s.Spec
					s.Revision, s.PreviousRevision = s.PreviousRevision, s.Revision
					s.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateRollbackStarted, StartedAt: new(time.Now())}
					return tx.Put(s)
				})
				w.wait(10 * time.Second)
				if now := on("web-3"); !maps.Equal(now, moved) {
					t.Fatalf("a rollback moved tasks that may stay%s", w.dump())
				}
				w.expectUpdate(swarm.UpdateStateRollbackCompleted, "rollback completed")
				w.expectQuiet()

				w.change("v2", constrained("node.platform.os!=windows"))
				w.wait(time.Minute)
				if now := on("web-5"); len(now) != 3 {
					t.Fatalf("not updated%s", w.dump())
				}
			})
		})
	}
}

// TestPlacementOfWhatWaits: a task that had no node is placed by what is asked now,
// and one that was about to be evicted stays if it may now.
func TestPlacementOfWhatWaits(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(1, "v1", constrained("node.labels.zone==a"))
		w.wait(time.Second)
		w.expectRunning("")
		waits := w.tasks(nil)
		w.change("v1", constrained("node.hostname==n2"))
		w.wait(time.Second)
		w.expectRunning("1:2")
		if now := w.tasks(nil); len(now) != 1 || now[0].ID != waits[0].ID || now[0].NodeID != "n2" {
			t.Errorf("it was replaced%s", w.dump())
		}
		w.update(func(tx *store.Tx) error { // both at once
			n, _ := tx.Nodes.Get("n2")
			n = api.Clone(n)
			n.Description.Hostname = "other"
			r := &api.Revision{Meta: api.Meta{ID: "web-3"}, ServiceID: "web", Number: 3, Like: "web-1"}
			s, _ := tx.Services.Get("web")
			s = api.Clone(s)
			constrained("node.hostname==other")(&s.Spec)
			s.Revision, r.Spec = r.ID, s.Spec
			return errors.Join(tx.Put(n), tx.Put(r), tx.Put(s))
		})
		w.wait(time.Second)
		w.expectRunning("1:3")
		if now := w.tasks(nil); len(now) != 1 || now[0].ID != waits[0].ID {
			t.Errorf("it was replaced%s", w.dump())
		}
	})
}

func TestNodeDownAndBack(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1", published)
		w.wait(time.Second)
		w.setNode("n1", func(n *api.Node) { n.Status.State = swarm.NodeStateDown })
		w.wait(time.Second)
		w.expectRunning("1:1 2:1")
		addrs := map[netip.Prefix]string{}
		for _, task := range w.tasks(nil) {
			if isRunning(task) && task.NodeID != "n2" {
				t.Errorf("a task runs on a node that is down%s", w.dump())
			}
			a := task.Networks[0].Addr
			if other := addrs[a]; other != "" {
				t.Errorf("%s is given to %s and %s, though the first may still run", a, other, task.ID)
			}
			addrs[a] = task.ID
		}
		w.expectQuiet()

		w.setNode("n2", func(n *api.Node) { n.Status.State = swarm.NodeStateDown })
		w.wait(time.Second)
		for _, task := range w.tasks(func(t *api.Task) bool { return t.DesiredState == swarm.TaskStateRunning }) {
			if task.Status.State != swarm.TaskStatePending || task.Status.Err != "no suitable node (2 nodes not ready)" {
				t.Errorf("without nodes a task says %+v", task.Status)
			}
		}
		w.expectQuiet()

		w.setNode("n1", func(n *api.Node) { n.Status.State = swarm.NodeStateReady })
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1")
		w.expectQuiet()
	})
}

// TestNodeWithoutEngine: a node whose engine does not answer keeps what it has, and
// is given nothing until it does.
func TestNodeWithoutEngine(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		away := func(id string, yes bool) {
			w.setNode(id, func(n *api.Node) { n.NoEngine, n.Status.Message = yes, "Docker engine does not answer" })
		}
		on := func(id string) int {
			return len(w.tasks(func(t *api.Task) bool { return t.NodeID == id && (&task{Task: t}).wanted() }))
		}
		w.create(2, "v1")
		w.wait(time.Second)
		before := w.running()
		away("n1", true)
		w.wait(time.Minute)
		w.expectRunning(before)
		w.expectQuiet()

		w.scale(6)
		w.wait(time.Second)
		if a, b := on("n1"), on("n2"); a != 1 || b != 5 {
			t.Fatalf("%d tasks are on n1 and %d on n2%s", a, b, w.dump())
		}
		w.scale(2)
		w.wait(5 * time.Second)
		away("n2", true)
		w.scale(3)
		w.wait(time.Minute)
		waits := w.tasks(func(t *api.Task) bool { return t.NodeID == "" })
		if len(waits) != 1 || waits[0].Status.Err != "no suitable node (engine not answering on 2 nodes)" {
			t.Fatalf("no task waits for an engine%s", w.dump())
		}
		w.expectQuiet()
		away("n1", false)
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1 3:1")

		// A node that is drained waits for an engine that is about to come back, and
		// not for one that is gone.
		w.scale(1)
		w.wait(5 * time.Second)
		home, other := w.tasks(isRunning)[0].NodeID, "n1"
		if home == other {
			other = "n2"
		}
		away(home, false)
		away(other, true)
		w.setNode(home, func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(10 * time.Second)
		w.expectRunning("1:1")
		away(other, false)
		w.wait(5 * time.Second)
		w.expectRunning("1:1")
		if on(other) != 1 {
			t.Fatalf("it did not move%s", w.dump())
		}
		away(home, true)
		w.setNode(home, func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
		w.setNode(other, func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(10 * time.Second)
		w.expectRunning("1:1")
		w.setNode(home, func(n *api.Node) { n.Status.State = swarm.NodeStateDown })
		w.wait(5 * time.Second)
		w.expectRunning("")
	})
}

// TestDrainPastAnEngine: a node can be drained though elsewhere an engine does not
// answer, if the tasks may not go there.
func TestDrainPastAnEngine(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(1, "v1", constrained("node.hostname==n1"))
		w.wait(time.Second)
		w.expectRunning("1:1")
		w.setNode("n2", func(n *api.Node) { n.NoEngine = true })
		w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(10 * time.Second)
		w.expectRunning("")
	})
}

func TestRemovedNode(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1")
		w.wait(time.Second)
		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindNode, "n1") })
		w.wait(time.Second)
		w.expectRunning("1:1 2:1")
		orphans := w.tasks(func(t *api.Task) bool { return t.Status.State == swarm.TaskStateOrphaned })
		if len(orphans) != 1 {
			t.Errorf("a task of a removed node still looks alive%s", w.dump())
		}
		w.expectQuiet()
	})
}

func TestDrainPauseAndConstraints(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.setNode("n3", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause })
		w.setNode("n1", func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": "eu"} })
		w.setNode("n3", func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": "eu"} })
		w.create(2, "v1", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone==eu"}}
		})
		on := func(id string) int {
			return len(w.tasks(func(t *api.Task) bool { return isRunning(t) && t.NodeID == id }))
		}
		w.wait(time.Second)
		if on("n1") != 2 {
			t.Fatalf("not on the one node that fits%s", w.dump())
		}
		w.setNode("n3", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
		w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(2 * time.Second)
		if on("n3") != 2 {
			t.Fatalf("not moved off the drained node%s", w.dump())
		}
		w.setNode("n2", func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": "eu"} })
		w.setNode("n3", func(n *api.Node) { n.Spec.Labels = nil })
		w.wait(2 * time.Second)
		if on("n2") != 2 {
			t.Fatalf("a label that was taken away changed nothing%s", w.dump())
		}
		w.expectQuiet()
	})
}

// TestDrainedNode: tasks leave a drained node when others have taken over, with
// any order of updates, and where none can, all the same.
func TestDrainedNode(t *testing.T) {
	drain := func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain }
	on := func(w *world, node string) int {
		return len(w.tasks(func(t *api.Task) bool { return isRunning(t) && t.NodeID == node }))
	}
	t.Run("moved", func(t *testing.T) {
		inWorld(t, 2, func(w *world) {
			w.create(4, "v1")
			w.wait(time.Second)
			w.setNode("n1", drain)
			for range 30 {
				w.wait(50 * time.Millisecond)
				if n := len(w.tasks(isRunning)); n < 4 {
					t.Fatalf("%d of 4 serve%s", n, w.dump())
				}
			}
			if on(w, "n1") != 0 || on(w, "n2") != 4 {
				t.Fatalf("not moved%s", w.dump())
			}
			w.expectQuiet()
		})
	})
	t.Run("nowhere to go", func(t *testing.T) {
		inWorld(t, 2, func(w *world) {
			w.create(2, "v1", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: 1} })
			w.wait(time.Second)
			w.setNode("n1", drain)
			w.wait(2 * time.Second)
			if on(w, "n1") != 0 || on(w, "n2") != 1 {
				t.Fatalf("not drained%s", w.dump())
			}
			w.expectQuiet()
		})
	})
	t.Run("fails everywhere else", func(t *testing.T) {
		inWorld(t, 2, func(w *world) {
			w.fate = func(task *api.Task, _ string) string {
				if task.NodeID == "n2" {
					return "reject"
				}
				return ""
			}
			w.setNode("n2", drain)
			w.create(1, "v1")
			w.wait(time.Second)
			w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
			w.setNode("n1", drain)
			w.wait(2 * time.Second)
			if on(w, "n1") != 1 {
				t.Fatalf("one failure elsewhere, and the service is gone%s", w.dump())
			}
			w.wait(30 * time.Second)
			if on(w, "n1") != 0 {
				t.Fatalf("the node is never drained%s", w.dump())
			}
		})
	})
	t.Run("taken back", func(t *testing.T) {
		inWorld(t, 2, func(w *world) {
			w.fate = func(task *api.Task, _ string) string {
				if task.NodeID == "n2" {
					return "never"
				}
				return ""
			}
			w.setNode("n2", drain)
			w.create(1, "v1")
			w.wait(time.Second)
			w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
			w.setNode("n1", drain)
			w.wait(time.Second)
			w.depose() // all of this is in the tasks
			w.lead()
			w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive })
			w.wait(2 * time.Second)
			w.expectRunning("1:1")
			if n := len(w.tasks(scheduler.Wanted)); n != 1 || on(w, "n1") != 1 {
				t.Fatalf("%d tasks are wanted%s", n, w.dump())
			}
		})
	})
}

func TestFreedResourcesWakeTasks(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.create(3, "v1", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: 512 << 20}}
		})
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1")
		third := w.tasks(func(t *api.Task) bool { return t.Slot == 3 })[0]
		if third.Status.Err != "no suitable node (insufficient memory on 1 node: 0B free, 512MiB reserved by the service)" {
			t.Fatalf("the third says %+v", third.Status)
		}
		w.expectQuiet()
		w.setNode("n1", func(n *api.Node) { n.Description.Resources.MemoryBytes = 2 << 30 })
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1 3:1")
	})
}

func TestAddressesRunOut(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.update(func(tx *store.Tx) error {
			n := api.Clone(tx.Ingress())
			n.Subnets = []api.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/29"), Gateway: netip.MustParseAddr("10.0.0.1")}}
			return tx.Put(n)
		})
		w.create(6, "v1", published) // five addresses: the VIP and four tasks
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1 3:1 4:1")
		waiting := w.tasks(func(t *api.Task) bool { return t.NodeID == "" })
		if len(waiting) != 2 || !strings.Contains(waiting[0].Status.Err, `network "ingress" has no free address: all 5 of 10.0.0.0/29 are in use`) {
			t.Fatalf("waiting tasks%s", w.dump())
		}
		w.expectQuiet()
		w.scale(4)
		w.wait(2 * time.Second)
		for range 30 { // many more replacements than addresses
			task := w.tasks(isRunning)[0]
			w.report(task.ID, swarm.TaskStateFailed, "killed")
			w.wait(2 * stableRun)
		}
		w.expectRunning("1:1 2:1 3:1 4:1")
		w.scale(0)
		w.wait(2 * time.Second)
		w.scale(4)
		w.wait(3 * time.Second)
		w.expectRunning("1:1 2:1 3:1 4:1")
	})
}

func TestServiceWithoutNetworks(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.create(1, "v1")
		w.wait(time.Second)
		w.expectRunning("1:1")
		if n := w.tasks(nil)[0].Networks; len(n) != 0 || len(w.service().Endpoint.VirtualIPs) != 0 {
			t.Errorf("networks %v, VIPs %v", n, w.service().Endpoint.VirtualIPs)
		}
	})
}

// TestOrphans: what a node took with it is given up after a day, not before,
// and is history from then on, with its address free again.
func TestOrphans(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1", published)
		w.wait(time.Second)
		lost := w.tasks(func(t *api.Task) bool { return t.NodeID == "n1" })[0]
		now := func() *api.Task {
			task, _ := w.store.View().Tasks.Get(lost.ID)
			return task
		}
		w.down("n1")
		w.wait(orphanAfter - time.Second)
		if task := now(); task.Status.State != swarm.TaskStateRunning || task.DesiredState != swarm.TaskStateShutdown {
			t.Fatalf("before its time%s", w.dump())
		}
		w.expectQuiet() // a new leader does not begin to count anew
		w.wait(2 * time.Second)
		if task := now(); task.Status.State != swarm.TaskStateOrphaned || task.Status.Message != "node has been down for 24h0m0s" {
			t.Fatalf("after a day%s", w.dump())
		}
		w.expectRunning("1:1 2:1")
		w.expectQuiet()

		if held := taskLeases(now()); len(held) != 0 {
			t.Errorf("it still holds %v", held)
		}
		w.report(lost.ID, swarm.TaskStateRunning, "")
		w.setNode("n1", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
		w.wait(2 * time.Second)
		if task := now(); task == nil || task.Status.State != swarm.TaskStateOrphaned {
			t.Errorf("a task that was given up came back%s", w.dump())
		}
	})
}

// TestOrphansAreReaped: history has its limit for orphans, too, and the tasks of
// a service that is removed go with it.
func TestOrphansAreReaped(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.update(func(tx *store.Tx) error {
			c := api.Clone(tx.Cluster())
			c.Spec.Orchestration.TaskHistoryRetentionLimit = new(int64)
			return tx.Put(c)
		})
		w.create(2, "v1")
		w.wait(time.Second)
		w.down("n1")
		w.wait(time.Second)
		if n := len(w.tasks(nil)); n != 3 {
			t.Fatalf("%d tasks, want 3: one of a node that is down may still run%s", n, w.dump())
		}
		w.wait(orphanAfter)
		if n := len(w.tasks(nil)); n != 2 {
			t.Fatalf("%d tasks, want 2%s", n, w.dump())
		}
		w.expectRunning("1:1 2:1")
		w.expectQuiet()
	})
}

// TestNodeBackInTime: a node that returns within its day owns its tasks again,
// and its next absence counts from its own beginning.
func TestNodeBackInTime(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.create(2, "v1")
		w.wait(time.Second)
		for range 3 {
			w.down("n1")
			w.wait(orphanAfter / 2)
			w.setNode("n1", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
			w.wait(time.Minute)
		}
		if orphans := w.tasks(func(t *api.Task) bool { return t.Status.State == swarm.TaskStateOrphaned }); len(orphans) != 0 {
			t.Errorf("given up before a day%s", w.dump())
		}
		w.expectRunning("1:1 2:1")
		w.expectQuiet()
	})
}

func (w *world) down(id string) {
	w.t.Helper()
	w.setNode(id, func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateDown}, time.Now()) })
}
