package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestServices drives what Docker can say of services, and what shoal adds, on
// one cluster of three hosts.
func TestServices(t *testing.T) {
	t.Parallel()
	bed := swarmOf(t, 1, 2)
	h := bed.Host(0)
	binary, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker client on this machine")
	}
	d := docker{host: h, binary: binary}
	t.Run("global", func(t *testing.T) { globalService(t, bed, d) })
	t.Run("jobs", func(t *testing.T) { jobs(t, h, d) })
	t.Run("stop and start", func(t *testing.T) { stopAndStart(t, h, d) })
	t.Run("history", func(t *testing.T) { goBack(t, h, d) })
	t.Run("explain", func(t *testing.T) { explain(t, h) })
	t.Run("rebalance", func(t *testing.T) { rebalance(t, bed) })
}

// goBack goes to a revision that is not the previous one.
func goBack(t *testing.T, h *testbed.Host, d docker) {
	create(t, h, "--name", "web", "--label", "shoal.revision=first", "--env", "A=1", testbed.WebV1)
	update(t, h, "--image", testbed.WebV2, "--env-rm", "A", "--label-rm", "shoal.revision", "web")
	update(t, h, "--env-add", "B=1", "web")
	d.must(t, "service", "scale", "-d", "web=2")
	contains(t, testbed.Must(t, h.Shoal("service", "history", "web")), "first", "created with image "+testbed.WebV1,
		"image "+testbed.WebV1+" -> "+testbed.WebV2+", -env A", "+env B")
	refused(t, h.Shoal("service", "rollback", "--to", "9", "web"), "revision 9 of service web not found")
	testbed.Must(t, h.Shoal("service", "rollback", "-q", "--to", "first", "web"))
	s := service(t, h, "web")
	if c := s.Spec.TaskTemplate.ContainerSpec; c.Image != testbed.WebV1 || *s.Spec.Mode.Replicated.Replicas != 2 {
		t.Errorf("after going back: %s, %d replicas", c.Image, *s.Spec.Mode.Replicated.Replicas)
	}
	testbed.Eventually(t, patience, running(t, h, "web", 2))
	testbed.Must(t, h.Shoal("service", "rm", "web"))
}

// explain: what waits says why, everywhere in the same words, and goes on as
// soon as it can.
func explain(t *testing.T, h *testbed.Host) {
	create(t, h, "--name", "holder", "--publish", "mode=host,target=80,published=8085", "--replicas", "3", testbed.WebV1)
	create(t, h, "--detach", "--name", "waiter", "--publish", "mode=host,target=80,published=8085", testbed.WebV1)
	const why = "no suitable node (host-mode port 8085/tcp already in use on 3 nodes)"
	says(t, h, "waiter", why)
	contains(t, testbed.Must(t, h.Shoal("explain", "waiter")), "waiter.1", why, "h1", "h2", "h3", "no: host-mode port 8085/tcp already in use")
	id := strings.TrimSpace(testbed.Must(t, h.Shoal("service", "ps", "-q", "waiter")))
	contains(t, testbed.Must(t, h.Shoal("service", "explain", id)), "waiter.1", why)
	testbed.Must(t, h.Shoal("service", "rm", "holder"))
	testbed.Eventually(t, patience, running(t, h, "waiter", 1))
	contains(t, testbed.Must(t, h.Shoal("explain", "waiter")), "all of its tasks run (1)")
	refused(t, h.Shoal("explain", "nothing"), "no service or task nothing")
	testbed.Must(t, h.Shoal("service", "rm", "waiter"))
}

// rebalance brings tasks to a node that came back empty, and nobody notices.
func rebalance(t *testing.T, bed *testbed.Bed) {
	h := bed.Host(0)
	testbed.Must(t, h.Shoal("node", "update", "--availability", "drain", "h3"))
	create(t, h, append([]string{"--name", "web", "--replicas", "4", "--publish", "8086:80"}, append(healthy, testbed.WebV1)...)...)
	testbed.Must(t, h.Shoal("node", "update", "--availability", "active", "h3"))
	contains(t, testbed.Must(t, h.Shoal("rebalance", "--dry-run")), "web.", "h3")
	before := ids(t, h, "web")
	load := startLoad(t, bed.Client(), url(bed.Host(1), "8086"))
	contains(t, testbed.Must(t, h.Shoal("rebalance", "web")), "h3", "1 of 1 moved")
	load.end()
	load.unharmed(t)
	kept := 0
	for id := range ids(t, h, "web") {
		if _, ok := before[id]; ok {
			kept++
		}
	}
	if kept != 3 {
		t.Errorf("%d of 4 tasks stayed, want 3", kept)
	}
	contains(t, testbed.Must(t, h.Shoal("rebalance")), "Nothing to move")
	testbed.Must(t, h.Shoal("service", "rm", "web"))
}

// watched is how long the stock client may take to see a service converge: on a
// busy machine that is far more than a single request.
const watched = 5 * time.Minute

// watch runs a command of the stock client that waits, to its end.
func (d docker) watch(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), watched)
	defer cancel()
	return testbed.Must(t, d.host.Run(ctx, append([]string{d.binary, "-H", "unix:///run/shoal.sock"}, args...)...))
}

// replicas is what service ls says of a service.
func replicas(t testing.TB, h *testbed.Host, name string) string {
	t.Helper()
	return strings.TrimSpace(testbed.Must(t, h.Shoal("service", "ls", "--filter", "name="+name, "--format", "{{.Replicas}}")))
}

func globalService(t *testing.T, bed *testbed.Bed, d docker) {
	h := bed.Host(0)
	args := append([]string{"service", "create", "--name", "everywhere", "--mode", "global", "--publish", "8081:80"}, quick...)
	contains(t, d.watch(t, append(append(args, healthy...), testbed.WebV1)...), "3 out of 3 tasks", "converged")
	contains(t, d.must(t, "service", "ls"), "everywhere", "global", "3/3")
	if _, err := answers(bed.Client(), url(bed.Host(2), "8081"), 3); err != nil {
		t.Error(err)
	}
	var on []string
	for _, task := range tasks(t, h, "everywhere") {
		if task.Slot != 0 {
			t.Errorf("slot %d", task.Slot)
		}
		on = append(on, task.NodeID)
	}
	if slices.Sort(on); len(slices.Compact(on)) != 3 {
		t.Errorf("tasks on %v", on)
	}
	update(t, h, "--image", testbed.WebV2, "--update-order", "start-first", "everywhere")
	seen, err := answers(bed.Client(), url(h, "8081"), 3)
	for _, a := range seen {
		if a.Version != "v2" {
			t.Errorf("%s answers after the update", a.Version)
		}
	}
	if err != nil {
		t.Error(err)
	}
	testbed.Must(t, h.Shoal("service", "rollback", "-q", "everywhere"))
	testbed.Must(t, h.Shoal("node", "update", "--availability", "drain", "h3"))
	testbed.Eventually(t, patience, running(t, h, "everywhere", 2))
	testbed.Must(t, h.Shoal("node", "update", "--availability", "active", "h3"))
	testbed.Eventually(t, patience, running(t, h, "everywhere", 3))
	refused(t, d.try("service", "scale", "everywhere=2"), "scale can only be used with replicated or replicated-job mode")
	testbed.Must(t, h.Shoal("service", "rm", "everywhere"))
}

func jobs(t *testing.T, h *testbed.Host, d docker) {
	out := d.watch(t, "service", "create", "--name", "work", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2",
		"--no-resolve-image", testbed.WebV1, "sh", "-c", "exit 0")
	contains(t, out, "job complete")
	contains(t, d.must(t, "service", "ls"), "work", "replicated job", "0/2 (3/3 completed)")
	slots := func(run uint64) (got []int) {
		c, err := h.API()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all, err := c.TaskList(context.Background(), swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", "work"))})
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range all {
			if task.JobIteration != nil && task.JobIteration.Index == run && task.Status.State == swarm.TaskStateComplete && task.DesiredState == swarm.TaskStateComplete {
				got = append(got, task.Slot)
			}
		}
		slices.Sort(got)
		return got
	}
	if got := slots(0); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("slots %v completed", got)
	}
	contains(t, testbed.Must(t, h.Shoal("service", "scale", "work=4")), "4 out of 4 complete", "job complete")
	if got := slots(1); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("slots %v completed in the second run", got)
	}
	r := h.Shoal("service", "create", "--name", "hopeless", "--mode", "replicated-job", "--restart-condition", "none", "--no-resolve-image", testbed.WebV1, "sh", "-c", "exit 3")
	if r.Code != 1 {
		t.Errorf("a job that fails for good: %+v", r)
	}
	contains(t, r.Stderr, "job failed: 1 ")
	contains(t, d.watch(t, "service", "create", "--name", "once-each", "--mode", "global-job", "--no-resolve-image", testbed.WebV1, "sh", "-c", "exit 0"), "job complete")
	if got := replicas(t, h, "once-each"); got != "0/0 (3/3 completed)" {
		t.Errorf("service ls says %s", got)
	}
	testbed.Must(t, h.Shoal("service", "rm", "work", "hopeless", "once-each"))
}

func stopAndStart(t *testing.T, h *testbed.Host, d docker) {
	create(t, h, "--name", "web", "--replicas", "3", "--update-parallelism", "0", "--rollback-parallelism", "0", testbed.WebV1)
	before := ids(t, h, "web")
	contains(t, testbed.Must(t, h.Shoal("service", "stop", "web")), "Service web stopped")
	if got := replicas(t, h, "web"); got != "0/3 (stopped)" {
		t.Errorf("service ls says %s", got)
	}
	contains(t, d.must(t, "service", "ls"), "0/0")
	contains(t, d.must(t, "service", "inspect", "--pretty", "web"), "service stopped", "Replicas:\t3")
	// A change through the stock client keeps the service stopped, and does not hang.
	d.watch(t, "service", "update", "--image", testbed.WebV2, "--no-resolve-image", "web")
	if got := replicas(t, h, "web"); got != "0/3 (stopped)" {
		t.Errorf("after an update, service ls says %s", got)
	}
	testbed.Must(t, h.Shoal("service", "start", "web"))
	testbed.Eventually(t, patience, running(t, h, "web", 3))
	now := ids(t, h, "web")
	d.must(t, "service", "rollback", "-d", "web") // to v1, and running
	testbed.Eventually(t, patience, func() error {
		if got := replicas(t, h, "web"); got != "3/3" {
			return fmt.Errorf("after a rollback, service ls says %s", got)
		}
		return nil
	})
	start := time.Now()
	testbed.Must(t, h.Shoal("service", "restart", "web"))
	t.Logf("restarted in %s", time.Since(start))
	for id := range ids(t, h, "web") {
		if _, old := before[id]; old {
			t.Errorf("task %s outlived a restart", id)
		}
		if _, old := now[id]; old {
			t.Errorf("task %s outlived a restart", id)
		}
	}
	r := h.Shoal("service", "start", "web")
	contains(t, r.Stderr, "web is not stopped")
	testbed.Must(t, h.Shoal("service", "rm", "web"))
}
