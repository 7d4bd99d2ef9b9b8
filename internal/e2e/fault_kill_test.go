package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

const (
	kills   = 50
	writers = 3
	// perWriter bounds the services that one writer has at a time.
	perWriter = 3
)

// TestKilledAtAnyMoment kills the daemon again and again while clients change
// services: what was acknowledged must hold, and what runs must run on.
func TestKilledAtAnyMoment(t *testing.T) {
	h, outside := node(t)
	quiet(t, h)
	rnd, seed := seeded(t)
	deploy(t, h, "bystander", 2, 8080)
	before := mustLive(t, h, "bystander")
	traffic := startFlow(t, outside, fmt.Sprintf("http://%s:8080/", h.IP))

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var changes atomic.Int32
	ws := make([]*writer, writers)
	for i := range ws {
		ws[i] = &writer{
			name: fmt.Sprintf("w%d", i), api: dialed(t, h.API), changes: &changes,
			rnd: rand.New(rand.NewPCG(seed, uint64(i)+1)), model: map[string]outcomes{},
		}
		wg.Go(func() { ws[i].run(ctx) })
	}

	begin := time.Now()
	for range kills {
		killOnce(t, h, rnd)
	}
	t.Logf("%d kills in %s, %d acknowledged changes", kills, time.Since(begin).Round(time.Millisecond), changes.Load())
	do(t, startShoal(h))
	stop()
	wg.Wait()

	want := map[string]int{"bystander": 2}
	for _, w := range ws {
		if err := errors.Join(w.failed, w.settle(t.Context())); err != nil {
			t.Fatalf("client %s: %v", w.name, err)
		}
		for name, o := range w.model {
			if n := o.only(); n != absent {
				want[name] = n
			}
		}
	}
	if changes.Load() < kills {
		t.Errorf("only %d changes were acknowledged: the kills hit an idle daemon", changes.Load())
	}
	testbed.Eventually(t, patience, func() error { return onlyThese(h, want) })
	for name, n := range want {
		testbed.Eventually(t, patience, func() error { return settled(h, name, n) })
	}
	untouched(t, h, "bystander", before)
	testbed.Eventually(t, patience, func() error { return meshed(outside, h, "bystander", 8080, 2) })
	traffic.check(t)
}

// killOnce starts the daemon if need be and kills it at a random moment, be it
// while it is still starting.
func killOnce(t *testing.T, h *testbed.Host, rnd *rand.Rand) {
	t.Helper()
	started := make(chan error, 1)
	go func() {
		if up, err := h.ShoalRunning(); err != nil || up {
			started <- err
			return
		}
		started <- h.StartShoal(context.WithoutCancel(t.Context()))
	}()
	moment := time.Duration(rnd.Int64N(int64(2 * time.Second)))
	if rnd.IntN(4) == 0 {
		moment = time.Duration(rnd.Int64N(int64(100 * time.Millisecond)))
	}
	<-time.After(moment) // the moment itself is what is tested: there is no condition to it
	testbed.Eventually(t, patience, func() error { _, err := h.ShoalPID(); return err })
	do(t, h.KillShoal)
	if err := <-started; err != nil && !strings.Contains(err.Error(), "signal: killed") {
		t.Fatal(err)
	}
}

// absent is the state of a service that is not there; any other is the number
// of its replicas.
const absent = -1

// outcomes are the states that a service may be in, by what its client knows.
type outcomes []int

func (o outcomes) only() int {
	if len(o) != 1 {
		panic(fmt.Sprintf("still in doubt: %v", o))
	}
	return o[0]
}

// writer is a client that changes services of its own and remembers what was
// acknowledged.
type writer struct {
	name    string
	api     *client.Client
	rnd     *rand.Rand
	model   map[string]outcomes
	made    int
	changes *atomic.Int32
	idle    bool // its services have no tasks: it is about what is agreed upon
	failed  error
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.step(ctx); err != nil && ctx.Err() == nil {
			w.failed = err
			return
		}
	}
}

// step makes one change, after it has seen that the last ones hold.
func (w *writer) step(ctx context.Context) error {
	if err := w.settle(ctx); err != nil {
		return err
	}
	var alive []string
	for name, o := range w.model {
		if slices.Equal(o, outcomes{absent}) {
			delete(w.model, name)
		} else {
			alive = append(alive, name)
		}
	}
	slices.Sort(alive)
	do := w.rnd.IntN(3)
	switch {
	case len(alive) == 0 || do == 0 && len(alive) < perWriter:
		w.made++
		return w.create(ctx, fmt.Sprintf("%s-%d", w.name, w.made), w.rnd.IntN(3))
	case do == 1:
		return w.remove(ctx, alive[w.rnd.IntN(len(alive))])
	}
	return w.scale(ctx, alive[w.rnd.IntN(len(alive))], w.rnd.IntN(3))
}

func (w *writer) create(ctx context.Context, name string, replicas int) error {
	w.model[name] = outcomes{absent}
	spec := webSpec(name, uint64(replicas), 0)
	if w.idle {
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.nowhere==yes"}}
	}
	_, err := w.api.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
	return w.concluded(name, replicas, err)
}

func (w *writer) remove(ctx context.Context, name string) error {
	return w.concluded(name, absent, w.api.ServiceRemove(ctx, name))
}

func (w *writer) scale(ctx context.Context, name string, replicas int) error {
	s, err := w.look(ctx, name)
	if err != nil {
		return err
	}
	if s == nil {
		if slices.Contains(w.model[name], absent) {
			return nil // that was in doubt
		}
		return fmt.Errorf("service %s vanished", name)
	}
	n := uint64(replicas)
	s.Spec.Mode.Replicated.Replicas = &n
	_, err = w.api.ServiceUpdate(ctx, s.ID, s.Version, s.Spec, swarm.ServiceUpdateOptions{})
	return w.concluded(name, replicas, err)
}

// concluded notes how a change ended. Whatever is not acknowledged may have
// happened or not, save what was refused for what it asked: these clients ask
// for nothing that may be refused.
func (w *writer) concluded(name string, to int, err error) error {
	switch {
	case err == nil:
		w.changes.Add(1)
		w.model[name] = outcomes{to}
	case errdefs.IsNotFound(err) && slices.Contains(w.model[name], absent):
		// That was in doubt, and still is if it was the making of it.
	case errdefs.IsInvalidArgument(err), errdefs.IsConflict(err), errdefs.IsNotFound(err):
		return fmt.Errorf("bring %s from %v to %d: %w", name, w.model[name], to, err)
	default:
		w.model[name] = append(w.model[name], to)
	}
	return nil
}

// settle compares every service with what is known of it; what was in doubt is
// known afterwards.
func (w *writer) settle(ctx context.Context) error {
	for name, o := range w.model {
		s, err := w.look(ctx, name)
		if err != nil {
			return err
		}
		now := absent
		if s != nil {
			now = int(*s.Spec.Mode.Replicated.Replicas)
		}
		if !slices.Contains(o, now) {
			return fmt.Errorf("service %s has state %d, want one of %v: an acknowledged change was lost", name, now, o)
		}
		// One manager that came back has applied all it ever will of a change that
		// was in doubt. Among several it may still be under way, and take effect
		// until another change of the same service has been acknowledged.
		if len(o) == 1 || !w.idle {
			w.model[name] = outcomes{now}
		}
	}
	return nil
}

// look reads a service, nil if it is not there, as soon as a daemon answers.
func (w *writer) look(ctx context.Context, name string) (found *swarm.Service, err error) {
	err = testbed.Poll(ctx, patience, func() error {
		s, _, err := w.api.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
		switch {
		case err == nil:
			found = &s
		case errdefs.IsNotFound(err):
			found, err = nil, nil
		}
		return err
	})
	return found, err
}

// onlyThese tells whether the engine runs as many containers of each service as
// it should, and has none, running or not, of a service that is gone.
func onlyThese(h *testbed.Host, want map[string]int) error {
	engine, err := h.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", "com.docker.swarm.task"))})
	if err != nil {
		return err
	}
	have := map[string]int{}
	for _, c := range list {
		name := c.Labels["com.docker.swarm.service.name"]
		if _, ok := want[name]; !ok {
			return fmt.Errorf("container %v is left of a service that is gone", c.Names)
		}
		if c.State == container.StateRunning {
			have[name]++
		}
	}
	for name, n := range want {
		if have[name] != n {
			return fmt.Errorf("%d containers of %s run, want %d", have[name], name, n)
		}
	}
	return nil
}
