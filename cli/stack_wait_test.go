package cli

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/progress"
	"shoal/internal/compose"
)

// TestFollower shows a follower one thing again and again, and asks after a minute what became of the service.
func TestFollower(t *testing.T) {
	task := func(id string, slot int, state swarm.TaskState, err string) swarm.Task {
		return swarm.Task{ID: id, Slot: slot, DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: state, Err: err}}
	}
	before, now := time.Unix(1, 0), time.Unix(100, 0)
	status := func(state swarm.UpdateState, started time.Time) *swarm.UpdateStatus {
		return &swarm.UpdateStatus{State: state, StartedAt: &started, Message: "why"}
	}
	running := []swarm.Task{task("a", 1, swarm.TaskStateRunning, "")}
	failing := []swarm.Task{
		task("a", 1, swarm.TaskStateFailed, "exit 1"), task("b", 1, swarm.TaskStateFailed, "exit 1"), task("c", 1, swarm.TaskStateRejected, "exit 1"),
		task("d", 1, swarm.TaskStatePending, "restart waits: exit 1"),
	}
	for name, test := range map[string]struct {
		tasks   []swarm.Task
		update  *swarm.UpdateStatus
		applied applied
		done    bool
		code    int
		failed  string
	}{
		"runs":          {running, nil, applied{changed: true}, true, 0, ""},
		"is as it was":  {running, nil, applied{}, true, 0, ""},
		"on its way":    {[]swarm.Task{task("a", 1, swarm.TaskStatePreparing, "")}, nil, applied{changed: true}, false, 0, ""},
		"fails":         {failing, nil, applied{changed: true}, true, exitFailed, "a"},
		"failed before": {failing, nil, applied{}, false, 0, ""},
		"was failing": {
			append(failing[:3:3], task("d", 1, swarm.TaskStatePending, "restart 7 waits until 12:00:00 UTC after 7 failures in a row: exit 1")),
			nil,
			applied{},
			true, exitFailed, "a",
		},
		"failed once more, long after": {
			append(failing[:3:3], task("d", 1, swarm.TaskStatePending, "restart waits until 12:00:00 UTC after a failure: exit 1")),
			nil,
			applied{},
			false, 0, "",
		},
		"given up":           {failing[:1], nil, applied{changed: true}, true, exitFailed, "a"},
		"waits to try again": {failing[2:], nil, applied{changed: true}, false, 0, "c"},
		"no node":            {[]swarm.Task{task("a", 1, swarm.TaskStatePending, "no suitable node (x)")}, nil, applied{changed: true}, true, exitUnplaceable, "a"},
		"paused":             {failing[:1], status(swarm.UpdateStatePaused, now), applied{changed: true, before: status(swarm.UpdateStateCompleted, before)}, true, exitFailed, "a"},
		"updating":           {failing, status(swarm.UpdateStateUpdating, now), applied{changed: true}, false, 0, "a"},
		"back":               {running, status(swarm.UpdateStateRollbackCompleted, now), applied{changed: true}, true, exitRolledBack, ""},
		"back long ago": {
			running, status(swarm.UpdateStateRollbackCompleted, before),
			applied{changed: true, before: status(swarm.UpdateStateRollbackCompleted, before)},
			true, 0, "",
		},
		"back before, and not changed": {running, status(swarm.UpdateStateRollbackCompleted, before), applied{}, true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			one := uint64(1)
			var service swarm.Service
			service.Spec.Name = "st_web"
			service.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &one}
			service.UpdateStatus = test.update
			f := newFollower(compose.Service{Spec: service.Spec}, test.applied)
			for second := 0; second < 60 && !f.done; second++ {
				f.see(progress.Observation{Service: service, Tasks: test.tasks}, now.Add(time.Duration(second)*time.Second))
			}
			failed := ""
			if f.failed != nil {
				failed = f.failed.ID
			}
			if f.done != test.done || f.code != test.code || failed != test.failed {
				t.Errorf("done %v, code %d (%s), failed task %q; want %v, %d, %q", f.done, f.code, f.why, failed, test.done, test.code, test.failed)
			}
		})
	}
}
