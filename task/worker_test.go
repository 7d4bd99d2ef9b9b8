package task_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/internal/api"
	"shoal/task"
	"shoal/task/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = "c1"

// managers stand in for the rest of the cluster: they say what is wanted and
// note what is reported.
type managers struct {
	mu      sync.Mutex
	state   *api.NodeState
	history map[string][]swarm.TaskState
	status  map[string]swarm.TaskStatus
	batches int
	block   chan struct{} // when set, Report waits for it
}

func newManagers() *managers {
	return &managers{
		state:   &api.NodeState{ClusterID: cluster, Node: &api.Node{}, Tasks: map[string]*api.Assignment{}},
		history: map[string][]swarm.TaskState{}, status: map[string]swarm.TaskStatus{},
	}
}

func (m *managers) report(rs []api.TaskReport) {
	m.mu.Lock()
	m.batches++
	for _, r := range rs {
		m.history[r.TaskID] = append(m.history[r.TaskID], r.Status.State)
		m.status[r.TaskID] = r.Status
	}
	block := m.block
	m.mu.Unlock()
	if block != nil {
		<-block
	}
}

// want gives a new state in which some tasks are wanted otherwise; "gone"
// removes one.
func (m *managers) want(desired swarm.TaskState, ids ...string) *api.NodeState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := api.Clone(m.state)
	s.Index++
	s.Tasks = map[string]*api.Assignment{}
	for id, a := range m.state.Tasks {
		s.Tasks[id] = a
	}
	for _, id := range ids {
		if desired == "gone" {
			delete(s.Tasks, id)
			continue
		}
		t := &api.Task{
			Meta: api.Meta{ID: id}, ServiceID: "s", Revision: "r1", Slot: 1, NodeID: "n1",
			Status: swarm.TaskStatus{State: swarm.TaskStateAssigned}, DesiredState: desired,
		}
		if old := s.Tasks[id]; old != nil {
			t = api.Clone(old.Task)
			t.DesiredState = desired
		}
		spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web"}}
		spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "x"}
		if strings.HasPrefix(id, "checked") {
			spec.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}}
		}
		s.Tasks[id] = &api.Assignment{Task: t, Revision: &api.Revision{Meta: api.Meta{ID: "r1"}, Spec: spec}, RegistryAuth: "c2VjcmV0"}
	}
	m.state = s
	return s
}

func (m *managers) expect(t *testing.T, id string, state swarm.TaskState, says string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if st := m.status[id]; st.State != state || st.Err != says {
		t.Errorf("task %s is %q %q, want %q %q (was %v)", id, st.State, st.Err, state, says, m.history[id])
	}
}

// run starts a worker in the test's bubble, and gives what ends it.
func run(t *testing.T, cfg task.Config, first ...func(*task.Worker)) (*task.Worker, func()) {
	t.Helper()
	w := task.New(cfg)
	for _, f := range first {
		f(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return w, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// scenario runs a story with one engine and one worker.
func scenario(t *testing.T, cfg fake.Config, story func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, m := fake.New(cfg), newManagers()
		w, end := run(t, task.Config{Executor: e, Report: m.report, Starts: 2, StateDir: t.TempDir()})
		defer end()
		story(t, e, m, w)
	})
}

// settle lets everything happen that can happen without time passing.
func settle() { synctest.Wait() }

// pass lets time pass as well.
func pass(d time.Duration) {
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
}

func TestTaskRunsAndIsStopped(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateReady, "a"))
		settle()
		m.expect(t, "a", swarm.TaskStateReady, "")
		if c := e.Container("a"); c == nil || c.Phase != task.Created {
			t.Fatalf("prepared container: %+v", c)
		}
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if m.status["a"].ContainerStatus.PID == 0 {
			t.Error("no PID reported")
		}
		w.Set(m.want(swarm.TaskStateShutdown, "a"))
		settle()
		m.expect(t, "a", swarm.TaskStateShutdown, "")
		if c := e.Container("a"); c == nil || c.Phase != task.Exited {
			t.Errorf("the stopped container is kept for its logs, got %+v", c)
		}
		w.Set(m.want("gone", "a"))
		settle()
		if c := e.Container("a"); c != nil {
			t.Errorf("container of a task that is gone: %+v", c)
		}
	})
}

// TestStopWaitsForOtherNodes: the managers say when no other node sends a task
// new connections any more. They may also never say it.
func TestStopWaitsForOtherNodes(t *testing.T) {
	draining := func(s *api.NodeState, yes bool) *api.NodeState {
		s.Tasks["a"].Draining = yes
		return s
	}
	runs := func(t *testing.T, e *fake.Engine, yes bool) {
		t.Helper()
		if c := e.Container("a"); (c.Phase == task.Running) != yes {
			t.Fatalf("container is %+v", c)
		}
	}
	begin := func(m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		w.Set(draining(m.want(swarm.TaskStateShutdown, "a"), true))
		settle()
	}
	t.Run("said", func(t *testing.T) {
		scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
			begin(m, w)
			runs(t, e, true)
			m.expect(t, "a", swarm.TaskStateRunning, "")
			w.Set(draining(m.want(swarm.TaskStateShutdown, "a"), false))
			settle()
			runs(t, e, false)
			m.expect(t, "a", swarm.TaskStateShutdown, "")
		})
	})
	t.Run("never said", func(t *testing.T) {
		scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
			begin(m, w)
			w.Online(false)
			pass(9 * time.Second)
			runs(t, e, true)
			w.Online(true)
			w.Set(draining(m.want(swarm.TaskStateShutdown, "a"), true)) // a new leader begins anew
			pass(time.Second)
			runs(t, e, false)
			m.expect(t, "a", swarm.TaskStateShutdown, "")
		})
	})
	t.Run("forgotten meanwhile", func(t *testing.T) {
		scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
			begin(m, w)
			w.Set(m.want("gone", "a"))
			settle()
			if c := e.Container("a"); c != nil {
				t.Errorf("left: %+v", c)
			}
		})
	})
}

func TestEndsAreToldAsTheyWere(t *testing.T) {
	ends := []struct {
		name  string
		end   func(*fake.Engine, string)
		state swarm.TaskState
		says  string
	}{
		{"done", func(e *fake.Engine, id string) { e.Exit(id, 0) }, swarm.TaskStateComplete, ""},
		{"crash", func(e *fake.Engine, id string) { e.Exit(id, 3) }, swarm.TaskStateFailed, "task: non-zero exit (3)"},
		{"oom", func(e *fake.Engine, id string) { e.OOM(id) }, swarm.TaskStateFailed, "task: non-zero exit (137): OOM killed"},
		{"removed", func(e *fake.Engine, id string) { e.Delete(id) }, swarm.TaskStateFailed, "container was removed outside of shoal"},
		{"unhealthy", func(e *fake.Engine, id string) { e.SetHealth(id, task.Unhealthy) }, swarm.TaskStateFailed, "task: non-zero exit (143): dockerexec: unhealthy container"},
	}
	for _, tt := range ends {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
				w.Set(m.want(swarm.TaskStateRunning, "a", "b"))
				settle()
				tt.end(e, "a")
				settle()
				m.expect(t, "a", tt.state, tt.says)
				m.expect(t, "b", swarm.TaskStateRunning, "")
				pass(5 * time.Minute)
				if n := len(e.Calls("Start")); n != 2 {
					t.Errorf("%d starts: a task restarted", n)
				}
			})
		})
	}
}

// An unhealthy container keeps its ports until it has stopped, so that its
// replacement must not come sooner; but it gets no more traffic.
func TestUnhealthyTaskIsMarkedWhileItStops(t *testing.T) {
	scenario(t, fake.Config{Stop: 10 * time.Second}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "checked"))
		settle()
		m.expect(t, "checked", swarm.TaskStateStarting, "")
		e.SetHealth("checked", task.Healthy)
		settle()
		m.expect(t, "checked", swarm.TaskStateRunning, "")
		e.SetHealth("checked", task.Unhealthy)
		settle()
		m.expect(t, "checked", swarm.TaskStateRunning, "dockerexec: unhealthy container")
		pass(10 * time.Second)
		m.expect(t, "checked", swarm.TaskStateFailed, "task: non-zero exit (143): dockerexec: unhealthy container")
	})
}

func TestFailuresOfTheEngine(t *testing.T) {
	for _, tt := range []struct {
		op, says string
		state    swarm.TaskState
	}{
		{"Pull", "No such image: x", swarm.TaskStateRejected},
		{"Create", "invalid mount", swarm.TaskStateRejected},
		{"Start", "starting container failed: executable file not found", swarm.TaskStateFailed},
	} {
		t.Run(tt.op, func(t *testing.T) {
			fail := func(op, id string) error {
				if op == tt.op && id == "a" {
					return errors.New(strings.TrimPrefix(tt.says, "starting container failed: "))
				}
				return nil
			}
			scenario(t, fake.Config{Fail: fail}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
				w.Set(m.want(swarm.TaskStateRunning, "a", "b"))
				settle()
				m.expect(t, "a", tt.state, tt.says)
				m.expect(t, "b", swarm.TaskStateRunning, "")
				pass(5 * time.Minute)
				if n := len(e.Calls(tt.op)); n != 2 {
					t.Errorf("%d calls of %s: the task was tried again", n, tt.op)
				}
			})
		})
	}
}

// A container that will not stop is asked again, less and less often.
func TestStopIsTriedAgain(t *testing.T) {
	var stuck atomic.Bool
	stuck.Store(true)
	fail := func(op, _ string) error {
		if op == "Stop" && stuck.Load() {
			return errors.New("cannot kill container")
		}
		return nil
	}
	scenario(t, fake.Config{Fail: fail}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		w.Set(m.want(swarm.TaskStateShutdown, "a"))
		pass(time.Minute)
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if n := len(e.Calls("Stop")); n < 4 || n > 8 {
			t.Errorf("%d attempts within a minute", n)
		}
		stuck.Store(false)
		pass(time.Minute)
		m.expect(t, "a", swarm.TaskStateShutdown, "")
	})
}

func TestRestartAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m, dir := fake.New(fake.Config{}), newManagers(), t.TempDir()
		cfg := task.Config{Executor: e, Report: m.report, StateDir: dir}
		w, end := run(t, cfg)
		w.Set(m.want(swarm.TaskStateRunning, "a", "b", "c"))
		settle()
		end()
		e.Exit("b", 9) // while nobody looks
		e.Add(cluster, "stranger", task.Running)
		e.Add("another cluster", "foreign", task.Running)

		// No manager yet: everything is left as it is, and told.
		w, end = run(t, cfg)
		pass(time.Hour)
		m.expect(t, "a", swarm.TaskStateRunning, "")
		m.expect(t, "b", swarm.TaskStateFailed, "task: non-zero exit (9)")
		for _, id := range []string{"a", "c", "stranger", "foreign"} {
			if c := e.Container(id); c == nil || c.Phase != task.Running {
				t.Errorf("container of %s: %+v", id, c)
			}
		}
		if n := len(e.Calls("Create")); n != 3 {
			t.Errorf("%d creates", n)
		}

		// The managers speak: now what they do not know goes.
		w.Set(m.want("gone", "c"))
		settle()
		for id, there := range map[string]bool{"a": true, "b": true, "c": false, "stranger": false, "foreign": true} {
			if got := e.Container(id) != nil; got != there {
				t.Errorf("container of %s there: %v, want %v", id, got, there)
			}
		}
		if n := len(e.Calls("Create")) + len(e.Calls("Start")); n != 6 {
			t.Errorf("%d creates and starts, want those of the first run", n)
		}
		end()
	})
}

// The end of a task is remembered when its container is gone too.
func TestRestartRemembersEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m := fake.New(fake.Config{}), newManagers()
		cfg := task.Config{Executor: e, Report: m.report, StateDir: t.TempDir()}
		w, end := run(t, cfg)
		s := m.want(swarm.TaskStateRunning, "a")
		w.Set(s)
		settle()
		e.Exit("a", 0)
		settle()
		m.expect(t, "a", swarm.TaskStateComplete, "")
		end()
		e.Delete("a")
		w, end = run(t, cfg)
		w.Set(s) // managers that did not hear of it
		settle()
		m.expect(t, "a", swarm.TaskStateComplete, "")
		end()
	})
}

func TestStateFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m, dir := fake.New(fake.Config{}), newManagers(), filepath.Join(t.TempDir(), "worker")
		cfg := task.Config{Executor: e, Report: m.report, StateDir: dir}
		w, end := run(t, cfg)
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		end()
		path := filepath.Join(dir, "tasks.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "c2VjcmV0") {
			t.Error("credentials on disk")
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %o", info.Mode().Perm())
		}
		// Half a file is as good as none.
		if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		w, end = run(t, cfg)
		w.Set(m.state)
		settle()
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if n := len(e.Calls("Create")); n != 1 {
			t.Errorf("%d creates", n)
		}
		end()
	})
}

func TestEngineOutage(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a", "b", "c"))
		settle()
		e.Away()
		settle()
		e.Exit("b", 137)
		e.Delete("c")
		w.Set(m.want(swarm.TaskStateRunning, "d"))
		pass(10 * time.Minute)
		for _, id := range []string{"a", "b", "c"} {
			m.expect(t, id, swarm.TaskStateRunning, "") // its last truth
		}
		m.expect(t, "d", "", "")
		e.Back()
		pass(3 * time.Second)
		m.expect(t, "a", swarm.TaskStateRunning, "")
		m.expect(t, "b", swarm.TaskStateFailed, "task: non-zero exit (137)")
		m.expect(t, "c", swarm.TaskStateFailed, "container was removed outside of shoal")
		m.expect(t, "d", swarm.TaskStateRunning, "")
	})
}

// A container that its engine stops, as it is stopped itself, may well end with
// exit code 0. That is no end of its task's own, and what is to run is to be
// replaced; one that ended by itself before, or does after, is done.
func TestStoppedWithItsEngine(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "done", "with", "before", "after"))
		settle()
		e.Exit("done", 0)
		settle()
		e.Mute(true)
		e.Exit("before", 0) // nobody has looked when the engine goes
		pass(10 * time.Second)
		e.Away()
		settle()
		e.Exit("with", 0)
		pass(3 * time.Second)
		e.Mute(false)
		e.Back()
		pass(3 * time.Second)
		m.expect(t, "done", swarm.TaskStateComplete, "")
		m.expect(t, "with", swarm.TaskStateFailed, "stopped with its engine")
		m.expect(t, "before", swarm.TaskStateComplete, "")
		e.Exit("after", 0)
		settle()
		m.expect(t, "after", swarm.TaskStateComplete, "")
	})
}

// What the engine was doing when it went away goes on when it is back.
func TestOutageDuringWork(t *testing.T) {
	for _, at := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond, 2500 * time.Millisecond} {
		t.Run(at.String(), func(t *testing.T) {
			cfg := fake.Config{Pull: time.Second, Create: time.Second, Start: time.Second}
			scenario(t, cfg, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
				w.Set(m.want(swarm.TaskStateRunning, "a"))
				pass(at)
				e.Away()
				pass(time.Minute)
				e.Back()
				pass(time.Minute)
				m.expect(t, "a", swarm.TaskStateRunning, "")
			})
		})
	}
}

func TestNewestStateWins(t *testing.T) {
	scenario(t, fake.Config{Pull: time.Minute}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		m.expect(t, "a", swarm.TaskStatePreparing, "")
		w.Set(m.want(swarm.TaskStateRunning, "a", "b"))
		w.Set(m.want(swarm.TaskStateShutdown, "a"))
		w.Set(m.want("gone", "b"))
		settle() // a minute's pull is not waited for
		m.expect(t, "a", swarm.TaskStateShutdown, "")
		pass(5 * time.Minute)
		if n := len(e.Calls("Create")); n != 0 {
			t.Errorf("%d creates of what nobody wants", n)
		}
	})
}

func TestStartsAreBounded(t *testing.T) {
	cfg := fake.Config{Pull: time.Millisecond, Create: 50 * time.Millisecond, Start: 100 * time.Millisecond, Stop: 10 * time.Second}
	scenario(t, cfg, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		var ids []string
		for i := range 40 {
			ids = append(ids, fmt.Sprintf("t%02d", i))
		}
		w.Set(m.want(swarm.TaskStateRunning, ids...))
		pass(200 * time.Millisecond)
		if made := len(e.Calls("Create")); len(e.Calls("Start")) == 0 || made > 10 {
			t.Errorf("%d made, none started: the first wait for the last", made)
		}
		pass(4 * time.Second)
		for _, id := range ids {
			m.expect(t, id, swarm.TaskStateRunning, "")
		}
		if n := e.Most("Start"); n > 2 {
			t.Errorf("%d starts at once", n)
		}
		if n := e.Most("Create"); n > 2 {
			t.Errorf("%d creates at once", n)
		}
		// Stops have a bound of their own, and do not hold up starts.
		w.Set(m.want(swarm.TaskStateShutdown, ids...))
		w.Set(m.want(swarm.TaskStateRunning, "late"))
		pass(time.Second)
		m.expect(t, "late", swarm.TaskStateRunning, "")
		if n := e.Most("Stop"); n != 16 {
			t.Errorf("%d stops at once, want 16", n)
		}
		pass(time.Minute)
		for _, id := range ids {
			m.expect(t, id, swarm.TaskStateShutdown, "")
		}
	})
}

func TestReportsAreCoalesced(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		m.block = make(chan struct{})
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle() // the first report waits for the managers
		w.Set(m.want(swarm.TaskStateRunning, "b", "c", "d"))
		settle()
		e.Exit("b", 1)
		settle()
		if m.batches != 1 {
			t.Fatalf("%d reports while the first is under way", m.batches)
		}
		close(m.block)
		settle()
		if m.batches != 2 {
			t.Errorf("%d reports, want all that waited in one", m.batches)
		}
		m.expect(t, "b", swarm.TaskStateFailed, "task: non-zero exit (1)")
		m.expect(t, "d", swarm.TaskStateRunning, "")
	})
}

// An event may be lost; the truth is not, only late.
func TestResyncFindsWhatNoEventTold(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a", "b"))
		settle()
		e.Mute(true)
		e.Exit("a", 1)
		e.Delete("b")
		e.Add(cluster, "stranger", task.Running)
		settle()
		m.expect(t, "a", swarm.TaskStateRunning, "")
		pass(2 * time.Minute)
		m.expect(t, "a", swarm.TaskStateFailed, "task: non-zero exit (1)")
		m.expect(t, "b", swarm.TaskStateFailed, "container was removed outside of shoal")
		if e.Container("stranger") != nil {
			t.Error("a container whose task nobody knows is still there")
		}
	})
}
