package task

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Words that users of Docker Swarm know, and that tools look for.
const (
	errUnhealthy  = "dockerexec: unhealthy container"
	errRemoved    = "container was removed outside of shoal"
	errNotRunning = "container is not running"
	errCut        = "stopped with its engine"
	errStopped    = "container was stopped outside of shoal"
	oomKilled     = "OOM killed"
)

// gone is the desired state of a task that the managers no longer list.
const gone swarm.TaskState = ""

// action is one thing that can be done to a task's container.
type action int

const (
	nothing action = iota
	inspect
	pull
	create
	start
	stop
	remove
	forget // nothing is left of the task
)

func (a action) String() string {
	return [...]string{"nothing", "inspect", "pull", "create", "start", "stop", "remove", "forget"}[a]
}

// status is what is known of a task. Its Err is for people: the managers write
// there, too, and nothing is decided by it.
type status struct {
	swarm.TaskStatus
	// Unhealthy is set once a running container was found so: it is to stop.
	Unhealthy bool `json:",omitempty"`
	// Restarts is how often in a row the container was started again in place.
	Restarts int `json:",omitempty"`
}

func statusOf(t *api.Task) status { return status{TaskStatus: t.Status, Unhealthy: t.Unhealthy} }

// situation is all that decides what happens to a task next.
type situation struct {
	desired   swarm.TaskState
	status    status     // what was last known and reported
	container *Container // nil when there is none
	cut       bool       // the container ended because its engine did
	pulled    bool       // the image was seen to
	hold      time.Time  // until when a stop waits at most; zero if others need not be waited for

	alone    time.Time // since when no manager speaks to this node; zero while one does
	policy   *swarm.RestartPolicy
	attempts int // of the slot, in a row, as the managers count them
}

// step is one step in the life of a task: either its status changes, or
// something is to be done about its container. The zero step is rest.
type step struct {
	status *status
	do     action
	at     time.Time // in a rest: when to look again; zero when something happens
}

// next decides one step. It never leads from a state to an earlier one.
func next(s situation, now time.Time) step {
	switch {
	case s.desired == gone:
		return dispose(s)
	case api.Terminal(s.status.State):
		// Whatever brought the task to its end, nothing of it may run on.
		if s.running() {
			return step{do: stop}
		}
		return step{}
	case stopWanted(s.desired):
		switch {
		case s.running() && now.Before(s.hold):
			return step{at: s.hold}
		case s.running():
			return step{do: stop}
		}
		return s.become(swarm.TaskStateShutdown, "shutdown", "", now)
	}
	if st := s.observe(now); st.status != nil || st.do != nothing || !st.at.IsZero() {
		return st
	}
	return s.advance(now)
}

// dispose removes what is left of a task that nobody wants to know about.
func dispose(s situation) step {
	switch {
	case s.container == nil:
		return step{do: forget}
	case s.running():
		return step{do: stop}
	}
	return step{do: remove}
}

// observe lets the status follow the container, which knows better.
func (s situation) observe(now time.Time) step {
	c, state := s.container, s.status.State
	if c == nil {
		if api.Before(state, swarm.TaskStateReady) {
			return step{} // it was not made yet
		}
		return s.become(swarm.TaskStateFailed, s.status.Message, errRemoved, now)
	}
	switch c.Phase {
	case Created:
		switch {
		case state == swarm.TaskStateRunning:
			return s.become(swarm.TaskStateFailed, s.status.Message, errNotRunning, now)
		case state == swarm.TaskStateStarting && c.Error != "":
			return s.become(swarm.TaskStateFailed, s.status.Message, startFailed(c.Error), now)
		}
	case Running:
		switch {
		case s.status.Unhealthy:
			return step{do: stop}
		case c.Health == Unhealthy:
			// The state stays until the container has stopped: a replacement
			// that comes before that would find its ports and volumes taken.
			// The managers only send it no more traffic.
			st := s.become(state, "stopping", unhealthy(c), now)
			st.status.Unhealthy = true
			return st
		case c.Health == Starting && api.Before(state, swarm.TaskStateRunning):
			if state != swarm.TaskStateStarting {
				return s.become(swarm.TaskStateStarting, "starting", "", now)
			}
		case api.Before(state, swarm.TaskStateRunning):
			return s.become(swarm.TaskStateRunning, "started", "", now)
		case state == swarm.TaskStateRunning && s.otherProcess():
			return s.become(state, s.status.Message, s.status.Err, now)
		}
	case Exited:
		if s.revivable() {
			return s.revive(now)
		}
		at := now
		if !c.FinishedAt.IsZero() {
			at = c.FinishedAt
		}
		switch {
		case state == swarm.TaskStateStarting && c.Error != "":
			return s.become(swarm.TaskStateFailed, s.status.Message, startFailed(c.Error), at)
		case s.status.Unhealthy:
			return s.become(swarm.TaskStateFailed, "started", exitError(c, unhealthy(c)), at)
		case c.ExitCode == 0 && s.cut:
			return s.become(swarm.TaskStateFailed, "started", errCut, at)
		case c.ExitCode == 0 && c.Signalled:
			return s.become(swarm.TaskStateFailed, "started", errStopped, at)
		case c.ExitCode == 0:
			return s.become(swarm.TaskStateComplete, "finished", "", at)
		}
		return s.become(swarm.TaskStateFailed, "started", exitError(c, ""), at)
	}
	return step{}
}

// advance takes a task that goes well one step further towards what is wanted.
func (s situation) advance(now time.Time) step {
	switch state := s.status.State; {
	case api.Before(state, swarm.TaskStateAccepted):
		return s.become(swarm.TaskStateAccepted, "accepted", "", now)
	case api.Before(state, swarm.TaskStateReady):
		if s.container == nil && !s.pulled {
			return step{do: pull}
		}
		// A container that is there already may lack networks: the daemon may
		// have ended while it was made.
		return step{do: create}
	case state == swarm.TaskStateReady, state == swarm.TaskStateStarting:
		if s.container.Phase == Created && !api.Before(s.desired, swarm.TaskStateRunning) {
			return step{do: start}
		}
	}
	return step{}
}

// begun is the status that an action gives a task when it begins.
func (s situation) begun(do action, now time.Time) step {
	switch {
	case (do == pull || do == create) && api.Before(s.status.State, swarm.TaskStatePreparing):
		return s.become(swarm.TaskStatePreparing, "preparing", "", now)
	case do == start && s.status.State == swarm.TaskStateRunning:
		return s.revived(now)
	case do == start && api.Before(s.status.State, swarm.TaskStateStarting):
		return s.become(swarm.TaskStateStarting, "starting", "", now)
	}
	return step{}
}

// done is the status that follows from how an action on the task ended. An
// error that says nothing about the task must not come here.
func (s situation) done(do action, err error, now time.Time) step {
	if api.Terminal(s.status.State) {
		return step{}
	}
	switch {
	case err == nil && do == create:
		return s.become(swarm.TaskStateReady, "prepared", "", now)
	case err != nil && (do == pull || do == create):
		return s.become(swarm.TaskStateRejected, "preparing", err.Error(), now)
	case do == start && s.status.State == swarm.TaskStateRunning:
		return step{} // the container is where it was, and is tried again later
	case err != nil && do == start:
		return s.become(swarm.TaskStateFailed, "starting", startFailed(err.Error()), now)
	}
	return step{}
}

// interrupts tells whether an action under way has lost its point. Only a pull
// is worth cutting short: the engine carries on with anything else, and whoever
// no longer waits for it does not learn what came of it.
func interrupts(desired swarm.TaskState, doing action) bool {
	return doing == pull && (desired == gone || stopWanted(desired))
}

// stopWanted tells whether a desired state means that the task must not run.
// COMPLETE, which jobs are wanted to reach, means the opposite.
func stopWanted(desired swarm.TaskState) bool {
	return !api.Before(desired, swarm.TaskStateShutdown)
}

// otherProcess tells whether the container was started again since the status
// was taken.
func (s situation) otherProcess() bool {
	was := s.status.ContainerStatus
	return was != nil && was.ContainerID == s.container.ID && s.container.PID != 0 && was.PID != s.container.PID
}

func (s situation) running() bool { return s.container != nil && s.container.Phase == Running }

// become is the step to a new status, which takes its details from the
// container.
func (s situation) become(state swarm.TaskState, message, err string, at time.Time) step {
	st := status{TaskStatus: swarm.TaskStatus{Timestamp: at.UTC(), State: state, Message: message, Err: brief(err)}, Restarts: s.status.Restarts}
	if c := s.container; c != nil {
		st.ContainerStatus = &swarm.ContainerStatus{ContainerID: c.ID, PID: c.PID, ExitCode: c.ExitCode}
		st.PortStatus.Ports = c.Ports
	} else {
		st.ContainerStatus = s.status.ContainerStatus
	}
	return step{status: &st}
}

// maxError bounds an error, in bytes. Engines and runtimes quote what they were
// given; in a log and in a line of a table its beginning says enough.
const maxError = 1 << 10

func brief(err string) string {
	if len(err) <= maxError {
		return err
	}
	return strings.ToValidUTF8(err[:maxError], "") + "..."
}

// unhealthy says what is held against a container, and what its check said of it.
func unhealthy(c *Container) string {
	if c.Complaint == "" {
		return errUnhealthy
	}
	return errUnhealthy + ": " + c.Complaint
}

func startFailed(why string) string { return "starting container failed: " + why }

// exitError says why a container's end is a failure. Cause is what was held
// against it while it still ran.
func exitError(c *Container, cause string) string {
	switch {
	case c.ExitCode == 0:
		return cause
	case c.OOMKilled:
		cause = oomKilled
	case cause == "":
		cause = c.Error
	}
	if cause == "" {
		return fmt.Sprintf("task: non-zero exit (%d)", c.ExitCode)
	}
	return fmt.Sprintf("task: non-zero exit (%d): %s", c.ExitCode, cause)
}
