package e2e

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestReady: a task gets traffic, and a rollout goes on, when it serves, and not
// when its container merely runs. No health check is needed for that.
func TestReady(t *testing.T) {
	t.Parallel()
	h, outside := node(t)

	t.Run("its port", func(t *testing.T) {
		slow := []string{"--name", "slow", "--publish", "8080:80", "--update-order", "start-first", "--env", "START_DELAY=2s", "--env", "STOP_DELAY=200ms"}
		args := append([]string{"service", "create", "-d", "--no-resolve-image", "--update-monitor", "20s"}, slow...)
		testbed.Must(t, h.Shoal(append(args, testbed.WebV1)...))
		starting := false
		testbed.Eventually(t, patience, func() error {
			all := tasks(t, h, "slow")
			if len(all) == 1 && all[0].Status.State == swarm.TaskStateStarting && containerOf(all[0]) != "" {
				starting = true
			}
			return running(t, h, "slow", 1)()
		})
		if !starting {
			t.Error("the task was running before it served")
		}
		// Nodes hear of the first task that runs a moment later than managers do.
		testbed.Eventually(t, patience, func() error { _, err := answers(outside, url(h, "8080"), 1); return err })
		// Nobody notices an update, though each new task takes seconds to serve.
		update(t, h, "--update-monitor", "300ms", "slow")
		l := startLoad(t, outside, url(h, "8080"))
		testbed.Eventually(t, patience, l.steady)
		update(t, h, "--image", testbed.WebV2, "--update-monitor", "20s", "-d", "slow")
		testbed.Eventually(t, patience, l.met("v2"))
		l.unharmed(t)
	})

	t.Run("staying up", func(t *testing.T) {
		begin := time.Now()
		testbed.Must(t, h.Shoal("service", "create", "-d", "--no-resolve-image", "--name", "deaf", "--publish", "8081:80",
			"--update-monitor", "2s", testbed.WebV1, "sleep", "1000"))
		testbed.Eventually(t, patience, running(t, h, "deaf", 1))
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("a task that accepts nothing counts as running after %s", took)
		}
	})

	t.Run("its health check, often at first", func(t *testing.T) {
		// The engine itself would look for the first time in an hour.
		create(t, h, "--name", "checked", "--health-cmd", "webapp healthcheck", "--health-interval", "1h",
			"--health-start-period", "1h", "--health-start-interval", "200ms", "--env", "HEALTHY_AFTER=1s", testbed.WebV1)
		spec := service(t, h, "checked").Spec.TaskTemplate.ContainerSpec
		if got := spec.Healthcheck.StartInterval; got != 200*time.Millisecond {
			t.Errorf("the spec has a start interval of %s", got)
		}
		for _, task := range tasks(t, h, "checked") {
			if got := inspect(t, h, containerOf(task)).Config.Healthcheck.Interval; got != time.Hour {
				t.Errorf("the container's interval is %s", got)
			}
		}
		update(t, h, "--health-start-interval", "300ms", "checked")
	})
}
