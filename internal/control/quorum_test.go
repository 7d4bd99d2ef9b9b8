package control

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// fakeRaft is a Members by what it is told.
type fakeRaft struct{ lost map[string]bool }

func (f fakeRaft) Leader() string               { return "node1" }
func (f fakeRaft) Applied() uint64              { return 7 }
func (f fakeRaft) Reachable(nodeID string) bool { return !f.lost[nodeID] }

// TestDemoteKeepsQuorum tries every number of managers, every number of them
// lost, and both kinds to demote, against what raft's rule says.
func TestDemoteKeepsQuorum(t *testing.T) {
	const (
		forLost  = "demote those that are lost, first"
		forSplit = `"shoal swarm init --force-new-cluster"`
	)
	for _, tt := range []struct {
		managers, lost int
		demote         string // node1 is reachable; the highest numbers are lost
		refused        []string
	}{
		{managers: 1, demote: "node1", refused: []string{"attempting to demote the last manager of the swarm: node n1; promote another node first"}},
		{managers: 2, demote: "node1"},
		{managers: 2, demote: "node2"},
		{managers: 2, lost: 1, demote: "node1", refused: []string{"loss of quorum", "the one other manager can not be reached", forSplit}},
		{managers: 2, lost: 1, demote: "node2"},
		{managers: 3, demote: "node1"},
		{managers: 3, lost: 1, demote: "node1", refused: []string{"loss of quorum", "of the 2 other managers 1 can be reached and 2 are needed", forLost}},
		{managers: 3, lost: 1, demote: "node2", refused: []string{"loss of quorum", forLost}},
		{managers: 3, lost: 1, demote: "node3"},
		{managers: 3, lost: 2, demote: "node1", refused: []string{"of the 2 other managers 0 can be reached and 2 are needed", forSplit}},
		{managers: 3, lost: 2, demote: "node3", refused: []string{"of the 2 other managers 1 can be reached and 2 are needed", forSplit}},
		{managers: 4, lost: 1, demote: "node1"},
		{managers: 4, lost: 2, demote: "node1", refused: []string{"of the 3 other managers 1 can be reached and 2 are needed", forSplit}},
		{managers: 5, lost: 1, demote: "node1"},
		{managers: 5, lost: 2, demote: "node1", refused: []string{"of the 4 other managers 2 can be reached and 3 are needed", forLost}},
		{managers: 5, lost: 2, demote: "node5"},
	} {
		t.Run(fmt.Sprintf("%s of %d, %d lost", tt.demote, tt.managers, tt.lost), func(t *testing.T) {
			w := newWorld(t)
			raft := fakeRaft{lost: map[string]bool{}}
			w.members = raft
			for i := 2; i <= tt.managers; i++ {
				id := fmt.Sprint("node", i)
				w.put(&api.Node{
					Meta: api.Meta{ID: id}, Role: swarm.NodeRoleManager,
					Description: swarm.NodeDescription{Hostname: fmt.Sprint("n", i)},
					Spec:        swarm.NodeSpec{Role: swarm.NodeRoleManager, Availability: swarm.NodeAvailabilityActive},
				})
				raft.lost[id] = i > tt.managers-tt.lost
			}
			n, err := w.Node(tt.demote)
			if err != nil {
				t.Fatal(err)
			}
			spec := n.Spec
			spec.Role = swarm.NodeRoleWorker
			err = w.UpdateNode(t.Context(), tt.demote, n.Version.Index, spec)
			now, _ := w.View().Nodes.Get(tt.demote)
			if len(tt.refused) == 0 {
				if err != nil || now.Spec.Role != swarm.NodeRoleWorker {
					t.Fatalf("%v, and it is a %s", err, now.Spec.Role)
				}
				return
			}
			kind := errdefs.IsFailedPrecondition
			if tt.managers == 1 {
				kind = errdefs.IsInvalidArgument
			}
			for _, words := range tt.refused {
				wantError(t, err, kind, words)
			}
			if now.Spec.Role != swarm.NodeRoleManager {
				t.Error("refused, and demoted all the same")
			}
		})
	}
}

// TestDemotedOneByOne: who is about to go counts no more, so that two demotions
// in a row can not do what one may not.
func TestDemotedOneByOne(t *testing.T) {
	w := newWorld(t)
	w.members = fakeRaft{lost: map[string]bool{"node3": true}}
	for _, id := range []string{"node2", "node3", "node4"} {
		w.put(&api.Node{
			Meta: api.Meta{ID: id}, Role: swarm.NodeRoleManager,
			Spec: swarm.NodeSpec{Role: swarm.NodeRoleManager, Availability: swarm.NodeAvailabilityActive},
		})
	}
	demote := func(id string) error {
		n, err := w.Node(id)
		if err != nil {
			t.Fatal(err)
		}
		n.Spec.Role = swarm.NodeRoleWorker
		return w.UpdateNode(t.Context(), id, n.Version.Index, n.Spec)
	}
	if err := demote("node4"); err != nil {
		t.Fatal(err)
	}
	wantError(t, demote("node2"), errdefs.IsFailedPrecondition, "of the 2 other managers 1 can be reached and 2 are needed")
	// Until raft has let go of a manager it can not be removed either.
	wantError(t, w.RemoveNode(t.Context(), "node4", true), errdefs.IsFailedPrecondition, "It must be demoted to worker before removal: shoal node demote node4")
	if err := demote("node3"); err != nil {
		t.Fatal(err)
	}
	if err := demote("node2"); err != nil {
		t.Errorf("with the lost one demoted: %v", err)
	}
}
