package task_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/task"
	"shoal/task/fake"
)

// networked is a state in which task a is on a network.
func networked(m *managers) *api.NodeState {
	s := m.want(swarm.TaskStateRunning, "a")
	s.Tasks["a"].Task.Networks = []api.Attachment{{NetworkID: "net"}}
	s.Networks = map[string]*api.Network{"net": {Meta: api.Meta{ID: "net"}}}
	return s
}

// without is the state after it, with neither.
func without(m *managers) *api.NodeState {
	s := m.want("gone", "a")
	s.Networks = nil
	return s
}

func has(t *testing.T, e *fake.Engine, want ...string) {
	t.Helper()
	if got := e.Networks(); !slices.Equal(got, want) {
		t.Errorf("the engine has the networks %v, want %v", got, want)
	}
}

func TestNetworksGoWithTheirLastTask(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(networked(m))
		settle()
		has(t, e, "net")
		w.Set(without(m))
		settle()
		has(t, e)
	})
}

// The network goes from the state before the container goes from the engine,
// which answers slowly: what it said is out of date when it is heard.
func TestNetworksGoThoughTheyWereInUse(t *testing.T) {
	for _, stop := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		scenario(t, fake.Config{Stop: stop, Networks: 200 * time.Millisecond}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
			w.Set(networked(m))
			settle()
			pass(time.Second)
			w.Set(without(m))
			pass(time.Second)
			has(t, e)
		})
	}
}

// A container that is no task's keeps a network for as long as it likes, and no
// event tells of its end.
func TestNetworksGoWhenStrangersLeaveThem(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(networked(m))
		settle()
		e.Occupy("net", true)
		w.Set(without(m))
		pass(10 * time.Second)
		has(t, e, "net")
		e.Occupy("net", false)
		pass(30 * time.Second)
		has(t, e)
	})
}

func TestNetworksAreTriedAgain(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	fail := func(op, _ string) error {
		if op == "SyncNetworks" && broken.Load() {
			return errors.New("no")
		}
		return nil
	}
	scenario(t, fake.Config{Fail: fail}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(networked(m))
		settle()
		w.Set(without(m))
		pass(3 * time.Second)
		has(t, e, "net")
		broken.Store(false)
		pass(5 * time.Second)
		has(t, e)
	})
}

// A container is being made for a task when its network is removed: the engine
// has it again after it was looked at.
func TestNetworksGoThatWereMadeMeanwhile(t *testing.T) {
	scenario(t, fake.Config{Create: 500 * time.Millisecond}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(networked(m))
		pass(100 * time.Millisecond)
		w.Set(without(m))
		pass(time.Second)
		if len(e.Calls("Create")) != 1 {
			t.Fatal("the container was not being made: this shows nothing")
		}
		has(t, e)
	})
}

func TestNetworksGoWithAnEngineThatWasAway(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		w.Set(networked(m))
		settle()
		e.Away()
		settle()
		w.Set(without(m))
		pass(time.Minute)
		has(t, e, "net")
		e.Back()
		pass(5 * time.Second)
		has(t, e)
	})
}

// TestNetworksGoWithADaemonThatWasAway: the managers' first word to a new one is
// compared with what its engine has.
func TestNetworksGoWithADaemonThatWasAway(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, _ *task.Worker) {
		e.Occupy("net", true)
		e.Occupy("net", false)
		w, stop := run(t, task.Config{Executor: e, Report: m.report})
		defer stop()
		w.Set(m.want(swarm.TaskStateRunning, "b"))
		settle()
		has(t, e)
	})
}

func TestAttachableNetworksAreOnEveryEngine(t *testing.T) {
	scenario(t, fake.Config{}, func(t *testing.T, e *fake.Engine, m *managers, w *task.Worker) {
		s := m.want(swarm.TaskStateRunning)
		s.Networks = map[string]*api.Network{
			"open": {Meta: api.Meta{ID: "open"}, Spec: swarm.NetworkSpec{Attachable: true}},
			"shut": {Meta: api.Meta{ID: "shut"}},
		}
		w.Set(s)
		settle()
		has(t, e, "open")
		s = m.want(swarm.TaskStateRunning)
		s.Networks = nil
		w.Set(s)
		settle()
		has(t, e)
	})
}
