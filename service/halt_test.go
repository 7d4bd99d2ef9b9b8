package service

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestStopAndStartInTurn: as many tasks at a time as an update may replace, and
// with its delay between, whatever else happens meanwhile.
func TestStopAndStartInTurn(t *testing.T) {
	const delay = 10 * time.Second
	for name, options := range map[string][]option{"replicated": nil, "global": {global}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 5, func(w *world) {
				w.update(func(tx *store.Tx) error { // the delay needs no history
					c := api.Clone(tx.Cluster())
					c.Spec.Orchestration.TaskHistoryRetentionLimit = new(int64)
					return tx.Put(c)
				})
				w.create(5, "v1", append(options, updating(swarm.UpdateConfig{Parallelism: 2, Delay: delay, Monitor: time.Second}))...)
				w.wait(time.Second)
				inTurn := func(up func(seconds int) int, took time.Duration) {
					t.Helper()
					for i := range int(took/time.Second) + 1 {
						w.wait(time.Second)
						if got, want := len(w.tasks(isRunning)), up(i); got != want {
							t.Fatalf("%d tasks run after %ds, want %d%s", got, i+1, want, w.dump())
						}
						if i%4 == 0 {
							w.depose()
							w.lead()
						}
					}
				}
				w.setStopped(true)
				inTurn(func(i int) int { return max(0, 3-2*(i/10)) }, 2*delay)
				w.expectUpdate(swarm.UpdateStateUpdating, stoppingMessage)
				w.wait(stops)
				w.expectUpdate(swarm.UpdateStateCompleted, stoppedMessage)
				w.expectQuiet()
				w.setStopped(false)
				inTurn(func(i int) int { return min(5, 2+2*(i/10)) }, 2*delay)
				w.expectUpdate(swarm.UpdateStateUpdating, startingMessage)
				w.wait(time.Second)
				w.expectUpdate(swarm.UpdateStateCompleted, startedMessage)
				w.expectQuiet()
			})
		})
	}
}

// TestStartIsNoUpdate: what crashes or finds no room neither ends a start nor
// holds it up, and nothing is rolled back.
func TestStartIsNoUpdate(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.create(0, "v1", global, updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
		w.wait(time.Second)
		w.change("v2", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: 512 << 20}}
		})
		w.wait(30 * time.Second)
		w.expectRunning("n1:2 n2:2 n3:2")
		w.setStopped(true)
		w.wait(10 * time.Second)
		w.expectRunning("")
		w.setNode("n1", func(n *api.Node) { n.Description.Resources.MemoryBytes = 0 })
		w.mu.Lock()
		w.fate = func(task *api.Task, _ string) string {
			if task.NodeID == "n2" {
				return "crash 1s"
			}
			return ""
		}
		w.mu.Unlock()
		w.setStopped(false)
		others := func(want string) {
			t.Helper()
			var up []string
			for _, task := range w.tasks(isRunning) {
				if task.Home != "n2" {
					up = append(up, task.Home)
				}
			}
			if got := strings.Join(up, " "); got != want {
				t.Fatalf("%s run, want %s%s", got, want, w.dump())
			}
		}
		w.wait(20 * time.Second)
		others("n3")
		w.expectUpdate(swarm.UpdateStateUpdating, startingMessage)
		w.setNode("n1", func(n *api.Node) { n.Description.Resources.MemoryBytes = 1 << 30 })
		w.wait(20 * time.Second)
		others("n1 n3")
		w.expectUpdate(swarm.UpdateStateCompleted, startedMessage)
	})
}

// TestStoppedHalfway: a service that is started while it stops, or changed while
// it stops or starts, ends as what was asked for last.
func TestStoppedHalfway(t *testing.T) {
	c := updating(swarm.UpdateConfig{Parallelism: 1, Delay: 2 * time.Second, Monitor: time.Second})
	inWorld(t, 2, func(w *world) {
		w.create(4, "v1", c)
		w.wait(time.Second)
		w.setStopped(true)
		w.wait(time.Second)
		w.change("v2")
		w.wait(time.Second)
		w.setStopped(false)
		w.wait(time.Minute)
		w.expectRunning("1:2 2:2 3:2 4:2")
		w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
		w.expectQuiet()
		w.setStopped(true)
		w.wait(time.Minute)
		w.setStopped(false)
		w.wait(time.Second)
		w.change("v3")
		w.wait(time.Minute)
		w.expectRunning("1:3 2:3 3:3 4:3")
		w.expectQuiet()
		w.setStopped(true)
		w.wait(time.Minute)
		w.setStopped(false)
		w.wait(time.Second)
		w.setStopped(true)
		w.wait(time.Minute)
		w.expectRunning("")
		w.expectUpdate(swarm.UpdateStateCompleted, stoppedMessage)
		w.expectQuiet()
	})
}
