package control

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
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
