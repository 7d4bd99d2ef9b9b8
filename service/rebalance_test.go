package service

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// rebalance marks what Balance finds, as control does, and tells how much.
func (w *world) rebalance() int {
	w.t.Helper()
	v := w.store.View()
	moves := Balance(v, slices.Collect(v.Services.All()))
	w.update(func(tx *store.Tx) error {
		for _, m := range moves {
			t := api.Clone(m.Task)
			t.Leave = true
			if err := tx.Put(t); err != nil {
				return err
			}
		}
		return nil
	})
	return len(moves)
}

func (w *world) perNode() string {
	count := map[string]int{}
	for _, t := range w.tasks(isRunning) {
		count[t.NodeID]++
	}
	return fmt.Sprint(count)
}

// TestRebalance: new nodes get their share, one task at a time, and at no time
// fewer tasks run than before.
func TestRebalance(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		c := swarm.UpdateConfig{Parallelism: 2, Delay: time.Second}
		w.create(7, "v1", published, updating(c))
		w.wait(time.Second)
		for _, id := range []string{"n2", "n3"} {
			w.update(func(tx *store.Tx) error { return tx.Put(readyNode(id)) })
		}
		w.wait(time.Second)
		w.expectQuiet() // nothing moves by itself
		if n := w.rebalance(); n != 4 {
			t.Fatalf("%d tasks to move%s", n, w.dump())
		}
		for range 60 {
			w.wait(100 * time.Millisecond)
			if n := len(w.tasks(isRunning)); n < 7 {
				t.Fatalf("%d tasks run%s", n, w.dump())
			}
			wanted := len(w.tasks(func(t *api.Task) bool {
				return t.DesiredState == swarm.TaskStateRunning || t.DesiredState == swarm.TaskStateReady
			}))
			if wanted > 7+2 {
				t.Fatalf("%d tasks are wanted: more at a time than an update may replace%s", wanted, w.dump())
			}
		}
		if got := w.perNode(); got != "map[n1:3 n2:2 n3:2]" || len(w.tasks(isRunning)) != 7 {
			t.Fatalf("in the end %s%s", got, w.dump())
		}
		if n := w.rebalance(); n != 0 {
			t.Errorf("%d tasks move again", n)
		}
		w.expectQuiet()
	})
}

// TestRebalanceIsCalledOff: a task whose successor does not come up stays.
func TestRebalanceIsCalledOff(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.fate = func(task *api.Task, _ string) string {
			if task.NodeID == "n2" {
				return "reject"
			}
			return ""
		}
		w.create(4, "v1")
		w.wait(time.Second)
		before := w.tasks(nil)
		w.update(func(tx *store.Tx) error { return tx.Put(readyNode("n2")) })
		w.wait(time.Second)
		if n := w.rebalance(); n != 2 {
			t.Fatalf("%d tasks to move", n)
		}
		for range 1200 {
			w.wait(100 * time.Millisecond)
			for _, old := range before {
				if now, ok := w.store.View().Tasks.Get(old.ID); !ok || !isRunning(now) {
					t.Fatalf("task %s stopped%s", old.ID, w.dump())
				}
			}
		}
		if left := w.tasks(func(t *api.Task) bool { return t.Leave }); len(left) != 0 {
			t.Errorf("still moving%s", w.dump())
		}
		w.expectQuiet()
	})
}

// TestRebalanceTakesAll: many services of one task each are spread, too.
func TestRebalanceTakesAll(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		for i := range 6 {
			name := fmt.Sprint("s", i)
			w.update(func(tx *store.Tx) error {
				s := &api.Service{Meta: api.Meta{ID: name}, Revision: name + "-1"}
				s.Spec.Name = name
				s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(1))}
				s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "v1"}
				if err := tx.Put(&api.Revision{Meta: api.Meta{ID: s.Revision}, ServiceID: s.ID, Number: 1, Spec: s.Spec}); err != nil {
					return err
				}
				return tx.Put(s)
			})
		}
		w.wait(time.Second)
		w.update(func(tx *store.Tx) error { return tx.Put(readyNode("n2")) })
		w.wait(time.Second)
		if n := w.rebalance(); n != 3 {
			t.Fatalf("%d tasks to move", n)
		}
		w.wait(3 * time.Second)
		if got := w.perNode(); got != "map[n1:3 n2:3]" {
			t.Fatalf("in the end %s%s", got, w.dump())
		}
		if n := w.rebalance(); n != 0 {
			t.Errorf("%d tasks move again", n)
		}
	})
}
