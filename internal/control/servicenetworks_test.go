package control

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func on(networks ...string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) {
		for _, n := range networks {
			s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
		}
	}
}

// TestPredefinedNetworks: a service may be on the engines' own networks, by name or
// by ID, as far as an engine can do what it asks for.
func TestPredefinedNetworks(t *testing.T) {
	w := newWorld(t)
	if _, err := w.CreateNetwork(t.Context(), network.CreateRequest{Name: "front", CreateOptions: network.CreateOptions{Driver: "overlay"}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"host": api.HostNetwork, "bridge": api.BridgeNetwork, api.HostNetwork: api.HostNetwork} {
		s := w.create(spec("on-"+name, on(name)))
		if got := s.Spec.TaskTemplate.Networks[0].Target; got != want {
			t.Errorf("%s became %s, want %s", name, got, want)
		}
		if err := w.update(t.Context(), func(tx *store.Tx) error {
			return tx.Put(&api.Task{Meta: api.Meta{ID: "task-" + name}, ServiceID: s.ID, Revision: s.Revision})
		}); err != nil {
			t.Fatal(err)
		}
		task, err := w.Task("task-" + name)
		if err != nil {
			t.Fatal(err)
		}
		if at := task.NetworksAttachments; len(at) != 1 || at[0].Network.ID != want || at[0].Network.Spec.Labels["com.docker.swarm.predefined"] != "true" {
			t.Errorf("a task on %s is on %+v", name, at)
		}
	}
	w.create(spec("both", on("bridge", "front")))
	for want, change := range map[string]func(*swarm.ServiceSpec){
		"network host can not be combined":          on("host", "front"),
		"network host is given more than once":      on("host", api.HostNetwork),
		"ports can not be published with network h": func(s *swarm.ServiceSpec) { on("host")(s); publish(host(80, 80))(s) },
		"network bridge knows no names: alias www": func(s *swarm.ServiceSpec) {
			on("bridge")(s)
			s.TaskTemplate.Networks[0].Aliases = []string{"www"}
		},
	} {
		_, err := w.CreateService(t.Context(), spec("refused", change), "")
		wantError(t, err, errdefs.IsInvalidArgument, want)
	}
	_, err := w.CreateService(t.Context(), spec("refused", on("none")), "")
	wantError(t, err, errdefs.IsNotFound, "network none not found")
}
