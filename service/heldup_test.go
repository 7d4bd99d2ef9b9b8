package service

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// TestHeldUp: a drained node is named for the tasks that wait and that it would
// take, and for no others.
func TestHeldUp(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		expect := func(want ...string) {
			t.Helper()
			held := HeldUp(w.store.View())
			if got := slices.Sorted(maps.Keys(held)); !slices.Equal(got, want) {
				t.Fatalf("nodes %q hold up %v, want %q%s", got, held, want, w.dump())
			}
			for id, names := range held {
				if !slices.Equal(names, []string{"web"}) {
					t.Errorf("%s holds up %q", id, names)
				}
			}
		}
		availability := func(a swarm.NodeAvailability) func(*api.Node) {
			return func(n *api.Node) { n.Spec.Availability = a }
		}
		w.setNode("n1", availability(swarm.NodeAvailabilityDrain))
		w.setNode("n2", availability(swarm.NodeAvailabilityPause))
		w.create(1, "v1")
		w.wait(time.Second)
		expect() // it runs on n3
		w.change("v2", constrained("node.hostname!=n3"))
		w.wait(time.Minute)
		expect("n1", "n2")
		w.change("v2", constrained("node.hostname!=n3", "node.hostname!=n2"))
		w.wait(time.Minute)
		expect("n1")
		w.setNode("n1", func(n *api.Node) { n.NoEngine = true }) // that holds them up
		w.wait(time.Second)
		expect()
		w.setNode("n1", func(n *api.Node) { n.NoEngine = false })
		w.setNode("n1", availability(swarm.NodeAvailabilityActive))
		w.wait(5 * time.Second)
		expect()
		w.expectRunning("1:3")
	})
}
