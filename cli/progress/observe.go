// Package progress turns what the API says about a service into the display that a user watches while it converges.
// Watch folds observations into frames; frames become lines, for a terminal or for a log. None of it does I/O, save
// Display, which writes.
package progress

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Observation is one look at a service.
type Observation struct {
	Service swarm.Service
	// Tasks are those of the service's present spec.
	Tasks []swarm.Task
	// Down has the nodes known to be down: what they last said of their tasks no longer counts.
	Down map[string]bool
}

// defaultMonitor is how long tasks must keep running before they count as stable, where the service does not say.
const defaultMonitor = 5 * time.Second

// Watch follows one service until it has converged.
type Watch struct {
	name      string
	since     time.Time // when every slot was first seen running; zero if not all are
	rollback  bool
	updating  bool // the update was seen at work, so a completed one is this one
	unstable  bool // a task failed while the rest were being verified
	completed bool
	lostAt    time.Time // when a job was first seen with nothing more to try
}

// lostAfter is how long a job has to look lost: a failed task waits a moment for
// the managers to replace it.
const lostAfter = 3 * time.Second

// NewWatch starts following a service. The name is what the user called it.
func NewWatch(name string) *Watch { return &Watch{name: name} }

// Converged reports whether every task was running at the last look.
func (w *Watch) Converged() bool { return !w.since.IsZero() || w.completed }

// RolledBack reports whether the last update was undone, or is being.
func (w *Watch) RolledBack() bool { return w.rollback }

// Observe folds one look into the display. It returns done when there is nothing more to wait for, with an error if
// the service did not become what was asked.
func (w *Watch) Observe(o Observation, now time.Time) (f Frame, done bool, err error) {
	f = w.frame(o)
	allRunning := f.met

	if u := o.Service.UpdateStatus; u != nil {
		switch u.State {
		case swarm.UpdateStatePaused:
			return f, true, fmt.Errorf("service update paused: %s\nsee 'shoal service logs %s'; go on with 'shoal service update', or back with 'shoal service rollback %s'", u.Message, w.name, w.name)
		case swarm.UpdateStateRollbackPaused:
			return f, true, fmt.Errorf("service rollback paused: %s", u.Message)
		case swarm.UpdateStateRollbackStarted:
			w.rollback = true
			f.Note = "rollback: " + u.Message
			// An update that is being undone has not converged, whatever is running.
			allRunning = allRunning && u.CompletedAt != nil
		case swarm.UpdateStateRollbackCompleted:
			w.rollback = true
			f.Note = "rollback: " + u.Message
		case swarm.UpdateStateUpdating:
			w.updating = true
			// The nodes whose turn has not come have no task that one could count.
			allRunning = allRunning && o.Service.Spec.Mode.Global == nil
		case swarm.UpdateStateCompleted:
			if w.updating && !stopped(o.Service) && !allRunning && w.since.IsZero() {
				// Told to continue over failures, the server is done; waiting for the failed tasks may take forever.
				if !strings.Contains(u.Message, " with failures ") {
					// Others than those it replaced, such as more replicas, may still be on their way.
					f.Verify = fmt.Sprintf("Service %s updated, not all of its tasks are running", w.name)
					return f, true, nil
				}
				return f, true, fmt.Errorf("service updated, but not all of its tasks are running: %s\nsee 'shoal service ps %s'; back with 'shoal service rollback %s'", u.Message, w.name, w.name)
			}
		}
	}

	if f.lost == 0 {
		w.lostAt = time.Time{}
	} else if w.lostAt.IsZero() {
		w.lostAt = now
	}
	switch {
	case stopped(o.Service):
		if u := o.Service.UpdateStatus; u != nil && u.State == swarm.UpdateStateCompleted {
			w.completed = true
			f.Verify = fmt.Sprintf("Service %s stopped", w.name)
			return f, true, nil
		}
		return f, false, nil
	case f.job && f.lost > 0 && now.Sub(w.lostAt) >= lostAfter:
		return f, true, fmt.Errorf("job failed: %d of its tasks may not be tried again", f.lost)
	case f.job && allRunning:
		w.completed = true
		f.Verify = "job complete"
		return f, true, nil
	case f.job:
		return f, false, nil
	case f.lost > 0 && !w.atWork(o) && now.Sub(w.lostAt) >= lostAfter:
		return f, true, fmt.Errorf("%d of the tasks failed and may not be tried again: %s", f.lost, f.why)
	case !allRunning && !w.since.IsZero():
		w.since, w.unstable = time.Time{}, true
	case allRunning && w.since.IsZero():
		w.since, w.unstable = now, false
	}

	switch remaining := w.monitor(o.Service) - now.Sub(w.since); {
	case w.unstable:
		f.Verify = "Detected task failure"
	case w.since.IsZero():
	case remaining <= 0:
		f.Verify = fmt.Sprintf("Service %s converged", w.name)
		return f, true, nil
	default:
		f.Verify = "Waiting"
		f.Remaining = time.Duration(math.Ceil(remaining.Seconds())) * time.Second
	}
	return f, false, nil
}

// atWork tells whether an update is under way, which says itself how it ends.
func (w *Watch) atWork(o Observation) bool {
	u := o.Service.UpdateStatus
	return u != nil && (u.State == swarm.UpdateStateUpdating || u.State == swarm.UpdateStateRollbackStarted)
}

func (w *Watch) monitor(s swarm.Service) time.Duration {
	config := s.Spec.UpdateConfig
	if w.rollback {
		config = s.Spec.RollbackConfig
	}
	if config != nil && config.Monitor != 0 {
		return config.Monitor
	}
	return defaultMonitor
}
