package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestTaskFails: whatever befalls a task, its error says it in a line, and the
// service's other tasks do not notice.
func TestTaskFails(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "good", "--replicas", "2", "--publish", "8080:80", testbed.WebV1)
	good := ids(t, h, "good")
	l := startLoad(t, outside, url(h, "8080"))

	launch := func(name string, args ...string) {
		t.Helper()
		testbed.Must(t, h.Shoal(append([]string{"service", "create", "-d", "--no-resolve-image", "--name", name}, args...)...))
	}
	launch("noimage", testbed.Web+":none")
	launch("nocommand", testbed.WebV1, "/bin/none", "at", "all")
	launch("crash", "--env", "CRASH_AFTER=100ms", testbed.WebV1)
	launch("once", "--restart-condition", "none", testbed.WebV1, "sh", "-c", "exit 3")
	launch("sick", "--env", "HEALTH=fail", "--publish", "8081:80", "--health-cmd", "webapp healthcheck",
		"--health-interval", "100ms", "--health-retries", "2", testbed.WebV1)

	says(t, h, "noimage", "noimage.1", "Rejected", "No such image: "+testbed.Web+":none")
	says(t, h, "nocommand", "nocommand.1", "Failed", "/bin/none", "no such file or directory")
	says(t, h, "crash", "crash.1", "Failed", "task: non-zero exit (1)")
	says(t, h, "once", "once.1", "Failed", "task: non-zero exit (3)")
	says(t, h, "sick", "sick.1", "Failed", "unhealthy container")
	for name, why := range map[string]string{"noimage": "No such image", "nocommand": "/bin/none", "crash": "exit (1)", "sick": "unhealthy"} {
		// The wait grows, and is shown with what it is about.
		says(t, h, name, "restart ", " waits until ", " UTC after ", " failures in a row: ", why)
	}
	for _, line := range history(t, h, "noimage", "{{.Error}}") {
		if strings.Contains(line, "\n") || len(line) > 240 {
			t.Errorf("an error of more than a line: %q", line)
		}
	}
	if n := len(history(t, h, "once", "{{.ID}}")); n != 1 {
		t.Errorf("a task that was not to be restarted has %d", n)
	}
	if err := reach(outside, h.IP.String()+":8081"); err == nil {
		t.Error("a task that was never healthy answers")
	}
	l.unharmed(t)
	if after := ids(t, h, "good"); !maps.Equal(good, after) {
		t.Errorf("tasks of another service were replaced: %v, before %v", after, good)
	}
	if out := testbed.Must(t, h.Shoal("service", "ls", "--format", "{{.Name}} {{.Replicas}}")); missing(out, "good 2/2", "noimage 0/1", "crash 0/1") != "" {
		t.Errorf("service ls:\n%s", out)
	}

	// A cause that goes away is noticed without help; an update does not wait
	// for it.
	testbed.Must(t, h.EngineDocker("tag", testbed.WebV1, testbed.Web+":none"))
	testbed.Eventually(t, patience, running(t, h, "noimage", 1))
	testbed.Must(t, h.Shoal("service", "update", "--update-monitor", "300ms", "--env-rm", "CRASH_AFTER", "crash"))
	if err := running(t, h, "crash", 1)(); err != nil {
		t.Error(err)
	}
}

// TestContainerLost: a container that somebody stops, kills or removes is
// replaced, and the task says what was found.
func TestContainerLost(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "web", "--replicas", "3", "--publish", "8080:80", "--restart-delay", "100ms", testbed.WebV1)
	for _, c := range []struct {
		do    []string
		words []string
	}{
		{[]string{"rm", "-f"}, []string{"Failed", "container was removed outside of shoal"}},
		{[]string{"kill"}, []string{"Failed", "task: non-zero exit (137)"}},
		{[]string{"stop"}, []string{"Failed", "container was stopped outside of shoal"}}, // with exit code 0
	} {
		before := ids(t, h, "web")
		victim := tasks(t, h, "web")[0]
		testbed.Must(t, h.EngineDocker(append(c.do, containerOf(victim))...))
		testbed.Eventually(t, patience, func() error {
			if _, still := ids(t, h, "web")[victim.ID]; still {
				return fmt.Errorf("after %s: task %s is still wanted", c.do[0], victim.ID)
			}
			return running(t, h, "web", 3)()
		})
		says(t, h, "web", append(c.words, fmt.Sprintf("web.%d", victim.Slot))...)
		for task, id := range ids(t, h, "web") {
			if was, known := before[task]; known && was != id {
				t.Errorf("after %s: task %s has another container", c.do[0], task)
			}
		}
		for _, task := range tasks(t, h, "web") {
			if before[task.ID] == "" && task.Slot != victim.Slot {
				t.Errorf("after %s: slot %d has a new task, too", c.do[0], task.Slot)
			}
		}
		if _, err := answers(outside, url(h, "8080"), 3); err != nil {
			t.Error(err)
		}
	}
}

// TestHealth: a task gets connections while it is healthy, and is replaced when
// it no longer is.
func TestHealth(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	args := append([]string{"-d", "--name", "web", "--replicas", "2", "--publish", "8080:80", "--env", "HEALTHY_AFTER=1500ms"}, healthy...)
	create(t, h, append(args, "--health-retries", "20", testbed.WebV1)...)
	testbed.Eventually(t, patience, func() error {
		for _, task := range tasks(t, h, "web") {
			if task.Status.State != swarm.TaskStateStarting {
				return fmt.Errorf("task %s is %s", task.ID, task.Status.State)
			}
		}
		return nil
	})
	if err := reach(outside, h.IP.String()+":8080"); err == nil {
		t.Error("tasks that are not healthy yet answer")
	}
	testbed.Eventually(t, patience, running(t, h, "web", 2))
	both, err := answers(outside, url(h, "8080"), 2)
	if err != nil {
		t.Fatal(err)
	}

	// One falls ill: it is told so over the mesh itself.
	a, err := outside.Get(url(h, "8080") + "health/fail")
	if err != nil || both[a.Task].Task == "" {
		t.Fatalf("%v, %v", a, err)
	}
	said := says(t, h, "web", "Failed", "unhealthy container")
	t.Log(said)
	testbed.Eventually(t, patience, running(t, h, "web", 2))
	testbed.Eventually(t, patience, func() error {
		now, err := answers(outside, url(h, "8080"), 2)
		if _, still := now[a.Task]; still {
			return fmt.Errorf("the task that fell ill answers")
		}
		return err
	})
}

// TestGrace: a task gets its stop signal and its time; one that does not heed
// it is killed after that.
func TestGrace(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "slow", "--publish", "8080:80", "--stop-grace-period", "20s", testbed.WebV1)
	create(t, h, "--name", "deaf", "--env", "IGNORE_TERM=1", "--stop-grace-period", "1s", testbed.WebV1)
	container := anyTask(t, h, "slow").id

	// A request that is being answered when its task is stopped is answered to
	// the end; meanwhile nobody new gets there.
	type result struct {
		testbed.Answer
		error
	}
	answered := make(chan result, 1)
	go func() {
		a, err := outside.Get(url(h, "8080") + "slow?ms=3000")
		answered <- result{a, err}
	}()
	testbed.Eventually(t, patience, func() error { return connected(h, "8080") })
	testbed.Must(t, h.Shoal("service", "rm", "slow"))
	testbed.Eventually(t, patience, func() error {
		if err := reach(outside, h.IP.String()+":8080"); err == nil {
			return fmt.Errorf("a task that is being stopped gets new connections")
		}
		return nil
	})
	if a := <-answered; a.error != nil || a.Code != 200 || a.Hostname != container[:12] {
		t.Errorf("the request under way got %+v, %v", a.Answer, a.error)
	}

	begin := time.Now()
	testbed.Must(t, h.Shoal("service", "rm", "deaf"))
	testbed.Eventually(t, patience, func() error {
		if all := containers(t, h, "com.docker.swarm.service.name"); len(all) != 0 {
			return fmt.Errorf("containers remain: %v", all)
		}
		return nil
	})
	if took := time.Since(begin); took < time.Second {
		t.Errorf("a task that ignores its stop signal was gone after %s", took)
	}
}

// connected tells whether the node tracks a connection to a published port.
func connected(h *testbed.Host, port string) error {
	r := h.Run(context.Background(), "conntrack", "-L", "-p", "tcp", "--dport", port, "--state", "ESTABLISHED")
	if !strings.Contains(r.Stdout, "dport="+port) {
		return fmt.Errorf("nobody is connected to port %s: %s%s", port, r.Stdout, r.Stderr)
	}
	return nil
}
