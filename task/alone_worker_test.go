package task_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/task"
	"shoal/task/fake"
)

func alone(w *task.Worker) { w.Online(false) }

func starts(e *fake.Engine) int { return len(e.Calls("Start")) }

// Without managers a container that ends is started again, less and less often;
// with them it is theirs to say what comes.
func TestAloneContainersAreStartedAgain(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a", "b"))
		w.Online(true)
		settle()
		pid := m.status["a"].ContainerStatus.PID
		w.Online(false)
		e.Exit("a", 1)
		pass(4 * time.Second)
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if n := starts(e); n != 2 {
			t.Fatalf("%d starts while managers may come back at any moment", n)
		}
		pass(time.Second)
		if c := e.Container("a"); c.Phase != task.Running {
			t.Fatalf("alone: %+v", c)
		}
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if st := m.status["a"]; st.ContainerStatus.PID == pid || !strings.Contains(st.Message, "started again once") {
			t.Errorf("told %+v %+v", st, st.ContainerStatus)
		}

		before := starts(e)
		for range 100 {
			if e.Container("a").Phase == task.Running {
				e.Exit("a", 1)
			}
			pass(10 * time.Second)
		}
		if n := starts(e) - before; n < 6 || n > 12 {
			t.Errorf("%d starts of a crash loop in 1000 s", n)
		}
		if len(e.Calls("Create")) != 2 {
			t.Error("a container was made")
		}

		pass(5 * time.Minute)
		e.Exit("a", 3)
		settle()
		w.Online(true)
		settle()
		m.expect(t, "a", swarm.TaskStateFailed, "task: non-zero exit (3)")
		m.expect(t, "b", swarm.TaskStateRunning, "")
		before = starts(e)
		w.Online(false)
		pass(time.Hour)
		if starts(e) != before {
			t.Error("what has failed was started again")
		}
	})
}

// A leader that is elected in time hears of an end as ever.
func TestAMomentWithoutManagers(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		w.Online(false)
		e.Exit("a", 3)
		pass(time.Second)
		w.Online(true)
		settle()
		m.expect(t, "a", swarm.TaskStateFailed, "task: non-zero exit (3)")
		pass(time.Hour)
		if starts(e) != 1 {
			t.Error("started again")
		}
	})
}

// A start that fails is tried again, and is no end of the task.
func TestAloneAStartFails(t *testing.T) {
	var broken atomic.Bool
	fail := func(op, _ string) error {
		if op == "Start" && broken.Load() {
			return errors.New("port is already allocated")
		}
		return nil
	}
	scenario(t, fake.Config{Fail: fail}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(m.want(swarm.TaskStateRunning, "a"))
		settle()
		w.Online(false)
		broken.Store(true)
		e.Exit("a", 1)
		pass(time.Minute)
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if n := starts(e) - 1; n < 3 || n > 6 {
			t.Errorf("%d attempts in a minute", n)
		}
		broken.Store(false)
		pass(time.Minute)
		if c := e.Container("a"); c.Phase != task.Running {
			t.Errorf("%+v", c)
		}
	})
}

// A daemon that restarts while there are no managers knows from its disk what
// ran, and starts that again, and nothing else.
func TestAloneAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, m, dir := fake.New(fake.Config{}), newManagers(), t.TempDir()
		cfg := task.Config{Executor: e, Report: m.report, StateDir: dir}
		w, end := run(t, cfg)
		w.Set(m.want(swarm.TaskStateRunning, "a", "b", "checked"))
		w.Set(m.want(swarm.TaskStateReady, "prepared"))
		settle()
		known := m.state
		end()
		e.Exit("a", 9)       // while nobody looks
		e.Exit("checked", 9) // it never ran well
		e.Add(cluster, "stranger", task.Exited)

		before := starts(e)
		_, end = run(t, cfg, alone)
		pass(time.Hour)
		for id, phase := range map[string]task.Phase{"a": task.Running, "b": task.Running, "checked": task.Exited, "prepared": task.Created, "stranger": task.Exited} {
			if c := e.Container(id); c == nil || c.Phase != phase {
				t.Errorf("%s: %+v, want %s", id, c, phase)
			}
		}
		if n := starts(e) - before; n != 1 {
			t.Errorf("%d starts", n)
		}
		end()

		// Once more, so that only the disk knows; then managers that do not.
		m.status["a"] = swarm.TaskStatus{}
		w, end = run(t, cfg, alone)
		settle()
		task := *known.Tasks["a"].Task
		task.Status.State = swarm.TaskStateRunning
		task.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: e.Container("a").ID, PID: 1}
		known.Tasks["a"].Task = &task
		w.Set(known)
		w.Online(true)
		settle()
		m.expect(t, "a", swarm.TaskStateRunning, "")
		if st := m.status["a"].ContainerStatus; st == nil || st.PID != e.Container("a").PID {
			t.Errorf("told %+v of %+v", st, e.Container("a"))
		}
		end()
	})
}
