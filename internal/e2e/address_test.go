package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// readdress gives a host another address while its daemon is down: what a lease
// that ran out, or a move to another rack, does.
func readdress(t *testing.T, h *testbed.Host) {
	t.Helper()
	old := h.IP
	a := old.As4()
	gateway := fmt.Sprintf("%d.%d.%d.1", a[0], a[1], a[2])
	a[3] += 40
	h.IP = netip.AddrFrom4(a)
	for _, argv := range [][]string{
		{"ip", "addr", "del", old.String() + "/24", "dev", "eth0"},
		{"ip", "addr", "add", h.IP.String() + "/24", "dev", "eth0"},
		{"ip", "route", "replace", "default", "via", gateway},
	} {
		if err := h.Run(t.Context(), argv...).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// known waits until the managers have a node at its host's address.
func known(t *testing.T, m *testbed.Host, hosts ...*testbed.Host) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		for _, h := range hosts {
			r := m.Shoal("node", "inspect", "--format", "{{.Status.Addr}} {{.Status.State}}", h.Name)
			if err := r.Err(); err != nil {
				return err
			}
			if got := strings.TrimSpace(r.Stdout); got != h.IP.String()+" ready" {
				return fmt.Errorf("%s is %q, want it ready at %s", h.Name, got, h.IP)
			}
		}
		return nil
	})
}

// reached waits until a port answers on every host with every one of n tasks,
// wherever they run.
func reached(t *testing.T, bed *testbed.Bed, port string, n int) {
	t.Helper()
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, func() error {
			seen := map[string]bool{}
			for range 8 * n {
				got, err := bed.Client().Get(url(h, port))
				if err != nil {
					return fmt.Errorf("by way of %s: %w", h.Name, err)
				}
				seen[got.Task] = true
			}
			if len(seen) != n {
				return fmt.Errorf("by way of %s: %d of %d tasks answer", h.Name, len(seen), n)
			}
			return nil
		})
	}
}

// TestAddressesChange: managers, one alone and then all at once, come back at
// other addresses, and nobody has to tell anybody.
func TestAddressesChange(t *testing.T) {
	bed := swarmOf(t, 3, 1)
	h1, worker := bed.Host(0), bed.Host(3)
	managers := bed.Hosts()[:3]
	testbed.Must(t, h1.Shoal("service", "create", "-q", "--name", "web", "--replicas", "4", "--publish", "8080:80", "--env", "TASK={{.Task.ID}}", "--no-resolve-image", testbed.WebV1))
	reached(t, bed, "8080", 4)
	before := tasks(t, h1, "web")

	move := func(t *testing.T, hosts ...*testbed.Host) {
		t.Helper()
		for _, h := range hosts {
			do(t, h.StopShoal)
		}
		for _, h := range hosts {
			readdress(t, h)
		}
		began := time.Now()
		for _, h := range hosts {
			do(t, startShoal(h))
		}
		testbed.Eventually(t, patience, func() error { return h1.Shoal("node", "update", "--label-add", "moved="+h1.IP.String(), h1.Name).Err() })
		t.Logf("a write succeeded %s after the restart", time.Since(began).Round(time.Millisecond))
		known(t, h1, bed.Hosts()...)
		t.Logf("all nodes were ready at their new addresses %s after it", time.Since(began).Round(time.Millisecond))
		reached(t, bed, "8080", 4)
		t.Logf("the service answered by way of all of them %s after it", time.Since(began).Round(time.Millisecond))
	}
	t.Run("one manager", func(t *testing.T) { move(t, bed.Host(1)) })
	t.Run("all managers", func(t *testing.T) { move(t, managers...) })
	t.Run("all nodes", func(t *testing.T) { move(t, bed.Hosts()...) })
	t.Run("the worker", func(t *testing.T) { move(t, worker) })

	testbed.Eventually(t, patience, running(t, h1, "web", 4))
	now := map[string]string{}
	for _, task := range tasks(t, h1, "web") {
		now[task.ID] = containerOf(task)
	}
	for _, task := range before {
		if now[task.ID] != containerOf(task) {
			t.Errorf("task %s of slot %d was replaced by a change of addresses", task.ID, task.Slot)
		}
	}
}
