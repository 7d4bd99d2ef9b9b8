package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// patience bounds every wait: far beyond what anything takes on a busy machine.
const patience = 60 * time.Second

// node gives a test one host on which a cluster was founded, and the outside
// client beside it.
func node(t *testing.T, opts ...testbed.Option) (host, client *testbed.Host) {
	t.Helper()
	bed := testbed.Start(t, 1, opts...)
	host = bed.Host(0)
	testbed.Must(t, host.Shoal("swarm", "init"))
	return host, bed.Client()
}

// tasks lists the tasks of a service that should run, by slot.
func tasks(t testing.TB, h *testbed.Host, service string) []swarm.Task {
	t.Helper()
	c, err := h.API()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.TaskList(context.Background(), swarm.TaskListOptions{
		Filters: filters.NewArgs(filters.Arg("service", service), filters.Arg("desired-state", "running")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// running fails unless exactly n tasks of a service run.
func running(t testing.TB, h *testbed.Host, service string, n int) func() error {
	return func() error {
		var up []string
		for _, task := range tasks(t, h, service) {
			if task.Status.State == swarm.TaskStateRunning {
				up = append(up, task.ID)
			}
		}
		if len(up) != n {
			return fmt.Errorf("%d tasks of %s run, want %d", len(up), service, n)
		}
		return nil
	}
}

// answers fetches a page until the distinct tasks that answered are n.
func answers(h *testbed.Host, url string, n int) (map[string]testbed.Answer, error) {
	seen := map[string]testbed.Answer{}
	for range 40 * n {
		a, err := h.Get(url)
		if err != nil {
			return seen, fmt.Errorf("from %s: %w", h.Name, err)
		}
		if a.Code != 200 {
			return seen, fmt.Errorf("%s from %s: status %d: %s", url, h.Name, a.Code, a.Body)
		}
		seen[a.Task] = a
		if len(seen) == n {
			return seen, nil
		}
	}
	return seen, fmt.Errorf("%s from %s: only %d of %d tasks answer", url, h.Name, len(seen), n)
}

// refused fails unless a command failed and said all of the words.
func refused(t *testing.T, r testbed.Result, words ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("%v succeeded: %s", r.Args, r.Stdout)
		return
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("%v: %q is not in: %s", r.Args, w, r.Stderr)
		}
	}
}

var errNotYet = errors.New("not yet")
