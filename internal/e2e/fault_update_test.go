package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestUpdatesUnderFaults updates services of all modes while managers and engines
// are killed and a host is lost, and wants each at the revision that was asked for
// last, or back at the one before it, whole. TestUpdatesUnderFaults of
// internal/daemon does that in simulated time with many more faults.
func TestUpdatesUnderFaults(t *testing.T) {
	n := rounds(t, 0)
	if n == 0 {
		t.Skip("half a minute a round: set " + soakEnv + " to a number of rounds")
	}
	rnd, _ := seeded(t)
	bed := swarmOf(t, 3, 1)
	hosts := bed.Hosts()
	everybodyVotes(t, hosts[:3])
	roll := []string{"--update-parallelism", "2", "--update-failure-action", "rollback", "--label", "shoal.start-timeout=20s", "--restart-delay", "500ms"}
	create(t, hosts[0], append(append([]string{"--name", "web", "--replicas", "4", "--env", "V=0"}, roll...), testbed.WebV1)...)
	create(t, hosts[0], append(append([]string{"--name", "all", "--mode", "global", "--env", "V=0"}, roll...), testbed.WebV1)...)
	testbed.Must(t, hosts[0].Shoal("service", "create", "-d", "--no-resolve-image", "--name", "work", "--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2", "--env", "V=0", testbed.WebV1, "sleep", "1"))

	for round := range n {
		bad := round%3 == 2
		down := make(chan struct{})
		victim := hosts[rnd.IntN(len(hosts))]
		go func() {
			defer close(down)
			harm(t, victim, rnd)
		}()
		ask := hosts[0]
		if victim == ask {
			ask = hosts[1]
		}
		for _, name := range []string{"web", "all", "work"} {
			args := []string{"service", "update", "-d", "--no-resolve-image", "--env-add", fmt.Sprint("V=", round+1), name}
			if bad && name != "work" {
				args = append([]string{"service", "update", "-d", "--no-resolve-image", "--args", "sh -c 'exit 3'", "--env-add", fmt.Sprint("V=", round+1)}, name)
			}
			testbed.Eventually(t, patience, func() error { return ask.Shoal(args...).Err() })
		}
		<-down
		for _, name := range []string{"web", "all", "work"} {
			testbed.Eventually(t, 6*patience, func() error { return ends(t, ask, name, round+1, bad) })
		}
	}
}

// harm is one of the things that happen to hosts, from its beginning to its end.
func harm(t *testing.T, h *testbed.Host, rnd *rand.Rand) {
	ctx := context.Background()
	steps := []func() error{
		func() error { return h.KillShoal(ctx) },
		func() error { lasts(t.Context(), rnd, 200*time.Millisecond, 3*time.Second); return h.StartShoal(ctx) },
	}
	what := "its daemon was killed"
	switch rnd.IntN(4) {
	case 1:
		what = "its engine was stopped"
		steps = []func() error{
			func() error { return h.StopEngine(ctx) },
			func() error { lasts(t.Context(), rnd, time.Second, 4*time.Second); return h.StartEngine(ctx) },
		}
	case 2:
		what = "it was cut off"
		steps = []func() error{h.LinkDown, func() error { lasts(t.Context(), rnd, time.Second, 12*time.Second); return h.LinkUp() }}
	case 3:
		what = "it was lost"
		steps = []func() error{
			func() error { return h.Crash(ctx) },
			func() error { lasts(t.Context(), rnd, time.Second, 12*time.Second); return h.Boot(ctx) },
		}
	}
	lasts(t.Context(), rnd, 0, 3*time.Second)
	for _, step := range steps {
		if err := step(); err != nil {
			t.Errorf("%s, %s: %v", h.Name, what, err)
		}
	}
	t.Logf("%s: %s", h.Name, what)
}

// ends tells whether a service has come to rest where it may.
func ends(t *testing.T, h *testbed.Host, name string, version int, bad bool) error {
	c, err := h.API()
	if err != nil {
		return err
	}
	defer c.Close()
	s, _, err := c.ServiceInspectWithRaw(t.Context(), name, swarm.ServiceInspectOptions{})
	if err != nil {
		return err
	}
	list, err := c.ServiceList(t.Context(), swarm.ServiceListOptions{Status: true})
	if err != nil {
		return err
	}
	env := strings.Join(s.Spec.TaskTemplate.ContainerSpec.Env, " ")
	state := swarm.UpdateStateCompleted
	if s.UpdateStatus != nil {
		state = s.UpdateStatus.State
	}
	asked := strings.Contains(env, fmt.Sprint("V=", version))
	for _, l := range list {
		if l.ID != s.ID {
			continue
		}
		n := l.ServiceStatus
		switch {
		case s.Spec.Mode.ReplicatedJob != nil:
			if !asked || n.CompletedTasks != 4 {
				return fmt.Errorf("%s is at %s: %+v", name, env, n)
			}
			return nil
		case state == swarm.UpdateStateRollbackCompleted && !asked, state == swarm.UpdateStateCompleted && asked && !bad:
			if n.DesiredTasks < 4 || n.RunningTasks != n.DesiredTasks {
				return fmt.Errorf("%s is %s at %s: %+v", name, state, env, n)
			}
			return nil
		}
	}
	return fmt.Errorf("%s is %s at %s", name, state, env)
}
