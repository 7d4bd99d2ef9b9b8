package task

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/internal/api"
)

func TestNext(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	died := now.Add(-time.Hour)
	created := &Container{ID: "c", Phase: Created}
	running := &Container{ID: "c", Phase: Running, PID: 7}
	with := func(c Container, f func(*Container)) *Container { f(&c); return &c }
	exited := func(code int) *Container {
		return &Container{ID: "c", Phase: Exited, ExitCode: code, FinishedAt: died}
	}

	const (
		runIt   = swarm.TaskStateRunning
		ready   = swarm.TaskStateReady
		endIt   = swarm.TaskStateShutdown
		unheard = swarm.TaskStateAssigned
	)
	tests := []struct {
		name      string
		desired   swarm.TaskState
		state     swarm.TaskState
		err       string // said of it already
		unhealthy bool   // known of it already
		container *Container
		pulled    bool
		hold      time.Duration // left of the wait for other nodes

		do     action
		become swarm.TaskState
		says   string
		turns  bool // unhealthy
		at     time.Time
	}{
		{name: "new task is accepted", desired: runIt, state: unheard, become: swarm.TaskStateAccepted},
		{name: "image comes first", desired: runIt, state: swarm.TaskStateAccepted, do: pull},
		{name: "then the container", desired: runIt, state: swarm.TaskStatePreparing, pulled: true, do: create},
		{name: "half made container is finished", desired: runIt, state: swarm.TaskStatePreparing, container: created, do: create},
		{name: "prepared only", desired: ready, state: swarm.TaskStateReady, container: created},
		{name: "start what is ready", desired: runIt, state: swarm.TaskStateReady, container: created, do: start},
		{name: "jobs start too", desired: swarm.TaskStateComplete, state: swarm.TaskStateReady, container: created, do: start},
		{name: "start again after an interruption", desired: runIt, state: swarm.TaskStateStarting, container: created, do: start},
		{name: "runs", desired: runIt, state: swarm.TaskStateStarting, container: running, become: swarm.TaskStateRunning},
		{name: "runs on", desired: runIt, state: swarm.TaskStateRunning, container: running},
		{name: "adopted though never heard of", desired: runIt, state: unheard, container: running, become: swarm.TaskStateRunning},
		{
			name: "not running before it is healthy", desired: runIt, state: swarm.TaskStateStarting,
			container: with(*running, func(c *Container) { c.Health = Starting }),
		},
		{
			name: "healthy", desired: runIt, state: swarm.TaskStateStarting,
			container: with(*running, func(c *Container) { c.Health = Healthy }), become: swarm.TaskStateRunning,
		},
		{
			name: "unhealthy is said before it is stopped", desired: runIt, state: swarm.TaskStateRunning,
			container: with(*running, func(c *Container) { c.Health = Unhealthy }),
			become:    swarm.TaskStateRunning, says: "dockerexec: unhealthy container", turns: true,
		},
		{
			name: "with what its check says", desired: runIt, state: swarm.TaskStateRunning,
			container: with(*running, func(c *Container) { c.Health, c.Complaint = Unhealthy, "no database" }),
			become:    swarm.TaskStateRunning, says: "dockerexec: unhealthy container: no database", turns: true,
		},
		{name: "an error on a task that runs is for people", desired: runIt, state: swarm.TaskStateRunning, err: "restart waits", container: running},
		{
			name: "nor does it make its end a failure", desired: runIt, state: swarm.TaskStateRunning, err: "restart waits",
			container: exited(0), become: swarm.TaskStateComplete, at: died,
		},
		{
			name: "then it is stopped, even if it recovers", desired: runIt, state: swarm.TaskStateRunning, unhealthy: true,
			container: with(*running, func(c *Container) { c.Health = Healthy }), do: stop,
		},
		{
			name: "and has failed", desired: runIt, state: swarm.TaskStateRunning, unhealthy: true, container: exited(143),
			become: swarm.TaskStateFailed, says: "task: non-zero exit (143): dockerexec: unhealthy container", at: died,
		},
		{
			name: "and has failed, with what its check said", desired: runIt, state: swarm.TaskStateRunning, unhealthy: true,
			container: with(*exited(143), func(c *Container) { c.Complaint = "no database" }),
			become:    swarm.TaskStateFailed, says: "task: non-zero exit (143): dockerexec: unhealthy container: no database", at: died,
		},
		{
			name: "and has failed, politely", desired: runIt, state: swarm.TaskStateRunning, unhealthy: true, container: exited(0),
			become: swarm.TaskStateFailed, says: "dockerexec: unhealthy container", at: died,
		},
		{name: "done", desired: runIt, state: swarm.TaskStateRunning, container: exited(0), become: swarm.TaskStateComplete, at: died},
		{name: "done at once", desired: runIt, state: swarm.TaskStateStarting, container: exited(0), become: swarm.TaskStateComplete, at: died},
		{
			name: "crashed", desired: runIt, state: swarm.TaskStateRunning, container: exited(1),
			become: swarm.TaskStateFailed, says: "task: non-zero exit (1)", at: died,
		},
		{
			name: "out of memory", desired: runIt, state: swarm.TaskStateRunning,
			container: with(*exited(137), func(c *Container) { c.OOMKilled = true }),
			become:    swarm.TaskStateFailed, says: "task: non-zero exit (137): OOM killed", at: died,
		},
		{
			name: "a start that failed while we were away", desired: runIt, state: swarm.TaskStateStarting,
			container: with(*created, func(c *Container) { c.Error = "no such file"; c.ExitCode = 127 }),
			become:    swarm.TaskStateFailed, says: "starting container failed: no such file",
		},
		{
			name: "removed behind our back", desired: runIt, state: swarm.TaskStateRunning,
			become: swarm.TaskStateFailed, says: "container was removed outside of shoal",
		},
		{
			name: "removed before it started", desired: runIt, state: swarm.TaskStateReady,
			become: swarm.TaskStateFailed, says: "container was removed outside of shoal",
		},
		{
			name: "replaced by one that never ran", desired: runIt, state: swarm.TaskStateRunning, container: created,
			become: swarm.TaskStateFailed, says: "container is not running",
		},
		{name: "stop", desired: endIt, state: swarm.TaskStateRunning, container: running, do: stop},
		{name: "no stop while others may send it connections", desired: endIt, state: swarm.TaskStateRunning, container: running, hold: time.Second},
		{name: "nor for ever", desired: endIt, state: swarm.TaskStateRunning, container: running, hold: -time.Second, do: stop},
		{name: "what has stopped waits for nobody", desired: endIt, state: swarm.TaskStateRunning, container: exited(0), hold: time.Second, become: swarm.TaskStateShutdown},
		{name: "stop while starting", desired: endIt, state: swarm.TaskStateStarting, container: running, do: stop},
		{name: "stopped", desired: endIt, state: swarm.TaskStateRunning, container: exited(143), become: swarm.TaskStateShutdown},
		{name: "nothing to stop", desired: endIt, state: unheard, become: swarm.TaskStateShutdown},
		{name: "made but not wanted", desired: endIt, state: swarm.TaskStateReady, container: created, become: swarm.TaskStateShutdown},
		{name: "remove is stop until it is gone", desired: swarm.TaskStateRemove, state: swarm.TaskStateRunning, container: running, do: stop},
		{name: "the dead stay for their logs", desired: endIt, state: swarm.TaskStateShutdown, container: exited(143)},
		{name: "the dead stay dead", desired: runIt, state: swarm.TaskStateFailed, container: exited(1)},
		{name: "the dead do not run", desired: runIt, state: swarm.TaskStateFailed, container: running, do: stop},
		{name: "no second try", desired: runIt, state: swarm.TaskStateRejected},
		{name: "gone and running", desired: gone, state: swarm.TaskStateRunning, container: running, do: stop},
		{name: "gone and dead", desired: gone, state: swarm.TaskStateShutdown, container: exited(0), do: remove},
		{name: "gone and made", desired: gone, state: swarm.TaskStateReady, container: created, do: remove},
		{name: "gone altogether", desired: gone, state: swarm.TaskStateShutdown, do: forget},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := situation{
				desired: tt.desired, status: status{TaskStatus: swarm.TaskStatus{State: tt.state, Err: tt.err}, Unhealthy: tt.unhealthy},
				container: tt.container, pulled: tt.pulled,
			}
			if tt.hold != 0 {
				s.hold = now.Add(tt.hold)
			}
			st := next(s, now)
			if st.do != tt.do {
				t.Errorf("does %s, want %s", st.do, tt.do)
			}
			if (st.status != nil) != (tt.become != "") {
				t.Fatalf("status %+v, want %q", st.status, tt.become)
			}
			if st.status == nil {
				return
			}
			if st.status.State != tt.become || st.status.Err != tt.says {
				t.Errorf("becomes %s %q, want %s %q", st.status.State, st.status.Err, tt.become, tt.says)
			}
			if st.status.Unhealthy != tt.turns {
				t.Errorf("unhealthy is %v, want %v", st.status.Unhealthy, tt.turns)
			}
			if at := tt.at; !at.IsZero() && !st.status.Timestamp.Equal(at) {
				t.Errorf("at %s, want %s", st.status.Timestamp, at)
			}
		})
	}
}

func TestErrorsAreBrief(t *testing.T) {
	long := strings.Repeat("é", maxError)
	st := situation{status: status{TaskStatus: swarm.TaskStatus{State: swarm.TaskStatePreparing}}}.done(create, errors.New(long), time.Now())
	if err := st.status.Err; len(err) > maxError+3 || !utf8.ValidString(err) || !strings.HasPrefix(long, strings.TrimSuffix(err, "...")) {
		t.Errorf("%d bytes: %s", len(err), err)
	}
}

// Whatever happens, in whatever order, a task never goes backwards, never
// starts twice, and comes to rest.
func TestNextOnlyForwards(t *testing.T) {
	desires := []swarm.TaskState{gone, swarm.TaskStateReady, swarm.TaskStateRunning, swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateRemove}
	phases := []Phase{Created, Running, Exited}
	healths := []Health{NoHealth, Starting, Healthy, Unhealthy}
	rapid.Check(t, func(t *rapid.T) {
		s := situation{status: status{TaskStatus: swarm.TaskStatus{State: swarm.TaskStateAssigned}}}
		now := time.Unix(0, 0)
		started := false
		for range rapid.IntRange(1, 30).Draw(t, "length") {
			s.desired = rapid.SampledFrom(desires).Draw(t, "desired")
			s.pulled = rapid.Bool().Draw(t, "pulled")
			s.container = nil
			if rapid.Bool().Draw(t, "container") {
				s.container = &Container{
					Phase:    rapid.SampledFrom(phases).Draw(t, "phase"),
					Health:   rapid.SampledFrom(healths).Draw(t, "health"),
					ExitCode: rapid.SampledFrom([]int{0, 1, 137}).Draw(t, "code"),
				}
			}
			for turns := 0; ; turns++ {
				if turns > 10 {
					t.Fatalf("never rests: %+v", s)
				}
				st := next(s, now)
				if st.status == nil {
					if st.do == start {
						if api.Terminal(s.status.State) {
							t.Fatalf("starts a task that is %s", s.status.State)
						}
						started = true
					}
					break
				}
				if api.Before(st.status.State, s.status.State) {
					t.Fatalf("from %s back to %s", s.status.State, st.status.State)
				}
				if api.Terminal(s.status.State) {
					t.Fatalf("from %s, which is an end, to %s", s.status.State, st.status.State)
				}
				s.status = *st.status
			}
			if started && api.Before(s.status.State, swarm.TaskStateReady) {
				t.Fatalf("started while %s", s.status.State)
			}
		}
	})
}
