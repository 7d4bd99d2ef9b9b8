package control

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func TestExplain(t *testing.T) {
	w := newWorld(t)
	n, _ := w.View().Nodes.Get("node1")
	n = api.Clone(n)
	n.Status.State, n.Spec.Availability = swarm.NodeStateReady, swarm.NodeAvailabilityActive
	w.put(n)
	s := w.create(spec("web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==n2"}}
	}))
	const why = "no suitable node (constraint node.hostname==n2 not satisfied on 1 node)"
	waiting := &api.Task{Meta: api.Meta{ID: "t1"}, ServiceID: s.ID, Revision: s.Revision, Slot: 1, DesiredState: swarm.TaskStateRunning}
	waiting.Status = swarm.TaskStatus{State: swarm.TaskStatePending, Err: why}
	runs := api.Clone(waiting)
	runs.ID, runs.Slot, runs.NodeID = "t2", 2, "node1"
	runs.Status = swarm.TaskStatus{State: swarm.TaskStateRunning}
	w.put(waiting, runs)

	e, err := w.Explain("web")
	if err != nil || e.Running != 1 || len(e.Tasks) != 1 || e.Tasks[0].Name != "web.1" || e.Tasks[0].Why != why ||
		len(e.Nodes) != 1 || e.Nodes[0].Why != "constraint node.hostname==n2 not satisfied" || e.Nodes[0].Tasks != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	const warning = "no node meets the constraint node.hostname==n2 now: service web gets no new task until one does; see 'shoal node ls' and 'shoal explain web'"
	if got := w.Warnings(s.ID); len(got) != 1 || got[0] != warning {
		t.Errorf("warnings %q", got)
	}
	if got := w.Warnings("none"); got != nil {
		t.Errorf("warnings about no service: %q", got)
	}
	n = api.Clone(n)
	n.NoEngine, n.Status.Message = true, "Docker engine does not answer: connection refused"
	w.put(n)
	if e, err := w.Explain("web"); err != nil || len(e.Nodes) != 1 || e.Nodes[0].Why != n.Status.Message {
		t.Errorf("without an engine: %+v, %v", e, err)
	}
	if e, err := w.Explain("t1"); err != nil || len(e.Tasks) != 1 || len(e.Nodes) != 1 {
		t.Errorf("a task: %+v, %v", e, err)
	}
	if e, err := w.Explain("t2"); err != nil || len(e.Nodes) != 0 || e.Tasks[0].Node != "n1" {
		t.Errorf("a task that runs: %+v, %v", e, err)
	}
	none := w.create(spec("none", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{MaxAttempts: new(uint64(1))}
	}))
	over := &api.Task{Meta: api.Meta{ID: "t3"}, ServiceID: none.ID, Revision: none.Revision, NodeID: "node1", Slot: 1, Attempts: 1, DesiredState: swarm.TaskStateRunning}
	over.Status = swarm.TaskStatus{State: swarm.TaskStateFailed, Err: "it broke"}
	w.put(over)
	if e, err := w.Explain("none"); err != nil || len(e.Tasks) != 1 || e.Tasks[0].Why != "it broke; not tried again: 1 attempt is allowed" {
		t.Errorf("used up: %+v, %v", e, err)
	}
	_, err = w.Explain("nothing")
	wantError(t, err, errdefs.IsNotFound, "no service or task nothing")
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.Labels = api.SetStopped(s.Labels, true) })
	if e, err = w.Explain("web"); err != nil || len(e.Notes) != 1 || e.Notes[0] != "the service is stopped: 'shoal service start web' starts it" {
		t.Errorf("stopped: %+v, %v", e, err)
	}
}

// TestExplainWhatRuns: a service all of whose tasks run, with what there is to say
// about it all the same.
func TestExplainWhatRuns(t *testing.T) {
	w := newWorld(t)
	n, _ := w.View().Nodes.Get("node1")
	n = api.Clone(n)
	n.Status.State, n.Spec.Availability = swarm.NodeStateReady, swarm.NodeAvailabilityActive
	other := api.Clone(n)
	other.ID, other.Description.Hostname = "node2", "n2"
	w.put(n, other)
	if _, err := w.CreateNetwork(t.Context(), network.CreateRequest{Name: "small", CreateOptions: network.CreateOptions{
		Driver: "overlay", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.9.0.0/29"}}},
	}}); err != nil {
		t.Fatal(err)
	}
	small, _ := w.View().Networks.One(store.ByName, "small")
	s := w.create(spec("web", func(s *swarm.ServiceSpec) {
		s.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(4))}
		s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
		s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "small"}}
	}))
	run := func(count int) {
		for i := range count {
			task := &api.Task{Meta: api.Meta{ID: fmt.Sprint("t", i)}, ServiceID: s.ID, Revision: s.Revision, Slot: i + 1, NodeID: "node1", DesiredState: swarm.TaskStateRunning}
			task.Status.State = swarm.TaskStateRunning
			task.Networks = []api.Attachment{{NetworkID: small.ID, Addr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(2 + i)}), 29)}}
			w.put(task)
		}
	}
	run(4)
	e, err := w.Explain("web")
	if err != nil || e.Running != 4 || e.Outdated != 0 || len(e.Tasks) != 0 || len(e.Nodes) != 2 || e.Nodes[0].Why != "" || e.Nodes[1].Why != "" {
		t.Fatalf("%+v, %v", e, err)
	}
	const lopsided = "2 tasks would be on other nodes if placed now: what runs is never moved by itself, 'shoal rebalance web' moves it"
	if len(e.Notes) != 1 || e.Notes[0] != lopsided {
		t.Errorf("notes %q", e.Notes)
	}

	run(5) // and that is all that the network has
	const full = `allocate address: network "small" has no free address: all 5 of 10.9.0.0/29 are in use`
	if e, err = w.Explain("web"); err != nil || !strings.HasPrefix(e.Nodes[0].Why, full) || !strings.HasPrefix(e.Nodes[1].Why, full) {
		t.Errorf("a full network: %+v, %v", e.Nodes, err)
	}

	now, _ := w.View().Services.Get(s.ID)
	now = api.Clone(now)
	now.Revision = "another"
	now.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateRollbackPaused, Message: "rollback paused due to x"}
	w.put(now)
	if e, err = w.Explain("web"); err != nil || e.Outdated != 5 || len(e.Notes) != 1 ||
		e.Notes[0] != "rollback paused: rollback paused due to x; go on with 'shoal service update web'" {
		t.Errorf("paused: %+v, %v", e, err)
	}
}
