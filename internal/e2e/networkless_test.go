package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// TestWithoutNetAdmin has a daemon that may not change its host's network: tasks
// that need no network of the cluster run there, others elsewhere, and what they
// publish is served there all the same.
func TestWithoutNetAdmin(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 2)
	h1, h2 := bed.Host(0), bed.Host(1)
	testbed.Must(t, h1.Shoal("swarm", "init"))
	unable := []string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"}
	token := lines(testbed.Must(t, h1.Shoal("swarm", "join-token", "-q", "worker")))[0]
	join := func() { testbed.Must(t, h2.Shoal("swarm", "join", "--token", token, h1.IP.String()+":2377")) }
	stop := func() {
		if err := h2.StopShoal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	// What a daemon that can has set up, one that can not would leave as it is.
	join()
	testbed.Eventually(t, patience, func() error {
		return h2.Run(t.Context(), "ip", "link", "show", "shoal0").Err()
	})
	stop()
	refused(t, h2.Run(t.Context(), append(unable, h2.ShoalBinary(), "daemon")...), "shoal0", "CAP_NET_ADMIN", "shoal swarm leave")
	if err := h2.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, h2.Shoal("swarm", "leave"))
	stop()

	refused(t, h2.Run(t.Context(), append(unable, h2.ShoalBinary(), "daemon", "--data-plane", "nft")...),
		"--data-plane nft", "CAP_NET_ADMIN")
	if err := h2.StartShoalUnder(t.Context(), unable); err != nil {
		t.Fatal(err)
	}
	join()
	contains(t, testbed.Must(t, h2.Shoal("info")), "Data Plane: proxy")

	create(t, h1, "--name", "plain", "--mode", "global", testbed.WebV1)
	testbed.Eventually(t, patience, running(t, h1, "plain", 2))
	testbed.Must(t, h1.Shoal("service", "create", "--detach", "--no-resolve-image", "--name", "stuck", "--publish", "8081:80",
		"--constraint", "node.hostname=="+h2.Name, testbed.WebV1))
	says(t, h1, "stuck", "networks and published ports not possible on 1 node: its daemon runs without CAP_NET_ADMIN")

	create(t, h1, append(append([]string{}, healthy...), "--name", "web", "--replicas", "2",
		"--publish", "8080:80", "--publish", "8080:80/udp", testbed.WebV1)...)
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, func() error { _, err := answers(bed.Client(), url(h, "8080"), 2); return err })
	}
	testbed.Eventually(t, patience, func() error {
		_, err := bed.Client().AskUDP(h2.IP.String()+":8080", "hello", time.Second)
		return err
	})

	// Nothing of an update is lost on the way through two nodes.
	l := startLoad(t, bed.Client(), url(h2, "8080"))
	testbed.Eventually(t, patience, l.steady)
	update(t, h1, "--image", testbed.WebV2, "web")
	l.unharmed(t)

	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "--attachable", "open"))
	refused(t, h2.Docker("run", "--rm", "--network", "open", testbed.WebV1, "true"), "can attach nothing to network open", "CAP_NET_ADMIN")
	found := h2.Shoal("doctor", "--all").Stdout
	contains(t, found, "no task on a network of the cluster runs here")
	if strings.Contains(found, "held by") {
		t.Errorf("the mesh is taken for a program in its way: %s", found)
	}

	testbed.Must(t, h1.Shoal("service", "rm", "web"))
	testbed.Eventually(t, patience, func() error {
		if reach(bed.Client(), h2.IP.String()+":8080") == nil {
			return fmt.Errorf("the port still answers")
		}
		return nil
	})
	testbed.Must(t, h2.Shoal("swarm", "leave"))
}
