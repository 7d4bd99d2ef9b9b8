package service

import (
	"net/netip"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestEncryptedNetwork puts tasks of an encrypted network on nodes that can
// encrypt, says why there is none, and goes on when there is one.
func TestEncryptedNetwork(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.update(func(tx *store.Tx) error {
			n := &api.Network{Meta: api.Meta{ID: "closed-id"}, Subnets: []api.Subnet{{
				Prefix: netip.MustParsePrefix("10.7.0.0/24"), Gateway: netip.MustParseAddr("10.7.0.1"),
			}}}
			n.Spec.Name = "closed"
			n.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.OptionEncrypted: ""}}
			return tx.Put(n)
		})
		w.setNode("n1", func(n *api.Node) { n.WireGuard.Error = "no IPv6" })
		w.create(2, "v1", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "closed"}} // by name, as clients may
		})
		w.wait(time.Second)
		const why = "no suitable node (encrypted network not possible on 2 nodes: no IPv6)"
		for _, task := range w.tasks(nil) {
			if task.NodeID != "" || task.Status.Err != why {
				t.Errorf("on %q: %q, want %q", task.NodeID, task.Status.Err, why)
			}
		}
		rev, _ := w.store.View().Revisions.Get(w.service().Revision)
		verdicts, err := Explain(w.store.View(), rev)
		if err != nil || len(verdicts) != 2 {
			t.Fatalf("%v, %v", verdicts, err)
		}
		for _, v := range verdicts {
			want := "encrypted network not possible: no IPv6"
			if v.NodeID == "n2" {
				want = "encrypted network not possible: " + api.WireGuard{}.WhyNot()
			}
			if v.Why != want {
				t.Errorf("%s: %q, want %q", v.NodeID, v.Why, want)
			}
		}
		w.expectQuiet()

		w.setNode("n2", func(n *api.Node) { n.WireGuard.Key = "k2" })
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1")
		for _, task := range w.tasks(isRunning) {
			if task.NodeID != "n2" {
				t.Errorf("a task is on %s%s", task.NodeID, w.dump())
			}
		}
		// What breaks later moves nothing: the tasks may still be of use.
		w.setNode("n2", func(n *api.Node) { n.WireGuard.Error = "device is gone" })
		w.scale(3)
		w.wait(2 * time.Second)
		w.expectRunning("1:1 2:1")
	})
}
