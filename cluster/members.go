package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// Server is one member of the group of managers.
type Server struct {
	NodeID string
	Voter  bool
}

func servers(h *raft.Raft) []Server {
	f := h.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{NodeID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// raft wants an address for every server. It gets the node ID, and whoever
// dials finds the address by it, so that no address is ever part of what the
// managers agree on and all of them may move at once.

// AddNonvoter adds a member that receives the log but has no vote.
func (r *Raft) AddNonvoter(ctx context.Context, nodeID string) error {
	return r.change(ctx, func(h *raft.Raft) error {
		return h.AddNonvoter(raft.ServerID(nodeID), raft.ServerAddress(nodeID), 0, 0).Error()
	})
}

// AddVoter gives a member, new or not, a vote.
func (r *Raft) AddVoter(ctx context.Context, nodeID string) error {
	return r.change(ctx, func(h *raft.Raft) error {
		return h.AddVoter(raft.ServerID(nodeID), raft.ServerAddress(nodeID), 0, 0).Error()
	})
}

// RemoveServer removes a member. It is the caller's to see that a quorum stays.
func (r *Raft) RemoveServer(ctx context.Context, nodeID string) error {
	return r.change(ctx, func(h *raft.Raft) error {
		return h.RemoveServer(raft.ServerID(nodeID), 0, 0).Error()
	})
}

func (r *Raft) change(ctx context.Context, call func(*raft.Raft) error) error {
	interrupted, err := r.await(ctx, perEntry, func(h *raft.Raft) error {
		if err := call(h); err != nil {
			return r.proposalError(err)
		}
		return nil
	})
	if interrupted {
		return &UnknownOutcomeError{Cause: err}
	}
	return err
}

// TransferLeadership hands over to another voter, the most up to date if
// nodeID is empty. Proposals are refused from now until somebody leads.
func (r *Raft) TransferLeadership(ctx context.Context, nodeID string) error {
	return r.query(ctx, func(h *raft.Raft) error { return r.transfer(h, nodeID) })
}

// transfer lets what was proposed before be committed first: raft would give
// up on it, and nobody could tell its proposers what became of it.
func (r *Raft) transfer(h *raft.Raft, nodeID string) error {
	r.leaving.Add(1)
	defer r.leaving.Add(-1)
	if err := h.Barrier(transferTimeout).Error(); err != nil {
		return err
	}
	if nodeID == "" {
		return h.LeadershipTransfer().Error()
	}
	return h.LeadershipTransferToServer(raft.ServerID(nodeID), raft.ServerAddress(nodeID)).Error()
}

// transferTimeout bounds how long what goes before a hand-over may queue.
const transferTimeout = time.Second
