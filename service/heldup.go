package service

import (
	"maps"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// heldUpMost bounds for how many services HeldUp asks.
const heldUpMost = 20

// HeldUp finds the nodes that take no tasks only because somebody drained or paused
// them, while tasks wait that they would take. It names the services, by node ID.
func HeldUp(v *store.View) map[string][]string {
	closed := map[string]*api.Node{}
	for n := range v.Nodes.All() {
		if n.Spec.Availability != swarm.NodeAvailabilityActive && n.Status.State == swarm.NodeStateReady && !n.NoEngine {
			open := api.Clone(n)
			open.Spec.Availability = swarm.NodeAvailabilityActive
			closed[n.ID] = open
		}
	}
	if len(closed) == 0 {
		return nil
	}
	waiting := map[string]string{} // a revision of each service
	for t := range v.Tasks.All() {
		if t.NodeID == "" && t.Home == "" && scheduler.Wanted(t) && t.Status.Err != "" && !isWaiting(t) && len(waiting) < heldUpMost {
			waiting[t.ServiceID] = t.Revision
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	s := nodesOf(v)
	for _, n := range closed {
		s.SetNode(n)
	}
	held := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(waiting)) {
		r, ok := v.Revisions.Get(waiting[id])
		if !ok {
			continue
		}
		q, err := request(v, r)
		if err != nil {
			continue // no node would take them
		}
		for _, verdict := range s.Explain(q) {
			if closed[verdict.NodeID] != nil && verdict.Why == "" {
				held[verdict.NodeID] = append(held[verdict.NodeID], r.Spec.Name)
			}
		}
	}
	return held
}
