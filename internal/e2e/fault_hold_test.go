package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// TestRemovedDuringAHold cuts all workers off at one moment. That is more likely
// the leader's network than the death of all of them, so it holds; and removing
// one that is lost is the way out.
func TestRemovedDuringAHold(t *testing.T) {
	bed := swarmOf(t, 1, 3)
	h1, workers := bed.Host(0), bed.Hosts()[1:]
	ready := map[string]string{h1.Name: "Ready Leader"}
	for _, h := range workers {
		ready[h.Name] = "Ready"
	}
	hasRoles(t, h1, ready)
	says := func(words string) func() error {
		return func() error {
			if !slices.ContainsFunc(logLines(t, h1), func(l string) bool { return strings.Contains(l, words) }) {
				return fmt.Errorf("the leader does not say %q", words)
			}
			return nil
		}
	}

	for _, h := range workers {
		if err := h.LinkDown(); err != nil {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, patience, says("more than a third of the nodes went silent together"))
	if now, err := roles(h1); err != nil || fmt.Sprint(now) != fmt.Sprint(ready) {
		t.Fatalf("while the leader holds: %v, %v", now, err)
	}

	lost, others := workers[2], workers[:2]
	testbed.Must(t, h1.Shoal("node", "rm", "--force", lost.Name))
	delete(ready, lost.Name)
	down := map[string]string{h1.Name: "Ready Leader", others[0].Name: "Down", others[1].Name: "Down"}
	hasRoles(t, h1, down)
	for _, h := range workers {
		if err := h.LinkUp(); err != nil {
			t.Fatal(err)
		}
	}
	hasRoles(t, h1, ready)
	testbed.Eventually(t, patience, func() error {
		if !slices.ContainsFunc(logLines(t, lost), func(l string) bool { return strings.Contains(l, "it was removed from the cluster") }) {
			return fmt.Errorf("%s has not been told that it was removed", lost.Name)
		}
		return nil
	})
}
