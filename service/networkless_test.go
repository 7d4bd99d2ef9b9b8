package service

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// TestNetworklessNode gives a node that can have no networks the tasks alone that
// need none, and says so.
func TestNetworklessNode(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.setNode("n1", func(n *api.Node) { n.Networkless = "no CAP_NET_ADMIN" })
		w.create(2, "v1", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080}}}
		})
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1")
		for _, task := range w.tasks(isRunning) {
			if task.NodeID != "n2" {
				t.Errorf("a task is on %s%s", task.NodeID, w.dump())
			}
		}
		w.setNode("n2", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain })
		w.wait(2 * time.Second)
		const why = "no suitable node (networks and published ports not possible on 1 node: no CAP_NET_ADMIN; 1 node drained)"
		for _, task := range w.tasks(func(t *api.Task) bool { return t.DesiredState <= swarm.TaskStateRunning }) {
			if task.NodeID != "" || task.Status.Err != why {
				t.Errorf("on %q: %q, want %q", task.NodeID, task.Status.Err, why)
			}
		}
	})
}
