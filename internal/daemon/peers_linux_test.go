package daemon

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
)

// TestLeadersRefusalIsTold: what the leader refused is the answer, whoever is
// asked before and after it.
func TestLeadersRefusalIsTold(t *testing.T) {
	managers := []swarm.Peer{{NodeID: "a", Addr: "192.0.2.1:2377"}, {NodeID: "b", Addr: "192.0.2.2:2377"}, {NodeID: "c", Addr: "192.0.2.3:2377"}}
	removed := errdefs.ErrPermissionDenied.WithMessage("node w was removed")
	for turn := range managers {
		m := &member{book: newBook(managers), gossip: &rumours{}}
		m.book.turn = turn
		leads := false
		err := m.eachLeader(t.Context(), func(p swarm.Peer) error {
			switch p.NodeID {
			case "a":
				return &notLeader{"b", "192.0.2.2:2377"}
			case "b":
				leads = true
				return removed
			}
			return errors.New("connection refused")
		})
		if !leads || !errors.Is(err, removed) {
			t.Errorf("asked from %d on: %v", turn, err)
		}
	}
}
