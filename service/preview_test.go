package service

import (
	"errors"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestPreview asks where tasks would go on two nodes, on one of which a service runs that is to be changed.
func TestPreview(t *testing.T) {
	s := store.New()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for _, id := range []string{"n1", "n2"} {
			if err := tx.Put(readyNode(id)); err != nil {
				return err
			}
		}
		spec := wishFor(1, 3<<28)
		if err := tx.Put(&api.Service{Meta: api.Meta{ID: "old"}, Spec: spec, Revision: "r"}); err != nil {
			return err
		}
		if err := tx.Put(&api.Revision{Meta: api.Meta{ID: "r"}, ServiceID: "old", Number: 1, Spec: spec}); err != nil {
			return err
		}
		return tx.Put(&api.Task{
			Meta: api.Meta{ID: "t"}, ServiceID: "old", Revision: "r", NodeID: "n1", Slot: 1, DesiredState: swarm.TaskStateRunning,
			Status: swarm.TaskStatus{State: swarm.TaskStateRunning},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	global := wishFor(0, 0)
	global.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	wrong := wishFor(1, 0)
	wrong.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname == n3"}}
	placed := func(constraint string) swarm.ServiceSpec {
		spec := wishFor(1, 3<<28)
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{constraint}}
		return spec
	}
	for name, test := range map[string]struct {
		wish api.Wish
		kept Kept
		want api.Preview
	}{
		"spread":        {api.Wish{Spec: wishFor(2, 0)}, KeptNowhere, api.Preview{Nodes: map[string]int{"n1": 1, "n2": 1}}},
		"beside":        {api.Wish{Spec: wishFor(2, 1<<29)}, KeptNowhere, api.Preview{Nodes: map[string]int{"n2": 2}}},
		"too much":      {api.Wish{Spec: wishFor(2, 3<<28)}, KeptNowhere, api.Preview{Nodes: map[string]int{"n2": 1}, Waiting: 1, Why: "no suitable node (insufficient memory on 2 nodes: at most 256MiB free, 768MiB reserved by the service)"}},
		"in its place":  {api.Wish{ID: "old", Spec: wishFor(2, 3<<28)}, KeptNowhere, api.Preview{Nodes: map[string]int{"n1": 1, "n2": 1}}},
		"one more":      {api.Wish{ID: "old", Spec: wishFor(2, 3<<28)}, KeptEverywhere, api.Preview{Nodes: map[string]int{"n2": 1}, Kept: 1}},
		"fewer":         {api.Wish{ID: "old", Spec: wishFor(0, 3<<28)}, KeptEverywhere, api.Preview{}},
		"still there":   {api.Wish{ID: "old", Spec: placed("node.hostname != n2")}, KeptWhereAllowed, api.Preview{Kept: 1}},
		"moved":         {api.Wish{ID: "old", Spec: placed("node.hostname != n1")}, KeptWhereAllowed, api.Preview{Nodes: map[string]int{"n2": 1}}},
		"everywhere":    {api.Wish{Spec: global}, KeptNowhere, api.Preview{Nodes: map[string]int{"n1": 1, "n2": 1}}},
		"nowhere":       {api.Wish{Spec: wrong}, KeptNowhere, api.Preview{Waiting: 1, Why: "no suitable node (constraint node.hostname==n3 not satisfied on 2 nodes)"}},
		"without bound": {api.Wish{Spec: wishFor(1<<40, 1<<29)}, KeptNowhere, api.Preview{Nodes: map[string]int{"n2": 2}, Waiting: previewMost - 2, Why: "no suitable node (insufficient memory on 2 nodes: at most 256MiB free, 512MiB reserved by the service)"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Preview(s.View(), []api.Wish{test.wish}, func(api.Wish) Kept { return test.kept })
			if diff := cmp.Diff([]api.Preview{test.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPreviewOfRoom: what is removed makes room for what comes after it.
func TestPreviewOfRoom(t *testing.T) {
	s := store.New()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		r := &api.Revision{Meta: api.Meta{ID: "r"}, ServiceID: "old", Number: 1, Spec: wishFor(1, 3<<28)}
		task := &api.Task{
			Meta: api.Meta{ID: "t"}, ServiceID: "old", Revision: "r", NodeID: "n1", Slot: 1, DesiredState: swarm.TaskStateRunning,
			Status: swarm.TaskStatus{State: swarm.TaskStateRunning},
		}
		return errors.Join(tx.Put(readyNode("n1")), tx.Put(r), tx.Put(task), tx.Put(&api.Service{Meta: api.Meta{ID: "old"}, Spec: r.Spec, Revision: "r"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	none := func(api.Wish) Kept { return KeptNowhere }
	wish := api.Wish{Spec: wishFor(1, 3<<28)}
	if got := Preview(s.View(), []api.Wish{wish}, none); got[0].Waiting != 1 {
		t.Errorf("beside what is there: %+v", got)
	}
	if got := Preview(s.View(), []api.Wish{{ID: "old", Remove: true}, wish}, none); len(got) != 2 || got[1].Nodes["n1"] != 1 {
		t.Errorf("in the place of what goes: %+v", got)
	}
}

func wishFor(replicas uint64, memory int64) swarm.ServiceSpec {
	var spec swarm.ServiceSpec
	spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: memory}}
	return spec
}
