package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// swarmOf founds a cluster on the first host and joins the others: managers
// first, then workers.
func swarmOf(t *testing.T, managers, workers int) *testbed.Bed {
	t.Helper()
	bed := testbed.Start(t, managers+workers)
	testbed.Must(t, bed.Host(0).Shoal("swarm", "init"))
	for i := 1; i < managers+workers; i++ {
		role := "manager"
		if i >= managers {
			role = "worker"
		}
		join(t, bed.Host(0), bed.Host(i), role)
	}
	return bed
}

func join(t *testing.T, to, h *testbed.Host, role string) {
	t.Helper()
	token := strings.TrimSpace(testbed.Must(t, to.Shoal("swarm", "join-token", "-q", role)))
	testbed.Must(t, h.Shoal("swarm", "join", "--token", token, to.IP.String()+":2377"))
}

// roles describes the nodes as a manager lists them: "h1 Ready Leader".
func roles(h *testbed.Host) (map[string]string, error) {
	r := h.Shoal("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
	if err := r.Err(); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
		name, rest, _ := strings.Cut(line, " ")
		out[name] = strings.TrimSpace(rest)
	}
	return out, nil
}

// hasRoles waits until a manager says this of the nodes.
func hasRoles(t *testing.T, h *testbed.Host, want map[string]string) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		got, err := roles(h)
		if err != nil {
			return err
		}
		for name, role := range want {
			if got[name] != role {
				return fmt.Errorf("%s is %q, want %q (all: %v)", name, got[name], role, got)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("nodes %v, want %v", got, want)
		}
		return nil
	})
}

func TestMembership(t *testing.T) {
	bed := swarmOf(t, 1, 2)
	h1, h2, h3 := bed.Host(0), bed.Host(1), bed.Host(2)
	hasRoles(t, h1, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready", h3.Name: "Ready"})
	refused(t, h2.Shoal("node", "ls"), "Worker nodes can't be used")

	testbed.Must(t, h1.Shoal("service", "create", "-q", "--name", "web", "--replicas", "6", "--no-resolve-image", testbed.WebV1))
	before := tasks(t, h1, "web")

	t.Run("promotion", func(t *testing.T) {
		testbed.Must(t, h1.Shoal("node", "promote", h2.Name, h3.Name))
		hasRoles(t, h3, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable", h3.Name: "Ready Reachable"})
	})
	t.Run("any manager will do", func(t *testing.T) {
		testbed.Must(t, h3.Shoal("service", "update", "-q", "--label-add", "by=h3", "web"))
		if got := testbed.Must(t, h2.Shoal("service", "inspect", "--format", "{{.Spec.Labels.by}}", "web")); strings.TrimSpace(got) != "h3" {
			t.Errorf("h2 says %q of what was written on h3", got)
		}
		if logs := testbed.Must(t, h2.Shoal("service", "logs", "web")); strings.Count(logs, "listening") != 6 {
			t.Errorf("logs by a follower: %s", logs)
		}
	})
	t.Run("demoting the leader hands over", func(t *testing.T) {
		testbed.Must(t, h1.Shoal("node", "demote", h1.Name))
		testbed.Eventually(t, patience, func() error {
			got, err := roles(h2)
			if err != nil {
				return err
			}
			if got[h1.Name] != "Ready" || !strings.Contains(got[h2.Name]+got[h3.Name], "Leader") {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})
	t.Run("the last manager stays", func(t *testing.T) {
		testbed.Must(t, h2.Shoal("node", "demote", h3.Name))
		hasRoles(t, h2, map[string]string{h1.Name: "Ready", h2.Name: "Ready Leader", h3.Name: "Ready"})
		refused(t, h2.Shoal("node", "demote", h2.Name), "last manager")
		refused(t, h2.Shoal("swarm", "leave"), "Removing the last manager")
		refused(t, h2.Shoal("node", "rm", h3.Name), "is not down")
		refused(t, h2.Shoal("node", "rm", "--force", h2.Name), "must be demoted")
	})
	t.Run("no task was touched", func(t *testing.T) {
		after := map[string]swarm.Task{}
		for _, task := range tasks(t, h2, "web") {
			after[task.ID] = task
		}
		for _, task := range before {
			now, ok := after[task.ID]
			if !ok || now.Status.ContainerStatus == nil || now.Status.ContainerStatus.PID != task.Status.ContainerStatus.PID {
				t.Errorf("task %s of slot %d was replaced by a change of roles", task.ID, task.Slot)
			}
		}
	})
	t.Run("leaving", func(t *testing.T) {
		testbed.Must(t, h3.Shoal("swarm", "leave"))
		testbed.Eventually(t, patience, running(t, h2, "web", 6))
		hasRoles(t, h2, map[string]string{h1.Name: "Ready", h2.Name: "Ready Leader", h3.Name: "Down"})
		testbed.Must(t, h2.Shoal("node", "rm", h3.Name))
		if out := testbed.Must(t, h3.EngineDocker("ps", "-aq")); strings.TrimSpace(out) != "" {
			t.Errorf("containers left on a host that left: %s", out)
		}
		join(t, h2, h3, "worker")
		hasRoles(t, h2, map[string]string{h1.Name: "Ready", h2.Name: "Ready Leader", h3.Name: "Ready"})
	})
}

func TestTokens(t *testing.T) {
	bed := testbed.Start(t, 2)
	h1, h2 := bed.Host(0), bed.Host(1)
	testbed.Must(t, h1.Shoal("swarm", "init"))
	addr := h1.IP.String() + ":2377"
	worker := strings.TrimSpace(testbed.Must(t, h1.Shoal("swarm", "join-token", "-q", "worker")))
	testbed.Must(t, h1.Shoal("swarm", "join-token", "--rotate", "worker"))
	current := strings.TrimSpace(testbed.Must(t, h1.Shoal("swarm", "join-token", "-q", "worker")))
	parts := strings.Split(current, "-")
	otherRoot := strings.Join([]string{parts[0], parts[1], strings.Repeat("1", len(parts[2])), parts[3]}, "-")

	for name, tt := range map[string]struct{ token, addr, says string }{
		"rotated":       {worker, addr, "not valid any more"},
		"other cluster": {otherRoot, addr, "join token is for another cluster"},
		"half":          {current[:20], addr, "invalid join token"},
		"empty":         {"x", addr, "invalid join token"},
		"nobody there":  {current, h1.IP.String() + ":2378", "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, h2.Shoal("swarm", "join", "--token", tt.token, tt.addr), tt.says)
			refused(t, h2.Shoal("swarm", "leave"), "not part of a swarm")
		})
	}
	testbed.Must(t, h2.Shoal("swarm", "join", "--token", current, addr))
	refused(t, h2.Shoal("swarm", "join", "--token", current, addr), "already part of a swarm")
}

// TestLeaderLoss kills the leading daemon, again and again: the others go on,
// what was acknowledged is there, and no task is touched.
func TestLeaderLoss(t *testing.T) {
	bed := swarmOf(t, 3, 0)
	h1 := bed.Host(0)
	testbed.Must(t, h1.Shoal("service", "create", "-q", "--name", "web", "--replicas", "3", "--no-resolve-image", testbed.WebV1))
	before := tasks(t, h1, "web")
	ctx := context.Background()
	for round := range 3 {
		var leader *testbed.Host
		testbed.Eventually(t, patience, func() error {
			for _, h := range bed.Hosts() {
				all, err := roles(h)
				if err != nil {
					return err
				}
				for _, l := range bed.Hosts() {
					if all[l.Name] == "Ready Leader" {
						leader = l
						return nil
					}
				}
			}
			return errNotYet
		})
		if err := leader.KillShoal(ctx); err != nil {
			t.Fatal(err)
		}
		var other *testbed.Host
		for _, h := range bed.Hosts() {
			if h != leader {
				other = h
			}
		}
		label := fmt.Sprintf("round=%d", round)
		killed := time.Now()
		testbed.Eventually(t, patience, func() error {
			return other.Shoal("node", "update", "--label-add", label, other.Name).Err()
		})
		t.Logf("round %d: a write succeeded %s after the leader was killed", round, time.Since(killed).Round(time.Millisecond))
		if err := leader.StartShoal(ctx); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, func() error {
			r := leader.Shoal("node", "inspect", "--format", "{{json .Spec.Labels}}", other.Name)
			if err := r.Err(); err != nil {
				return err
			}
			if !strings.Contains(r.Stdout, fmt.Sprintf(`"round":"%d"`, round)) {
				return fmt.Errorf("the killed leader does not know %s: %s", label, r.Stdout)
			}
			return nil
		})
	}
	testbed.Eventually(t, patience, running(t, h1, "web", 3))
	for i, task := range tasks(t, h1, "web") {
		if task.ID != before[i].ID {
			t.Errorf("task of slot %d was replaced by a change of leaders", task.Slot)
		}
	}
}

// TestHostLoss kills a whole host: its tasks run elsewhere, and when it is back
// it finds out, stops what is no longer its own, and serves again.
func TestHostLoss(t *testing.T) {
	bed := swarmOf(t, 3, 1)
	h1, lost := bed.Host(0), bed.Host(3)
	testbed.Must(t, h1.Shoal("service", "create", "-q", "--name", "web", "--replicas", "8", "--no-resolve-image", testbed.WebV1))
	ctx := context.Background()
	// A host that lost its power answers nothing: in a bed its kernel would.
	crashed := time.Now()
	if err := lost.LinkDown(); err != nil {
		t.Fatal(err)
	}
	if err := lost.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error {
		for _, task := range tasks(t, h1, "web") {
			if n, err := nodeName(h1, task.NodeID); err != nil || n == lost.Name {
				return fmt.Errorf("task %s is still on the lost host (%v)", task.ID, err)
			}
		}
		return running(t, h1, "web", 8)()
	})
	t.Logf("all tasks ran elsewhere %s after the host was lost", time.Since(crashed).Round(time.Millisecond))
	if err := lost.LinkUp(); err != nil {
		t.Fatal(err)
	}
	if err := lost.StartEngine(ctx); err != nil {
		t.Fatal(err)
	}
	if err := lost.StartShoal(ctx); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error {
		got, err := roles(h1)
		if err != nil || got[lost.Name] != "Ready" {
			return fmt.Errorf("%v %v", got, err)
		}
		if out := strings.TrimSpace(testbed.Must(t, lost.EngineDocker("ps", "-q"))); out != "" {
			return fmt.Errorf("it still runs %s", out)
		}
		return nil
	})
	testbed.Eventually(t, patience, running(t, h1, "web", 8))
}

func nodeName(h *testbed.Host, id string) (string, error) {
	r := h.Shoal("node", "inspect", "--format", "{{.Description.Hostname}}", id)
	return strings.TrimSpace(r.Stdout), r.Err()
}
