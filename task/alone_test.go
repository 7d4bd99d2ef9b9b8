package task

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestNextAlone(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	container := func(p Phase, code int) *Container {
		return &Container{ID: "c", Phase: p, ExitCode: code, FinishedAt: ago(time.Second)}
	}
	never := &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone}
	onFailure := &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure}
	two, minute := uint64(2), time.Minute
	twice := &swarm.RestartPolicy{MaxAttempts: &two}
	slowly := &swarm.RestartPolicy{Delay: &minute}

	const (
		running = swarm.TaskStateRunning
		hour    = time.Hour
	)
	tests := []struct {
		name      string
		alone     time.Duration // for how long; 0 is not at all
		desired   swarm.TaskState
		state     swarm.TaskState
		ran       time.Duration // since when in this state
		unhealthy bool
		restarts  int
		attempts  int
		policy    *swarm.RestartPolicy
		container *Container

		do     action
		wait   time.Duration // from now
		become swarm.TaskState
	}{
		{name: "with managers", ran: hour, container: container(Exited, 1), become: swarm.TaskStateFailed},
		{name: "alone", alone: hour, ran: hour, container: container(Exited, 1), do: start},
		{name: "done is done no more", alone: hour, ran: hour, container: container(Exited, 0), do: start},
		{name: "not for long enough", alone: time.Second, ran: hour, container: container(Exited, 1), wait: patience - time.Second},
		{name: "runs on", alone: hour, ran: hour, container: container(Running, 0)},
		{name: "never", alone: hour, ran: hour, policy: never, container: container(Exited, 1), become: swarm.TaskStateFailed},
		{name: "on failure", alone: hour, ran: hour, policy: onFailure, container: container(Exited, 1), do: start},
		{name: "on failure, done", alone: hour, ran: hour, policy: onFailure, container: container(Exited, 0), become: swarm.TaskStateComplete},
		{name: "on failure, sick", alone: hour, ran: hour, policy: onFailure, unhealthy: true, container: container(Exited, 0), do: start},
		{name: "the second in a row waits longer", alone: hour, ran: 2 * time.Second, restarts: 1, container: container(Exited, 1), wait: time.Second},
		{name: "the fifth longer still", alone: hour, ran: 2 * time.Second, restarts: 4, container: container(Exited, 1), wait: 15 * time.Second},
		{name: "but not for ever", alone: hour, ran: 2 * time.Second, restarts: 400, container: container(Exited, 1), wait: reviveMax - time.Second},
		{name: "after a long run it is the first", alone: hour, ran: hour, restarts: 400, container: container(Exited, 1), do: start},
		{name: "the policy's delay", alone: hour, ran: hour, policy: slowly, container: container(Exited, 1), wait: minute - time.Second},
		{name: "attempts are left", alone: hour, ran: 5 * time.Second, restarts: 1, policy: twice, container: container(Exited, 1), wait: time.Second},
		{name: "no attempts are left", alone: hour, ran: 5 * time.Second, restarts: 2, policy: twice, container: container(Exited, 1), become: swarm.TaskStateFailed},
		{name: "the managers' count, too", alone: hour, ran: 5 * time.Second, restarts: 1, attempts: 1, policy: twice, container: container(Exited, 1), become: swarm.TaskStateFailed},
		{name: "a long run ends the row", alone: hour, ran: hour, restarts: 2, policy: twice, container: container(Exited, 1), do: start},
		{name: "never seen running", alone: hour, state: swarm.TaskStateStarting, ran: hour, container: container(Exited, 1), become: swarm.TaskStateFailed},
		{name: "to be stopped", alone: hour, desired: swarm.TaskStateShutdown, ran: hour, container: container(Exited, 1), become: swarm.TaskStateShutdown},
		{name: "no longer there", alone: hour, ran: hour, become: swarm.TaskStateFailed},
		{name: "dead before", alone: hour, state: swarm.TaskStateFailed, ran: hour, container: container(Exited, 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := situation{
				desired: running, container: tt.container, policy: tt.policy, attempts: tt.attempts,
				status: status{TaskStatus: swarm.TaskStatus{State: running, Timestamp: ago(tt.ran)}, Unhealthy: tt.unhealthy, Restarts: tt.restarts},
			}
			if tt.alone != 0 {
				s.alone = ago(tt.alone)
			}
			if tt.desired != "" {
				s.desired = tt.desired
			}
			if tt.state != "" {
				s.status.State = tt.state
			}
			st := next(s, now)
			var state swarm.TaskState
			if st.status != nil {
				state = st.status.State
			}
			var wait time.Duration
			if !st.at.IsZero() {
				wait = st.at.Sub(now)
			}
			if st.do != tt.do || state != tt.become || wait != tt.wait {
				t.Errorf("does %s, becomes %q, waits %s; want %s, %q, %s", st.do, state, wait, tt.do, tt.become, tt.wait)
			}
		})
	}
}

func TestStartedAgainIsTold(t *testing.T) {
	was := &swarm.ContainerStatus{ContainerID: "c", PID: 7}
	s := situation{
		desired: swarm.TaskStateRunning, alone: time.Unix(1, 0),
		status:    status{TaskStatus: swarm.TaskStatus{State: swarm.TaskStateRunning, ContainerStatus: was, Timestamp: time.Unix(8, 0)}, Unhealthy: true, Restarts: 1},
		container: &Container{ID: "c", Phase: Exited, ExitCode: 1, FinishedAt: time.Unix(9, 0)},
	}
	now := time.Unix(20, 0)
	st := s.begun(start, now).status
	if st.Restarts != 2 || st.Unhealthy || st.State != swarm.TaskStateRunning || st.Message != "started again 2 times while no manager was there" {
		t.Fatalf("%+v", st)
	}
	s.status, s.container = *st, &Container{ID: "c", Phase: Running, PID: 8}
	st = next(s, now).status
	if st == nil || st.ContainerStatus.PID != 8 || st.Message != s.status.Message || st.Restarts != 2 {
		t.Fatalf("%+v", st)
	}
	s.status = *st
	if again := next(s, now); again.status != nil || again.do != nothing {
		t.Fatalf("no rest: %+v", again)
	}
}
