package session

import (
	"maps"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestFilesOfANode: a node is told the secrets of what it is to run, and nothing
// else.
func TestFilesOfANode(t *testing.T) {
	s := store.New()
	put := func(objects ...api.Object) {
		t.Helper()
		if err := s.Update(t.Context(), func(tx *store.Tx) error {
			for _, o := range objects {
				if err := tx.Put(o); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	file := func(kind api.Kind, id string) {
		f := &api.File{Meta: api.Meta{ID: id}, Of: kind, Number: 1}
		f.Spec.Name = id
		for _, p := range f.Split(make([]byte, api.PieceSize+1)) {
			put(p)
		}
		put(f)
	}
	file(api.KindSecret, "key")
	file(api.KindSecret, "other")
	file(api.KindConfig, "conf")
	r := &api.Revision{Meta: api.Meta{ID: "r"}, ServiceID: "s"}
	r.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Secrets: []*swarm.SecretReference{{SecretID: "key"}, {SecretID: "gone"}},
		Configs: []*swarm.ConfigReference{{ConfigID: "conf"}},
	}
	put(r, &api.Node{Meta: api.Meta{ID: "n1"}}, &api.Node{Meta: api.Meta{ID: "n2"}})
	task := func(desired, state swarm.TaskState) {
		put(&api.Task{Meta: api.Meta{ID: "t"}, ServiceID: "s", Revision: "r", NodeID: "n1", DesiredState: desired, Status: swarm.TaskStatus{State: state}})
	}
	for _, tt := range []struct {
		desired, state swarm.TaskState
		node           string
		want           []string
	}{
		{swarm.TaskStateRunning, swarm.TaskStateAssigned, "n1", []string{"conf", "key"}},
		{swarm.TaskStateReady, swarm.TaskStateReady, "n1", []string{"conf", "key"}},
		{swarm.TaskStateRunning, swarm.TaskStateRunning, "n1", []string{"conf", "key"}},
		{swarm.TaskStateRunning, swarm.TaskStateRunning, "n2", nil},
		{swarm.TaskStateRunning, swarm.TaskStateFailed, "n1", nil},
		{swarm.TaskStateShutdown, swarm.TaskStateRunning, "n1", nil},
	} {
		task(tt.desired, tt.state)
		st := nodeState(s.View(), tt.node, tables{})
		if got := slices.Sorted(maps.Keys(st.Files)); !slices.Equal(got, tt.want) {
			t.Errorf("%s of a task that is %s and wanted %s: %v, want %v", tt.node, tt.state, tt.desired, got, tt.want)
		}
		if len(st.Pieces) != 2*len(tt.want) {
			t.Errorf("%d pieces for %d files", len(st.Pieces), len(tt.want))
		}
	}
}
