package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// TestChaos lets everything happen to a service at once: scaling, new specs,
// good and bad, crashes, nodes that come and go, leaders that do. At any time
// no address belongs to two, and no slot has more tasks than the order allows;
// once left in peace the service is as it should be.
func TestChaos(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, 3, func(w *world) { chaos(w, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func chaos(w *world, rnd *rand.Rand) {
	w.pools("10.0.0.0/25")
	fates := map[string]string{}
	w.fate = func(_ *api.Task, image string) string { return fates[image] }
	c := swarm.UpdateConfig{Parallelism: rnd.Uint64N(3), FailureAction: swarm.UpdateFailureActionRollback}
	if rnd.IntN(2) == 0 {
		c.Order = swarm.UpdateOrderStartFirst
	}
	w.create(4, "v1", published, updating(c))
	image := 1
	for range 150 {
		switch rnd.IntN(8) {
		case 0:
			w.scale(1 + rnd.Uint64N(8))
		case 1:
			image++
			name := fmt.Sprint("v", image)
			w.mu.Lock()
			fates[name] = []string{"", "", "crash 2s", "never"}[rnd.IntN(4)]
			w.mu.Unlock()
			w.change(name)
		case 2:
			if all := w.tasks(isRunning); len(all) > 0 {
				w.report(all[rnd.IntN(len(all))].ID, swarm.TaskStateFailed, "killed")
			}
		case 3:
			w.setNode(fmt.Sprint("n", 1+rnd.IntN(3)), func(n *api.Node) {
				n.Status.State = []swarm.NodeState{swarm.NodeStateReady, swarm.NodeStateDown}[rnd.IntN(2)]
			})
		case 4:
			w.setNode(fmt.Sprint("n", 1+rnd.IntN(3)), func(n *api.Node) {
				n.Spec.Availability = []swarm.NodeAvailability{"active", "active", "drain", "pause"}[rnd.IntN(4)]
			})
		case 5:
			w.depose()
			w.lead()
		case 6: // a network of somebody else's, perhaps just where this one would grow
			w.update(func(tx *store.Tx) error {
				if err := tx.Delete(api.KindNetwork, "other"); err != nil {
					return err
				}
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(8 * (1 + rnd.IntN(15)))}), 29)
				for _, o := range TakenSubnets(&tx.View) {
					if o.Prefix.Overlaps(p) {
						return nil
					}
				}
				if err := NoteSubnets(tx, netip.Prefix{}); err != nil {
					return err
				}
				return tx.Put(&api.Network{Meta: api.Meta{ID: "other"}, Subnets: []api.Subnet{{Prefix: p}}})
			})
		}
		w.wait(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		w.checkInvariants()
	}

	for i := range 3 {
		w.setNode(fmt.Sprint("n", i+1), func(n *api.Node) {
			n.Status.State, n.Spec.Availability = swarm.NodeStateReady, swarm.NodeAvailabilityActive
		})
	}
	w.change("final")
	w.scale(5)
	w.wait(2 * maxBackOff)
	slots := map[int]bool{}
	for _, task := range w.tasks(isRunning) {
		slots[task.Slot] = task.Revision == w.service().Revision
	}
	if len(slots) != 5 || len(w.tasks(isRunning)) != 5 || slices.Contains(slices.Collect(maps.Values(slots)), false) {
		w.t.Fatalf("in the end %s run: %+v%s", w.running(), w.service().UpdateStatus, w.dump())
	}
	w.expectUpdate(swarm.UpdateStateCompleted, "update completed")
	w.expectQuiet()
}

func (w *world) checkInvariants() {
	w.t.Helper()
	owners := map[string]string{}
	claim := func(addr, owner string) {
		if other, ok := owners[addr]; ok {
			w.t.Fatalf("%s belongs to %s and to %s%s", addr, other, owner, w.dump())
		}
		owners[addr] = owner
	}
	for _, v := range w.service().Endpoint.VirtualIPs {
		claim(v.Addr, "the service")
	}
	limit := 1
	if c := w.service().Spec.UpdateConfig; c.Order == swarm.UpdateOrderStartFirst {
		limit = 2
	}
	wanted := map[int]int{}
	for _, task := range w.tasks(nil) {
		n, ok := w.store.View().Nodes.Get(task.NodeID)
		lasts := isRunning(task) && ok && n.Spec.Availability == swarm.NodeAvailabilityDrain
		spared := task.NodeID == "" && task.DesiredState == swarm.TaskStateReady // no node would take it: what it replaces goes on
		if scheduler.Wanted(task) && !lasts && !spared {                         // which goes when another has its place
			wanted[task.Slot]++
		}
		if api.Terminal(task.Status.State) {
			continue
		}
		for _, a := range task.Networks {
			claim(a.Addr.String(), task.ID)
			if n, ok := w.store.View().Networks.Get(a.NetworkID); ok && !within(n.Subnets, a.Addr.Addr()) {
				w.t.Fatalf("%s of %s is in none of %v", a.Addr, task.ID, n.Subnets)
			}
		}
	}
	subnets := networkSubnets(w.store.View())
	for i, a := range subnets {
		for _, b := range subnets[:i] {
			if a.Prefix.Overlaps(b.Prefix) {
				w.t.Fatalf("%v and %v overlap", a, b)
			}
		}
	}
	for slot, n := range wanted {
		if n > limit {
			w.t.Fatalf("%d wanted tasks in slot %d%s", n, slot, w.dump())
		}
	}
}
