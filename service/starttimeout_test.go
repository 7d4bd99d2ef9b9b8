package service

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

func timeout(v string) option {
	return func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.start-timeout": v} }
}

// TestStartTimeout: a task that never starts holds an update up for ever, unless
// the service says how long it may take.
func TestStartTimeout(t *testing.T) {
	stuck := func(w *world) {
		w.fate = func(_ *api.Task, image string) string {
			if image == "stuck" {
				return "never"
			}
			return ""
		}
	}
	roll := updating(swarm.UpdateConfig{FailureAction: swarm.UpdateFailureActionRollback})
	inWorld(t, 2, func(w *world) { // without it
		stuck(w)
		w.create(2, "v1", roll)
		w.wait(time.Second)
		w.change("stuck")
		w.wait(time.Hour)
		w.expectUpdate(swarm.UpdateStateUpdating, "")
	})
	inWorld(t, 2, func(w *world) { // an image that hangs
		stuck(w)
		w.create(2, "v1", roll, timeout("1m"))
		w.wait(time.Second)
		w.change("stuck")
		w.wait(59 * time.Second)
		w.expectUpdate(swarm.UpdateStateUpdating, "")
		w.depose()
		w.lead() // the new leader counts on, not anew
		w.wait(20 * time.Second)
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back")
		w.expectRunning("1:1 2:1")
		w.expectQuiet()
	})
	inWorld(t, 2, func(w *world) { // no room for it
		w.create(2, "v1", roll, timeout("1m"))
		w.wait(time.Second)
		w.change("v2", constrained("node.hostname==nowhere"))
		w.wait(2 * time.Minute)
		w.expectUpdate(swarm.UpdateStateRollbackCompleted, "update rolled back")
		w.expectRunning("1:1 2:1")
	})
	inWorld(t, 1, func(w *world) { // no update: it is tried again, and says why
		stuck(w)
		w.create(1, "stuck", timeout("10s"))
		w.wait(10*time.Second + starts + time.Millisecond)
		var all []string
		for _, task := range w.tasks(nil) {
			all = append(all, task.Status.Err)
		}
		if last := w.tasks(nil)[len(all)-1]; len(all) < 2 || last.Failures == 0 || !strings.Contains(strings.Join(all, "\n"), "shoal.start-timeout") {
			t.Fatalf("tried again%s", w.dump())
		}
		w.wait(time.Hour)
		if n := len(w.tasks(nil)); n > defaultHistory+1 {
			t.Errorf("%d tasks kept%s", n, w.dump())
		}
	})
	inWorld(t, 1, func(w *world) { // no room and no update: it just waits
		w.create(1, "v1", timeout("10s"), constrained("node.hostname==nowhere"))
		w.wait(time.Hour)
		if n := len(w.tasks(nil)); n != 1 {
			t.Errorf("%d tasks, want the one that waits%s", n, w.dump())
		}
	})
}
