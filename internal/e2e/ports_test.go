package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// TestPortTaken: nothing is published over somebody else's head, and the
// refusal names who it is.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	squat := h.Command(t.Context(), "busybox", "nc", "-l", "-p", "9000")
	if err := h.StartOn(squat); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = squat.Process.Kill()
		_ = squat.Wait()
	}()
	testbed.Eventually(t, patience, func() error {
		out := h.Run(t.Context(), "grep", ":2328 ", "/proc/net/tcp", "/proc/net/tcp6")
		return out.Err()
	})
	testbed.Must(t, h.EngineDocker("run", "-d", "--name", "database", "-p", "9001:80", "-p", "9001:80/udp", testbed.WebV1))

	publish := func(ports ...string) testbed.Result {
		args := []string{"service", "create", "-d", "--name", "web", "--no-resolve-image"}
		for _, p := range ports {
			args = append(args, "--publish", p)
		}
		return h.Shoal(append(args, testbed.WebV1)...)
	}
	refused(t, publish("9000:80"), "port 9000/tcp is already in use on node h1 by busybox (pid ")
	refused(t, publish("9001:80"), "9001/tcp", "h1", "container", "database")
	refused(t, publish("9001:80/udp"), "9001/udp", "h1", "container", "database")
	refused(t, publish("2377:80"), "2377/tcp", "shoal (pid ")
	refused(t, publish("70000:80"), "70000")
	refused(t, publish("9002:80", "9002:81"), "duplicate published ports")
	if out := testbed.Must(t, h.Shoal("service", "ls", "-q")); out != "" {
		t.Errorf("a refused service is there: %s", out)
	}
	if a, err := outside.Get(url(h, "9001")); err != nil || a.Code != 200 {
		t.Errorf("the container that had the port lost it: %v", err)
	}

	// TCP and UDP are different ports; and a port is free once its owner is gone.
	testbed.Must(t, publish("9000:80/udp"))
	testbed.Must(t, h.Shoal("service", "rm", "web"))
	testbed.Must(t, h.EngineDocker("rm", "-f", "database"))
	create(t, h, "--name", "web", "--publish", "9001:80", testbed.WebV1)
	if _, err := answers(outside, url(h, "9001"), 1); err != nil {
		t.Error(err)
	}
	// An update is held to the same rule.
	refused(t, h.Shoal("service", "update", "-d", "--publish-add", "9000:81", "web"), "9000/tcp", "busybox")
}

// TestPortOfService: services do not take each other's ports, and get automatic
// ones that are free.
func TestPortOfService(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "first", "--publish", "8080:80", testbed.WebV1)
	second := []string{"service", "create", "-d", "--name", "second", "--no-resolve-image", "--publish", "8080:80", testbed.WebV1}
	refused(t, h.Shoal(second...), "port '8080' is already in use by service 'first' (", "as an ingress port")

	// Freed at once, though the first one's tasks are still on their way out.
	testbed.Must(t, h.Shoal("service", "rm", "first"))
	testbed.Must(t, h.Shoal(second...))
	testbed.Eventually(t, patience, func() error {
		_, err := answers(outside, url(h, "8080"), 1)
		return err
	})

	create(t, h, "--name", "any", "--publish", "80", testbed.WebV1)
	create(t, h, "--name", "more", "--publish", "80", testbed.WebV1)
	ports := map[uint32]string{}
	for _, name := range []string{"any", "more"} {
		p := service(t, h, name).Endpoint.Ports
		if len(p) != 1 || p[0].PublishedPort < 30000 || ports[p[0].PublishedPort] != "" {
			t.Fatalf("%s: ports %v", name, p)
		}
		ports[p[0].PublishedPort] = name
		if _, err := answers(outside, url(h, strconv.Itoa(int(p[0].PublishedPort))), 1); err != nil {
			t.Error(err)
		}
	}
	// An update for another reason leaves the port where it is.
	update(t, h, "--label-add", "a=b", "any")
	if p := service(t, h, "any").Endpoint.Ports[0].PublishedPort; ports[p] != "any" {
		t.Errorf("the automatic port moved to %d", p)
	}
}

// TestPortMoves: publishing is a matter of the mesh. Changing it touches no
// task.
func TestPortMoves(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "web", "--replicas", "2", "--publish", "8080:80", testbed.WebV1)
	before := ids(t, h, "web")

	update(t, h, "--publish-add", "8081:80", "web")
	for _, port := range []string{"8080", "8081"} {
		testbed.Eventually(t, patience, func() error {
			_, err := answers(outside, url(h, port), 2)
			return err
		})
	}
	update(t, h, "--publish-rm", "80", "--publish-add", "8082:80", "web")
	testbed.Eventually(t, patience, func() error {
		for _, port := range []string{"8080", "8081"} {
			if err := reach(outside, h.IP.String()+":"+port); err == nil {
				return fmt.Errorf("port %s still answers", port)
			}
		}
		_, err := answers(outside, url(h, "8082"), 2)
		return err
	})
	if after := ids(t, h, "web"); !maps.Equal(before, after) {
		t.Errorf("tasks were replaced: %v, before %v", after, before)
	}
	if out := testbed.Must(t, h.Shoal("service", "ls", "--format", "{{.Ports}}")); strings.TrimSpace(out) != "*:8082->80/tcp" {
		t.Errorf("service ls shows ports %q", out)
	}
}
