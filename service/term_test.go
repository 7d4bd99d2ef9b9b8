package service

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestStalePlanIsDropped commits a plan made before the service changed: none
// of it is written, and its addresses and places are free again.
func TestStalePlanIsDropped(t *testing.T) {
	changes := map[string]func(tx *store.Tx) error{
		"scaled": func(tx *store.Tx) error {
			s, _ := tx.Services.Get("web")
			s = api.Clone(s)
			none := uint64(0)
			s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &none}
			return tx.Put(s)
		},
		"removed": func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := stoppedWorld(t, 2)
			w.create(3, "v1", published)
			term := newTerm(w.store, zap.NewNop())
			v := w.store.View()
			term.rebuild(v)
			free := term.leases.pools["ingress"].Free()
			b := &batch{term: term, steps: term.planService(v, "web", time.Now())}
			if len(b.steps) != 4 || term.leases.pools["ingress"].Free() != free-4 {
				t.Fatalf("%d steps, %d addresses taken", len(b.steps), free-term.leases.pools["ingress"].Free())
			}
			w.update(change)
			before := w.store.View().Index
			b.flush(t.Context())
			if w.store.View().Index != before || len(w.tasks(nil)) != 0 {
				t.Errorf("a stale plan was written%s", w.dump())
			}
			if now := term.leases.pools["ingress"].Free(); now != free {
				t.Errorf("%d addresses are lost", free-now)
			}
		})
	}
}

// TestFailedWrites: an entry that nobody knows the fate of may be applied later,
// so that its addresses are not given out again; those of one that certainly
// failed are.
func TestFailedWrites(t *testing.T) {
	for _, c := range []struct {
		err  error
		kept int
	}{
		{fmt.Errorf("leadership lost while committing: %w", errdefs.ErrUnknown), 3}, // the VIP and two tasks'
		{fmt.Errorf("not the leader: %w", errdefs.ErrUnavailable), 0},
		{store.ErrTooLarge, 0},
	} {
		w := stoppedWorld(t, 1)
		w.create(2, "v1", published)
		term := newTerm(w.store, zap.NewNop())
		v := w.store.View()
		term.rebuild(v)
		free := term.leases.pools["ingress"].Free()
		lost := &losing{err: c.err}
		w.store.Connect(lost)
		b := &batch{term: term, steps: term.planService(v, "web", time.Now())}
		b.flush(t.Context())
		if lost.entries == 0 {
			t.Fatalf("%v: nothing was proposed", c.err)
		}
		if _, ok := term.wakes.first(); !ok {
			t.Errorf("%v: nothing asks for another attempt", c.err)
		}
		if kept := free - term.leases.pools["ingress"].Free(); kept != c.kept {
			t.Errorf("%v: %d addresses are kept, want %d", c.err, kept, c.kept)
		}
	}
}

type losing struct {
	entries int
	err     error
}

func (l *losing) Apply(context.Context, []byte) error {
	l.entries++
	return l.err
}

// TestTooLargeIsSplit: a batch that does not fit into one entry is cut.
func TestTooLargeIsSplit(t *testing.T) {
	w := stoppedWorld(t, 1)
	w.create(1, "v1")
	v := w.store.View()
	s, _ := v.Services.Get("web")
	term := newTerm(w.store, zap.NewNop())
	term.rebuild(v)
	b := &batch{term: term}
	for i := range 20 {
		task := &api.Task{Meta: api.Meta{ID: fmt.Sprint("t", i)}, ServiceID: "web", Slot: i + 1}
		task.Status.Err = string(make([]byte, store.MaxTxn/50)) // JSON makes six bytes of each
		b.steps = append(b.steps, step{serviceID: "web", service: s, puts: []api.Object{task}})
	}
	b.flush(t.Context())
	if n := len(w.tasks(nil)); n != 20 {
		t.Errorf("%d of 20 tasks were written", n)
	}
}

// stoppedWorld is a world in which nobody leads and no node runs anything.
func stoppedWorld(t *testing.T, nodes int) *world {
	w := &world{t: t, store: store.New()}
	w.update(func(tx *store.Tx) error {
		n := &api.Network{Meta: api.Meta{ID: "ingress"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}}}
		n.Spec.Ingress = true
		return tx.Put(n)
	})
	for i := range nodes {
		w.update(func(tx *store.Tx) error { return tx.Put(readyNode(fmt.Sprint("n", i+1))) })
	}
	return w
}

// TestWaitingTasksAreWoken: a node that joins and resources that another
// service gives back end the wait of tasks that found no node.
func TestWaitingTasksAreWoken(t *testing.T) {
	half := func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: 1 << 30}}
	}
	inWorld(t, 0, func(w *world) {
		w.update(func(tx *store.Tx) error {
			r := &api.Revision{Meta: api.Meta{ID: "big-1"}, ServiceID: "big", Number: 1}
			r.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "big"}
			half(&r.Spec)
			if err := tx.Put(r); err != nil {
				return err
			}
			s := &api.Service{Meta: api.Meta{ID: "big"}, Spec: r.Spec, Revision: r.ID}
			s.Spec.Name = "big"
			return tx.Put(s)
		})
		w.wait(5 * time.Second)
		w.expectRunning("")
		w.update(func(tx *store.Tx) error { return tx.Put(readyNode("n1")) })
		w.wait(2 * time.Second)
		w.expectRunning("1:big-1")

		w.create(1, "v1", half)
		w.wait(5 * time.Second)
		w.expectRunning("1:big-1")
		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "big") })
		w.wait(stops + 2*time.Second)
		w.expectRunning("1:1")
	})
}

// TestFailuresAddUp: failures of several slots count together, even if each
// slot recovered before the next one failed.
func TestFailuresAddUp(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		crashed := map[int]bool{}
		w.fate = func(task *api.Task, image string) string {
			if image != "v2" || task.Slot == 1 || crashed[task.Slot] || task.DesiredState != swarm.TaskStateRunning {
				return ""
			}
			crashed[task.Slot] = true
			return "crash 1s"
		}
		w.create(4, "v1", updating(swarm.UpdateConfig{Parallelism: 1, MaxFailureRatio: 0.25, Delay: 20 * time.Second}))
		w.wait(time.Second)
		w.change("v2")
		w.wait(3 * time.Minute)
		w.expectUpdate(swarm.UpdateStatePaused, "early termination")
		if !crashed[2] || !crashed[3] || crashed[4] {
			t.Errorf("crashed: %v", crashed)
		}
	})
}

// TestNewLeaderDoesNotReuseAddresses: what was freed just before a change of
// leaders rests afterwards too.
func TestNewLeaderDoesNotReuseAddresses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.create(3, "v1", published)
		w.wait(time.Second)
		old := map[netip.Prefix]bool{}
		for _, task := range w.tasks(nil) {
			old[task.Networks[0].Addr] = true
		}
		w.scale(1)
		w.wait(stops + time.Second)
		w.depose()
		w.lead()
		synctest.Wait()
		w.scale(3)
		w.wait(time.Second)
		w.expectRunning("1:1 2:1 3:1")
		for _, task := range w.tasks(func(t *api.Task) bool { return t.Slot > 1 }) {
			if old[task.Networks[0].Addr] {
				t.Errorf("%s was reused at once", task.Networks[0].Addr)
			}
		}
	})
}

// Benchmark10kTasks1kNodes measures from the service in the store until every
// task has a node in the store: plan, schedule, address, encode, apply.
func Benchmark10kTasks1kNodes(b *testing.B) {
	const replicas = 10_000
	for b.Loop() {
		b.StopTimer()
		s := store.New()
		put := func(all ...api.Object) {
			err := s.Update(b.Context(), func(tx *store.Tx) error {
				for _, o := range all {
					if err := tx.Put(o); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		for i := range 1000 {
			put(readyNode(fmt.Sprintf("n%04d", i)))
		}
		n := &api.Network{Meta: api.Meta{ID: "ingress"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/16")}}}
		n.Spec.Ingress = true
		put(n)
		r := &api.Revision{Meta: api.Meta{ID: "r1"}, ServiceID: "web", Number: 1}
		count := uint64(replicas)
		r.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &count}
		r.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: 1 << 20}}
		r.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone!=far"}}
		published(&r.Spec)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		feed := s.Watch(api.KindTask)
		b.StartTimer()

		put(r, &api.Service{Meta: api.Meta{ID: "web"}, Spec: r.Spec, Revision: "r1"})
		go func() { done <- New(Config{Store: s, Log: zap.NewNop()}).Run(ctx) }()
		for placed := 0; placed < replicas; {
			<-feed.Ready()
			feed.Take()
			placed = 0
			if v := s.View(); v.Tasks.Len() == replicas {
				for t := range v.Tasks.All() {
					if t.NodeID != "" {
						placed++
					}
				}
			}
		}
		b.StopTimer()
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		feed.Close()
		b.StartTimer()
	}
}

// TestRunsSinceTheViewSaysSo: a view may be newer than what was taken in. A task
// that runs there alone does not run since ever, or the delay before the next
// would be over.
func TestRunsSinceTheViewSaysSo(t *testing.T) {
	s := store.New()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for id, state := range map[string]swarm.TaskState{"new": swarm.TaskStateRunning, "known": swarm.TaskStateRunning, "early": swarm.TaskStateReady} {
			task := &api.Task{Meta: api.Meta{ID: id}, ServiceID: "web", Status: swarm.TaskStatus{State: state}}
			if err := tx.Put(task); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	v := s.View()
	begun, _ := v.Tasks.Get("new")
	longAgo := begun.UpdatedAt.Add(-time.Hour)
	term := &term{running: map[string]time.Time{"known": longAgo}}
	for id, want := range map[string]time.Time{"new": begun.UpdatedAt, "known": longAgo, "early": {}, "gone": {}} {
		if got := term.input(v, "web", begun.UpdatedAt).runningSince(id); !got.Equal(want) {
			t.Errorf("task %s runs since %s, want %s", id, got, want)
		}
	}
}
