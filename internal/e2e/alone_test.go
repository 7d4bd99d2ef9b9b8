package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestNoManagers loses the only manager's host: on the worker everything goes
// on, what crashes is started again, and a daemon that restarts changes nothing.
// The manager, when it is back, finds the tasks that it knew.
func TestNoManagers(t *testing.T) {
	bed := swarmOf(t, 1, 1)
	manager, worker := bed.Host(0), bed.Host(1)
	create(t, manager, "--name", "web", "--replicas", "2", "--publish", "8080:80", "--constraint", "node.role==worker", testbed.WebV1)
	create(t, manager, "--name", "once", "--restart-condition", "none", "--constraint", "node.role==worker", testbed.WebV1)
	testbed.Eventually(t, patience, running(t, manager, "web", 2))
	testbed.Eventually(t, patience, running(t, manager, "once", 1))
	web, once := tasks(t, manager, "web"), tasks(t, manager, "once")
	page := url(worker, "8080")
	// A container runs before its server listens.
	serve := func() error {
		_, err := answers(bed.Client(), page, 2)
		return err
	}
	testbed.Eventually(t, patience, serve)

	// A host that lost its power answers nothing: in a bed its kernel would.
	if err := manager.LinkDown(); err != nil {
		t.Fatal(err)
	}
	do(t, manager.Crash)
	// What ends before the node has noticed is the managers' to judge.
	testbed.Eventually(t, patience, func() error {
		if log := strings.Join(logLines(t, worker), "\n"); !strings.Contains(log, "session lost") {
			return errNotYet
		}
		return nil
	})
	crash(t, worker, web[0], once[0])
	runs(t, worker, web[0])
	testbed.Eventually(t, patience, serve)

	before := mustLive(t, worker, "web")
	do(t, worker.KillShoal)
	crash(t, worker, web[1])
	do(t, startShoal(worker))
	runs(t, worker, web[1])
	if now := mustLive(t, worker, "web"); now[web[0].ID] != before[web[0].ID] {
		t.Errorf("a restart of the daemon touched a container: %v, was %v", now, before)
	}
	testbed.Eventually(t, patience, serve)
	if in := inspect(t, worker, containerOf(once[0])); in.State.Running {
		t.Error("a container was started again against its restart policy")
	}
	before = mustLive(t, worker, "web")

	if err := manager.LinkUp(); err != nil {
		t.Fatal(err)
	}
	do(t, manager.StartEngine)
	do(t, startShoal(manager))
	testbed.Eventually(t, patience, func() error { return told(manager, worker, web) })
	untouched(t, worker, "web", before)
	says(t, manager, "once", "Failed", "task: non-zero exit")
	if got := history(t, manager, "web", "{{.ID}}"); len(got) != len(web) {
		t.Errorf("tasks of web are %v, want the %d there were", got, len(web))
	}
}

// crash kills the containers of tasks as their own failure would end them.
func crash(t *testing.T, h *testbed.Host, of ...swarm.Task) {
	t.Helper()
	for _, task := range of {
		testbed.Must(t, h.EngineDocker("kill", containerOf(task)))
	}
}

// runs waits until a task's very container runs again.
func runs(t *testing.T, h *testbed.Host, task swarm.Task) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		if in := inspect(t, h, containerOf(task)); !in.State.Running || in.RestartCount != 0 {
			return fmt.Errorf("container of task %s: %+v", task.ID, in.State)
		}
		return nil
	})
}

// told fails unless a manager knows these tasks to run as they do.
func told(manager, worker *testbed.Host, want []swarm.Task) error {
	api, err := manager.API()
	if err != nil {
		return err
	}
	defer api.Close()
	engine, err := worker.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, task := range want {
		now, _, err := api.TaskInspectWithRaw(ctx, task.ID)
		if err != nil {
			return err
		}
		in, err := engine.ContainerInspect(ctx, containerOf(task))
		if err != nil {
			return err
		}
		st := now.Status
		if st.State != swarm.TaskStateRunning || st.ContainerStatus.PID != in.State.Pid || !strings.Contains(st.Message, "started again once") {
			return fmt.Errorf("the manager knows of task %s: %+v %+v; its process is %d", task.ID, st, st.ContainerStatus, in.State.Pid)
		}
	}
	return nil
}
