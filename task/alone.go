package task

import (
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// A node that no manager speaks to keeps its tasks alive by itself: a container
// that ends is started again in place, where the restart policy of its revision
// says so. It stays the same task, RUNNING, because a task never goes backwards
// and only managers make new ones. Once they are back they decide again.

const (
	// patience is how long a node is without managers before it acts by itself:
	// several times what they need to elect a leader, who may want otherwise.
	patience = 5 * time.Second
	// reviveMin and reviveMax bound the back-off between two starts.
	reviveMin = time.Second
	reviveMax = 5 * time.Minute
	// stableRun is how long a container must have run for its end to count as
	// the first again, where its policy has no window.
	stableRun = time.Minute
)

// revivable tells whether a task's container that ended would be started again
// here, if no managers came back. Only what was seen running is: what fails to
// start is for the managers to judge.
func (s situation) revivable() bool {
	if s.alone.IsZero() || s.status.State != swarm.TaskStateRunning || s.desired != swarm.TaskStateRunning {
		return false
	}
	p := s.policy
	if p == nil {
		return true
	}
	switch p.Condition {
	case swarm.RestartPolicyConditionNone:
		return false
	case swarm.RestartPolicyConditionOnFailure:
		if s.container.ExitCode == 0 && !s.status.Unhealthy && !s.cut && !s.container.Signalled {
			return false
		}
	}
	most := p.MaxAttempts
	return most == nil || *most == 0 || s.stable() || uint64(s.attempts+s.status.Restarts) < *most
}

// revive starts a container again when it is time.
func (s situation) revive(now time.Time) step {
	at := s.alone.Add(patience)
	if due := s.ended().Add(s.backOff()); due.After(at) {
		at = due
	}
	if now.Before(at) {
		return step{at: at}
	}
	return step{do: start}
}

// ended is when the container ended, or was last tried to be started.
func (s situation) ended() time.Time {
	if at := s.container.FinishedAt; at.After(s.status.Timestamp) {
		return at
	}
	return s.status.Timestamp
}

// stable tells whether the container had run long enough for its end to say
// nothing about its start.
func (s situation) stable() bool {
	window := stableRun
	if p := s.policy; p != nil && p.Window != nil && *p.Window > 0 {
		window = *p.Window
	}
	return s.ended().Sub(s.status.Timestamp) >= window
}

// inARow is how many restarts count.
func (s situation) inARow() int {
	if s.stable() {
		return 0
	}
	return s.status.Restarts
}

func (s situation) backOff() time.Duration {
	wait := reviveMin
	if p := s.policy; p != nil && p.Delay != nil {
		wait = max(wait, *p.Delay)
	}
	for range s.inARow() {
		if wait >= reviveMax {
			break
		}
		wait = min(2*wait, reviveMax)
	}
	return wait
}

// revived is the status of a task whose container is being started again.
func (s situation) revived(now time.Time) step {
	n := s.inARow() + 1
	times := "once"
	if n > 1 {
		times = fmt.Sprintf("%d times", n)
	}
	st := s.become(swarm.TaskStateRunning, "started again "+times+" while no manager was there", "", now)
	st.status.Restarts = n
	return st
}
