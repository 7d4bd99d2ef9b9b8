package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// TestUserspacePlane runs hosts that serve published ports in userspace: every
// node reaches the tasks of all, tasks are replaced without a loss, and a host of
// which only the other plane is known is not told from them otherwise.
func TestUserspacePlane(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 2, testbed.WithFlags("--data-plane", "proxy"))
	h1, h2 := bed.Host(0), bed.Host(1)
	testbed.Must(t, h1.Shoal("swarm", "init"))
	join(t, h1, h2, "worker")
	contains(t, testbed.Must(t, h2.Shoal("info")), "Data Plane: proxy")
	create(t, h1, "--name", "web", "--replicas", "2", "--replicas-max-per-node", "1", "--publish", "8080:80", "--publish", "8080:80/udp", testbed.WebV1)

	t.Run("every node reaches every task", func(t *testing.T) {
		for _, h := range bed.Hosts() {
			for _, from := range []*testbed.Host{bed.Client(), h1, h2} {
				testbed.Eventually(t, patience, func() error { _, err := answers(from, url(h, "8080"), 2); return err })
				seen := map[string]bool{}
				testbed.Eventually(t, patience, func() error {
					rep, err := from.AskUDP(h.IP.String()+":8080", "hello", time.Second)
					if err != nil {
						return fmt.Errorf("UDP from %s to %s: %w", from.Name, h.Name, err)
					}
					if seen[rep.Task] = true; len(seen) < 2 {
						return fmt.Errorf("UDP from %s to %s: only one task answers", from.Name, h.Name)
					}
					return nil
				})
			}
		}
		if _, err := answers(h1, "http://127.0.0.1:8080/", 2); err != nil {
			t.Error(err)
		}
	})
	t.Run("virtual addresses and ports, from a task", func(t *testing.T) {
		vip, _, _ := strings.Cut(service(t, h1, "web").Endpoint.VirtualIPs[0].Addr, "/")
		task := anyLocalTask(t, h1)
		for _, to := range []string{vip + ":80", h1.IP.String() + ":8080", h2.IP.String() + ":8080"} {
			testbed.Eventually(t, patience, func() error { _, err := inside(h1, task, "get", "http://"+to+"/"); return err })
		}
	})
	t.Run("nothing is lost while tasks are replaced", func(t *testing.T) {
		var all []*load
		for _, h := range bed.Hosts() {
			all = append(all, startLoad(t, bed.Client(), url(h, "8080")))
		}
		long := startStreams(t, bed.Client(), 2, url(h1, "8080"), url(h2, "8080"))
		update(t, h1, "--update-monitor", "300ms", "--replicas-max-per-node", "2", "--update-order", "start-first", "--env-add", "VERSION=next", "web")
		testbed.Must(t, h1.Shoal("node", "update", "--availability", "drain", "--wait", h2.Name))
		testbed.Must(t, h1.Shoal("node", "update", "--availability", "active", h2.Name))
		long.unharmed(t)
		for _, l := range all {
			l.unharmed(t)
		}
	})
	t.Run("nobody there", func(t *testing.T) { nobodyThere(t, h1, bed.Client()) })
	t.Run("clients by name", func(t *testing.T) {
		create(t, h1, "--name", "told", "--publish", "8081:80", "--label", "shoal.proxy-protocol=v2", testbed.WebV1)
		// The server is told of its client before the request, and knows no such
		// words.
		for _, h := range bed.Hosts() {
			testbed.Eventually(t, patience, func() error {
				a, err := bed.Client().Get(url(h, "8081"))
				if err == nil && a.Code != 400 {
					err = fmt.Errorf("status %d", a.Code)
				}
				return err
			})
		}
		refused(t, h1.Shoal("service", "create", "--label", "shoal.proxy-protocol=v2", "--no-resolve-image", testbed.WebV1), "publishes no TCP port")
	})
}

// anyLocalTask is a container of web's that runs on the host itself.
func anyLocalTask(t *testing.T, h *testbed.Host) string {
	t.Helper()
	all := lines(testbed.Must(t, h.EngineDocker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web")))
	if len(all) == 0 {
		t.Fatalf("no task of web runs on %s", h.Name)
	}
	return all[0]
}
