package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// heldUp is what an engine logs before the last pause of the 15 s that it waits for
// a driver that is not there, per network and per endpoint.
const heldUp = "retrying in 8s"

// TestEngineRestarts stops, kills and starts the engine, with the daemon there
// and without it. Whatever happens, what is reported is true, and in the end
// every replica runs once.
func TestEngineRestarts(t *testing.T) {
	const replicas = 4
	h, outside := node(t)
	quiet(t, h)

	do(t, h.StopEngine)
	t.Logf("without anything of ours the engine starts in %s", startTime(t, h))

	// removeSocket is what the unit does after a daemon that was killed.
	killShoal := func(ctx context.Context) error {
		if err := h.KillShoal(ctx); err != nil {
			return err
		}
		return h.Run(ctx, "rm", "-f", "/run/docker/plugins/shoal.sock").Err()
	}
	type step = func(context.Context) error
	for _, c := range []struct {
		name   string
		before []step
		after  []step
	}{
		{"stopped", []step{h.StopEngine}, nil},
		{"killed", []step{h.KillEngine}, nil},
		{"stopped, then the daemon", []step{h.StopEngine, h.StopShoal}, []step{startShoal(h)}},
		{"killed, then the daemon", []step{h.KillEngine, killShoal}, []step{startShoal(h)}},
		{"the daemon stopped, then killed", []step{h.StopShoal, h.KillEngine}, []step{startShoal(h)}},
		{"the host reset, the daemon first", []step{h.Crash, startShoal(h)}, nil},
		{"the host reset, the engine first", []step{h.Crash, func(ctx context.Context) error {
			return h.Run(ctx, "rm", "-rf", "/run/docker/plugins").Err() // as /run is after a boot
		}}, []step{startShoal(h)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A service of its own: to one that was hit before, this looks like
			// a crash loop, and is backed off.
			deploy(t, h, "web", replicas, 8080)
			defer discard(t, h, "web")
			for _, s := range c.before {
				do(t, s)
			}
			_, before := engineLog(t, h, 0)
			t.Logf("the engine starts in %s", startTime(t, h))
			if log, _ := engineLog(t, h, before); strings.Contains(log, heldUp) {
				t.Error("the engine waited for a driver that was not there")
			}
			for _, s := range c.after {
				do(t, s)
			}
			begin := time.Now()
			testbed.Eventually(t, patience, func() error { return settled(h, "web", replicas) })
			testbed.Eventually(t, patience, func() error { return meshed(outside, h, "web", 8080, replicas) })
			t.Logf("whole again %s after", time.Since(begin).Round(time.Millisecond))
		})
	}
	t.Run("away for long", func(t *testing.T) {
		deploy(t, h, "web", replicas, 8080)
		// Its container ends with exit code 0 when the engine stops it, which is
		// no end of its own.
		create(t, h, "--name", "polite", "--detach", "--restart-condition", "on-failure", testbed.WebV1, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
		testbed.Eventually(t, patience, running(t, h, "polite", 1))
		do(t, h.StopEngine)
		testbed.Eventually(t, patience, func() error {
			nodes, err := dialed(t, h.API).NodeList(t.Context(), swarm.NodeListOptions{})
			if err != nil {
				return err
			}
			if st := nodes[0].Status; st.State != swarm.NodeStateDown || st.Message == "" {
				return fmt.Errorf("without an engine the node is said to be %s: %q", st.State, st.Message)
			}
			return nil
		})
		startTime(t, h)
		testbed.Eventually(t, patience, func() error { return settled(h, "web", replicas) })
		testbed.Eventually(t, patience, func() error { return meshed(outside, h, "web", 8080, replicas) })
		says(t, h, "polite", "Failed", "stopped")
		testbed.Eventually(t, patience, running(t, h, "polite", 1))
	})
}

// engineLog gives what an engine has logged from an offset on, and where that ends.
func engineLog(t *testing.T, h *testbed.Host, from int) (string, int) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.LogDir(), "engine.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(log[from:]), len(log)
}

// TestEngineAway kills the engine of one of two nodes: the managers give it no more
// tasks from seconds later on, though it is Ready and keeps what it has, and give it
// some again when it is back.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	bed := swarmOf(t, 1, 1)
	h1, h2 := bed.Host(0), bed.Host(1)
	node := func() swarm.Node {
		n, _, err := dialed(t, h1.API).NodeInspectWithRaw(t.Context(), h2.Name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	here := []string{"--no-resolve-image", "--detach", "--constraint", "node.hostname==" + h2.Name}
	testbed.Must(t, h1.Shoal(append([]string{"service", "create", "--name", "before"}, append(here, testbed.WebV1)...)...))
	testbed.Eventually(t, patience, running(t, h1, "before", 1))

	do(t, h2.KillEngine)
	began := time.Now()
	// It is Down after a quarter of a minute, which is another test's matter.
	inTime := func(what func() error) {
		t.Helper()
		down := false
		testbed.Eventually(t, patience, func() error {
			err := what()
			if down = err != nil && node().Status.State == swarm.NodeStateDown; down {
				return nil
			}
			return err
		})
		if down {
			t.Skip("this machine is too busy to look before the node is Down")
		}
	}
	inTime(func() error {
		if st := node().Status; !strings.Contains(st.Message, "Docker engine does not answer") || st.State != swarm.NodeStateReady {
			return fmt.Errorf("%s is %+v", h2.Name, st)
		}
		return nil
	})
	t.Logf("the managers know after %s", time.Since(began).Round(time.Millisecond))
	testbed.Must(t, h1.Shoal(append([]string{"service", "create", "--name", "waits"}, append(here, testbed.WebV1)...)...))
	inTime(func() error {
		if all := strings.Join(history(t, h1, "waits", "{{.CurrentState}} {{.Error}}"), "\n"); missing(all, "Pending", "engine not answering on 1 node") != "" {
			return errors.New(all)
		}
		return running(t, h1, "before", 1)()
	})
	create(t, h1, "--name", "other", "--replicas", "2", testbed.WebV1)
	for _, task := range tasks(t, h1, "other") {
		if task.NodeID == node().ID {
			t.Errorf("a task was given to %s, whose engine is dead", h2.Name)
		}
	}

	do(t, h2.StartEngine)
	began = time.Now()
	testbed.Eventually(t, patience, running(t, h1, "waits", 1))
	t.Logf("it runs tasks again %s after its engine is back", time.Since(began).Round(time.Millisecond))
	if st := node().Status; st.State != swarm.NodeStateReady || st.Message != "" {
		t.Errorf("%s is %+v", h2.Name, st)
	}
}

// discard removes a service and waits until nothing is left of it.
func discard(t *testing.T, h *testbed.Host, name string) {
	t.Helper()
	testbed.Must(t, h.Shoal("service", "rm", name))
	testbed.Eventually(t, patience, func() error { return onlyThese(h, nil) })
}

// startTime starts the engine and tells how long it took to answer.
func startTime(t *testing.T, h *testbed.Host) time.Duration {
	t.Helper()
	begin := time.Now()
	do(t, h.StartEngine)
	return time.Since(begin).Round(time.Millisecond)
}
