package service

import (
	"errors"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Stories in which other orchestrators went wrong. Those that are not here:
// TestCrashAfterMonitor (monitoring for less time than the delay misses failures),
// TestFailuresAddUp, TestNewerSpecSupersedesStuckOne and TestFailedUpdatePauses (a
// newer spec queues behind one that is stuck or paused), TestCrashLoopBacksOff.

// TestRestartDuringRollback: what crashes while an update is taken back comes back
// as what it is to be, and never as what has failed.
func TestRestartDuringRollback(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.fate = badV2("crash 3s")
		c := swarm.UpdateConfig{Parallelism: 2, Monitor: 5 * time.Second, FailureAction: swarm.UpdateFailureActionRollback}
		back := swarm.UpdateConfig{Parallelism: 1, Delay: 4 * time.Second, FailureAction: swarm.UpdateFailureActionContinue}
		w.create(5, "v1", updating(c), func(s *swarm.ServiceSpec) { s.RollbackConfig = &back })
		w.wait(time.Second)
		w.change("v2")
		for i := 0; w.service().UpdateStatus == nil || w.service().UpdateStatus.State != swarm.UpdateStateRollbackStarted; i++ {
			if i > 600 {
				t.Fatalf("no rollback%s", w.dump())
			}
			w.wait(100 * time.Millisecond)
		}
		begun := time.Now()
		for i := range 10 { // old tasks and new ones crash meanwhile
			if all := w.tasks(isRunning); len(all) > 0 {
				w.report(all[i%len(all)].ID, swarm.TaskStateFailed, "killed")
			}
			w.wait(time.Second)
		}
		w.wait(2 * time.Minute)
		w.expectRunning("1:1 2:1 3:1 4:1 5:1")
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back")
		for _, task := range w.tasks(func(t *api.Task) bool { return t.Revision == "web-2" && t.CreatedAt.After(begun) }) {
			t.Errorf("task %s of the failed version was made in the rollback%s", task.ID, w.dump())
		}
		w.expectQuiet()
	})
}

// TestNewSpecDuringRollback: whoever changes a service while it is rolled back gets
// what was asked for, and no more of the rollback.
func TestNewSpecDuringRollback(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.fate = badV2("crash 1s")
		w.create(4, "v1", updating(swarm.UpdateConfig{Parallelism: 2, FailureAction: swarm.UpdateFailureActionRollback}),
			func(s *swarm.ServiceSpec) { s.RollbackConfig = &swarm.UpdateConfig{Parallelism: 1, Delay: time.Minute} })
		w.wait(time.Second)
		w.change("v2")
		w.wait(3 * time.Second)
		w.expectUpdate(swarm.UpdateStateRollbackStarted, "")
		w.change("v3")
		w.wait(time.Minute)
		w.expectRunning("1:3 2:3 3:3 4:3")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		w.expectQuiet()
	})
}

// TestAttemptsAndWindow: the limit of attempts is about crashes in a row, however
// the window compares with the delay; and a stable run begins a new row.
func TestAttemptsAndWindow(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		window, delay, crash time.Duration
		most                 int // tasks in an hour, 0: without end
	}{
		{"window shorter than the delay", time.Second, 10 * time.Second, 100 * time.Millisecond, 3},
		{"window longer than all attempts", 10 * time.Minute, time.Second, 100 * time.Millisecond, 3},
		{"crashes later than the delay", 30 * time.Second, time.Second, 20 * time.Second, 3},
		{"no window", 0, time.Second, 100 * time.Millisecond, 3},
		{"stable runs", 10 * time.Second, time.Second, 20 * time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.fate = func(*api.Task, string) string { return "crash " + tt.crash.String() }
				two, made := uint64(2), map[string]bool{}
				w.create(1, "v1", func(s *swarm.ServiceSpec) {
					s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: "any", Delay: &tt.delay, MaxAttempts: &two, Window: &tt.window}
				})
				for range 720 {
					w.wait(5 * time.Second)
					for _, task := range w.tasks(nil) {
						made[task.ID] = true
					}
				}
				if n := len(made); tt.most > 0 && n != tt.most || tt.most == 0 && n < 100 {
					t.Errorf("%d tasks, want %d%s", n, tt.most, w.dump())
				}
			})
		})
	}
}

// TestEveryStopIsAnnounced: whatever a task is stopped for, it is told to stop and
// stays in the store until its node says that it has. The session then keeps new
// connections away from it before it gets its stop signal.
func TestEveryStopIsAnnounced(t *testing.T) {
	for name, stop := range map[string]func(w *world){
		"update":     func(w *world) { w.change("v2") },
		"scale down": func(w *world) { w.scale(1) },
		"drained": func(w *world) {
			w.setNode("n1", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		},
		"constraints": func(w *world) {
			w.setNode("n1", func(n *api.Node) { n.Spec.Labels = map[string]string{"out": "true"} })
		},
		"stop": func(w *world) { w.setStopped(true) },
		"removed": func(w *world) {
			w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
		},
		"rebalance": func(w *world) {
			w.update(func(tx *store.Tx) error { // at once: it may not leave for where it is
				for task := range tx.Tasks.All() {
					if task.NodeID == "n1" {
						task = api.Clone(task)
						task.Leave = true
						return errors.Join(tx.Put(task), tx.Put(readyNode("n3")))
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(w *world) {
				w.create(4, "v1", published, constrained("node.labels.out!=true"))
				w.wait(time.Second)
				before := w.tasks(isRunning)
				ended := map[string]swarm.TaskState{} // by task: what it was told before it ended
				stop(w)
				for range 400 {
					w.wait(10 * time.Millisecond)
					for _, was := range before {
						now, ok := w.store.View().Tasks.Get(was.ID)
						switch {
						case !ok && ended[was.ID] == "":
							t.Fatalf("task %s is gone without a word%s", was.ID, w.dump())
						case ok && now.DesiredState != swarm.TaskStateRunning:
							ended[was.ID] = now.DesiredState
						case ok && api.Terminal(now.Status.State):
							t.Fatalf("task %s ended untold%s", was.ID, w.dump())
						}
					}
				}
				if len(ended) == 0 {
					t.Errorf("nothing was stopped%s", w.dump())
				}
			})
		})
	}
}
