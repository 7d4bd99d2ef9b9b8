package e2e

import (
	"fmt"
	"testing"

	"shoal/internal/testbed"
)

// TestQuorumIsKept: what would lose the quorum is refused with the reason and
// the way out, and the way out works.
func TestQuorumIsKept(t *testing.T) {
	bed := swarmOf(t, 3, 0)
	h1, h2, h3 := bed.Host(0), bed.Host(1), bed.Host(2)
	all := map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable", h3.Name: "Ready Reachable"}
	hasRoles(t, h1, all)
	refused(t, h2.Shoal("swarm", "leave"), "Demote it first")

	if err := h3.LinkDown(); err != nil {
		t.Fatal(err)
	}
	all[h3.Name] = "Down Unreachable"
	hasRoles(t, h1, all)

	t.Run("two of three", func(t *testing.T) {
		why := "of the 2 other managers 1 can be reached and 2 are needed"
		refused(t, h1.Shoal("node", "demote", h2.Name), "loss of quorum", why, "demote those that are lost, first")
		refused(t, h2.Shoal("node", "demote", h1.Name), "loss of quorum", why)
		refused(t, h1.Shoal("swarm", "leave"), "Without a Raft quorum your swarm will be inaccessible", why)
		refused(t, h2.Shoal("swarm", "leave"), "Without a Raft quorum your swarm will be inaccessible", why)
		refused(t, h1.Shoal("node", "rm", "--force", h3.Name), "must be demoted to worker before removal")
		hasRoles(t, h1, all)
	})
	t.Run("the way out", func(t *testing.T) {
		testbed.Must(t, h1.Shoal("node", "demote", h3.Name))
		testbed.Eventually(t, patience, func() error { return h1.Shoal("node", "rm", h3.Name).Err() })
		hasRoles(t, h1, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable"})
	})
	t.Run("an even split", func(t *testing.T) {
		if err := h2.LinkDown(); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*testbed.Host{h1, h2} {
			testbed.Eventually(t, patience, func() error {
				if r := h.Shoal("node", "ls"); r.Code == 0 {
					return fmt.Errorf("%s still answers: %s", h.Name, r.Stdout)
				}
				return nil
			})
			refused(t, h.Shoal("node", "demote", h1.Name), "does not have a leader", "--force-new-cluster")
			refused(t, h.Shoal("node", "demote", h2.Name), "does not have a leader", "--force-new-cluster")
			testbed.Eventually(t, patience, func() error { // as soon as gossip has noticed
				r := h.Shoal("swarm", "leave")
				if missing(r.Stderr, "Without a Raft quorum", "the one other manager can not be reached", "--force-new-cluster") != "" {
					return fmt.Errorf("%s", r.Stderr)
				}
				return nil
			})
		}
		if err := h2.LinkUp(); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, func() error { return h1.Shoal("node", "update", "--label-add", "healed=yes", h2.Name).Err() })
	})
	t.Run("leaving by force hands over", func(t *testing.T) {
		r := h1.Shoal("swarm", "leave", "--force")
		testbed.Must(t, r)
		if r.Stderr != "" {
			t.Errorf("warns of nothing: %s", r.Stderr)
		}
		hasRoles(t, h2, map[string]string{h1.Name: "Down", h2.Name: "Ready Leader"})
	})
}

// TestForcedLeaveWarns: who forces the loss of the quorum is told of it, and of
// the way back, which works.
func TestForcedLeaveWarns(t *testing.T) {
	bed := swarmOf(t, 3, 0)
	h1, h2, h3 := bed.Host(0), bed.Host(1), bed.Host(2)
	if err := h3.LinkDown(); err != nil {
		t.Fatal(err)
	}
	hasRoles(t, h1, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable", h3.Name: "Down Unreachable"})
	r := h1.Shoal("swarm", "leave", "--force")
	testbed.Must(t, r)
	contains(t, r.Stderr, "the swarm has no quorum without this manager", "of the 2 others 1 can be reached and 2 are needed", "--force-new-cluster")
	refusedEventually(t, h2, "--force-new-cluster", "node", "ls")
	testbed.Must(t, h2.Shoal("swarm", "init", "--force-new-cluster"))
	testbed.Eventually(t, patience, func() error {
		got, err := roles(h2)
		if err != nil || got[h2.Name] != "Ready Leader" {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
}
