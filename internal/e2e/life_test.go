package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestCreate: the commands wait and tell how it goes, in lines where nothing
// can be repainted, or return at once.
func TestCreate(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	out := testbed.Must(t, h.Shoal("service", "create", "--name", "web", "--replicas", "2", "--update-monitor", "300ms",
		"--no-resolve-image", "--label", "tier=front", "--container-label", "kind=test", "--env", "A=1", testbed.WebV1))
	all := lines(out)
	id := service(t, h, "web").ID
	if all[0] != id {
		t.Errorf("the first line is %q, want the ID %s", all[0], id)
	}
	contains(t, out, "overall progress: 0 out of 2 tasks", "1/2: running", "2/2: running",
		"overall progress: 2 out of 2 tasks", "verify: Service web converged")
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("what is not a terminal is repainted: %q", out)
	}
	if err := running(t, h, "web", 2)(); err != nil {
		t.Errorf("create returned too early: %v", err)
	}

	// On a terminal the lines are repainted.
	tty := testbed.Must(t, h.Run(t.Context(), "script", "-qec",
		"shoal service create --name tty --update-monitor 300ms --no-resolve-image "+testbed.WebV1, "/dev/null"))
	contains(t, tty, "\x1b[", "1/1: running", "Service tty converged")

	out = testbed.Must(t, h.Shoal("service", "create", "-d", "--name", "later", "--no-resolve-image", testbed.WebV1))
	if out != service(t, h, "later").ID+"\n" {
		t.Errorf("create --detach printed %q", out)
	}
	testbed.Eventually(t, patience, running(t, h, "later", 1))

	for _, task := range tasks(t, h, "web") {
		c := inspect(t, h, containerOf(task))
		if want := fmt.Sprintf("/web.%d.%s", task.Slot, task.ID); c.Name != want {
			t.Errorf("container %s, want %s", c.Name, want)
		}
		for k, want := range map[string]string{
			"com.docker.swarm.service.name": "web",
			"com.docker.swarm.service.id":   id,
			"com.docker.swarm.task":         "",
			"com.docker.swarm.task.id":      task.ID,
			"com.docker.swarm.task.name":    c.Name[1:],
			"com.docker.swarm.node.id":      task.NodeID,
			"kind":                          "test",
		} {
			if got, ok := c.Config.Labels[k]; !ok || got != want {
				t.Errorf("%s: label %s is %q (%v), want %q", c.Name, k, got, ok, want)
			}
		}
		if _, ok := c.Config.Labels["tier"]; ok {
			t.Error("a service label is on the container")
		}
		if !slices.Contains(c.Config.Env, "A=1") {
			t.Errorf("environment: %v", c.Config.Env)
		}
	}
}

// TestScale goes up and down; who stays is left alone.
func TestScale(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "web", "--replicas", "2", "--publish", "8080:80", testbed.WebV1)
	two := ids(t, h, "web")
	out := testbed.Must(t, h.Shoal("service", "scale", "web=5"))
	contains(t, out, "web scaled to 5", "overall progress: 5 out of 5 tasks")
	if _, err := answers(outside, url(h, "8080"), 5); err != nil {
		t.Error(err)
	}
	five := ids(t, h, "web")
	for task := range two {
		if five[task] != two[task] {
			t.Errorf("task %s was touched by scaling up", task)
		}
	}
	testbed.Must(t, h.Shoal("service", "scale", "web=1"))
	one := ids(t, h, "web")
	if len(one) != 1 {
		t.Fatalf("tasks: %v", one)
	}
	for task := range one {
		if five[task] != one[task] {
			t.Errorf("task %s was touched by scaling down", task)
		}
	}
	// What went leaves no history and no container: nothing failed.
	testbed.Eventually(t, patience, func() error {
		if all := containers(t, h, "com.docker.swarm.service.name=web"); len(all) != 1 {
			return fmt.Errorf("containers: %v", all)
		}
		return nil
	})
	refused(t, h.Shoal("service", "scale", "web=minus"), "minus")
	refused(t, h.Shoal("service", "scale", "nothing=1"), "nothing")
}

// containers are the engine's, ended ones included, that carry a label; by ID.
func containers(t testing.TB, h *testbed.Host, label string) []string {
	t.Helper()
	return lines(testbed.Must(t, h.EngineDocker("ps", "-aq", "--no-trunc", "--filter", "label="+label)))
}

// TestUpdate changes one thing after the other under a steady stream of
// requests, none of which may notice.
func TestUpdate(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	args := append([]string{"--name", "web", "--replicas", "2", "--publish", "8080:80"}, healthy...)
	create(t, h, append(args, testbed.WebV1)...)

	for _, c := range []struct {
		what     string
		args     []string
		replaces bool
		shows    func(swarm.ContainerSpec, swarm.Service) bool
	}{
		{"image", []string{"--image", testbed.WebV2}, true, func(c swarm.ContainerSpec, _ swarm.Service) bool { return c.Image == testbed.WebV2 }},
		{"environment", []string{"--env-add", "SLOW=5ms"}, true, func(c swarm.ContainerSpec, _ swarm.Service) bool { return slices.Contains(c.Env, "SLOW=5ms") }},
		{"command", []string{"--entrypoint", "/bin/busybox env B=2", "--args", "webapp"}, true, nil},
		{"arguments", []string{"--args", "C=3 webapp"}, true, nil},
		{"container label", []string{"--container-label-add", "a=b"}, true, func(c swarm.ContainerSpec, _ swarm.Service) bool { return c.Labels["a"] == "b" }},
		{"service label", []string{"--label-add", "x=y"}, false, func(_ swarm.ContainerSpec, s swarm.Service) bool { return s.Spec.Labels["x"] == "y" }},
		{"order", []string{"--update-order", "start-first"}, false, nil},
		{"image, the new task first", []string{"--image", testbed.WebV3}, true, nil},
		{"nothing", nil, false, nil},
		{"nothing, by force", []string{"--force"}, true, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			before := ids(t, h, "web")
			l := startLoad(t, outside, url(h, "8080"))
			testbed.Eventually(t, patience, l.steady)
			update(t, h, append(c.args, "web")...)
			l.unharmed(t)
			after := ids(t, h, "web")
			if replaced := !maps.Equal(before, after); replaced != c.replaces {
				t.Errorf("tasks replaced: %v, want %v", replaced, c.replaces)
			}
			s := service(t, h, "web")
			if c.shows != nil && !c.shows(*s.Spec.TaskTemplate.ContainerSpec, s) {
				t.Errorf("the spec does not show it: %+v", s.Spec)
			}
			if err := running(t, h, "web", 2)(); err != nil {
				t.Error(err)
			}
		})
	}
	got, err := answers(outside, url(h, "8080"), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range got {
		if a.Version != "v3" || a.Env["SLOW"] != "5ms" || a.Env["B"] != "2" || a.Env["C"] != "3" {
			t.Errorf("task %s runs %s with %v", a.Task, a.Version, a.Env)
		}
	}
}

// steady says whether enough requests were answered to call it a stream.
func (l *load) steady() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked < 20 {
		return errNotYet
	}
	return nil
}

// TestRollback goes back to the previous spec, and there again.
func TestRollback(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	args := append([]string{"--name", "web", "--replicas", "2", "--publish", "8080:80"}, healthy...)
	create(t, h, append(args, testbed.WebV1)...)
	refused(t, h.Shoal("service", "rollback", "web"), "does not have a previous spec")
	update(t, h, "--image", testbed.WebV2, "--publish-add", "8081:80", "web")

	l := startLoad(t, outside, url(h, "8080"))
	testbed.Eventually(t, patience, l.steady)
	out := testbed.Must(t, h.Shoal("service", "rollback", "web"))
	if seen := l.unharmed(t); seen["v1"] == 0 || seen["v2"] == 0 {
		t.Errorf("answers: %v", seen)
	}
	contains(t, out, "rollback", "web")
	if status := service(t, h, "web").UpdateStatus; status == nil || status.State != swarm.UpdateStateRollbackCompleted {
		t.Errorf("update status: %+v", status)
	}
	version(t, h, outside, "v1")
	if err := reach(outside, h.IP.String()+":8081"); err == nil {
		t.Error("the rolled back port still answers")
	}
	testbed.Must(t, h.Shoal("service", "update", "--rollback", "web"))
	version(t, h, outside, "v2")
}

// version fails unless all answers on port 8080 are of one version.
func version(t *testing.T, h, from *testbed.Host, want string) {
	t.Helper()
	got, err := answers(from, url(h, "8080"), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range got {
		if a.Version != want {
			t.Errorf("%s answers, want %s", a.Version, want)
		}
	}
}

// TestUpdateFails: an update that goes wrong stops at its first task and says
// why; the others serve on. A better one takes over.
func TestUpdateFails(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	args := append([]string{"--name", "web", "--replicas", "3", "--publish", "8080:80", "--update-order", "start-first"}, healthy...)
	create(t, h, append(args, testbed.WebV1)...)
	l := startLoad(t, outside, url(h, "8080"))
	testbed.Eventually(t, patience, l.steady)

	out := h.Shoal("service", "update", "--no-resolve-image", "--image", testbed.Web+":none", "web")
	if out.Code == 0 {
		t.Errorf("an update that failed exits with 0: %s", out.Stdout)
	}
	contains(t, out.Stdout+out.Stderr, "update paused due to failure or early termination of task ")
	s := service(t, h, "web")
	if s.UpdateStatus == nil || s.UpdateStatus.State != swarm.UpdateStatePaused {
		t.Errorf("update status: %+v", s.UpdateStatus)
	}
	if inspected := testbed.Must(t, h.Shoal("service", "inspect", "--pretty", "web")); missing(inspected, "UpdateStatus", "paused") != "" {
		t.Errorf("service inspect does not show the pause:\n%s", inspected)
	}
	says(t, h, "web", "Rejected", "No such image", testbed.Web+":none")
	if n := strings.Count(strings.Join(history(t, h, "web", "{{.Image}} {{.DesiredState}}"), "\n"), testbed.WebV1+" Running"); n != 3 {
		t.Errorf("%d tasks of the old version run on, want 3", n)
	}
	update(t, h, "--image", testbed.WebV2, "web")
	l.unharmed(t)
	version(t, h, outside, "v2")

	// Another way to fail, and another thing to do about it.
	update(t, h, "--update-failure-action", "rollback", "web")
	l = startLoad(t, outside, url(h, "8080"))
	said := testbed.Must(t, h.Shoal("service", "update", "--no-resolve-image", "--env-add", "HEALTH=fail", "web"))
	contains(t, said, "dockerexec: unhealthy container", "rollback: update rolled back due to failure or early termination of task ")
	testbed.Eventually(t, patience, func() error {
		if status := service(t, h, "web").UpdateStatus; status == nil || status.State != swarm.UpdateStateRollbackCompleted {
			return fmt.Errorf("update status: %+v", status)
		}
		return nil
	})
	l.unharmed(t)
	if env := service(t, h, "web").Spec.TaskTemplate.ContainerSpec.Env; slices.Contains(env, "HEALTH=fail") {
		t.Errorf("environment after the rollback: %v", env)
	}
	version(t, h, outside, "v2")
}
