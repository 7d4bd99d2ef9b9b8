package daemon

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/internal/api"
	"shoal/internal/store"
)

const (
	// caughtUp is how many entries a new manager may be behind to get a vote:
	// what may well be on its way at any moment.
	caughtUp = 100
	// progressEvery is how often a new manager is asked how far it is.
	progressEvery = 100 * time.Millisecond
	// changeTimeout bounds one change of raft's membership.
	changeTimeout = 10 * time.Second
)

// voters keeps raft's servers equal to the managers, one step at a time.
func (m *manager) voters(ctx context.Context) error {
	return m.store.Tend(ctx, func() (again time.Duration) {
		more, err := m.step(ctx)
		if err != nil && ctx.Err() == nil {
			m.log.Warn("can not change raft's membership now; it is tried again", zap.Error(err))
			return time.Second
		}
		if more {
			return progressEvery
		}
		return 0
	}, api.KindNode)
}

// step takes the next step; more says that there may be another.
func (m *manager) step(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	raft := m.cluster.Raft
	stats := raft.Stats()
	view := m.store.View()
	if view.Cluster() == nil {
		return true, nil // just founded: this node is not in the store yet
	}
	learning := false
	var members []cluster.Member
	for n := range view.Nodes.All() {
		mem := cluster.Member{NodeID: n.ID, Manager: n.Role == swarm.NodeRoleManager && n.Spec.Role == swarm.NodeRoleManager}
		for _, s := range stats.Servers {
			if s.NodeID == n.ID && !s.Voter {
				learning = true
				applied, err := m.progress(ctx, n)
				mem.CaughtUp = err == nil && applied+caughtUp >= stats.CommitIndex
			}
		}
		members = append(members, mem)
	}
	switch s := cluster.NextStep(m.id.NodeID, stats.Servers, members); {
	case s.Remove != "":
		m.log.Info("raft: removing a server", zap.String("node", s.Remove))
		if err := raft.RemoveServer(ctx, s.Remove); err != nil {
			return false, err
		}
		return true, nil
	case s.Promote != "":
		m.log.Info("raft: a new manager has caught up and gets a vote", zap.String("node", s.Promote))
		return true, raft.AddVoter(ctx, s.Promote)
	case s.Add != "":
		m.log.Info("raft: a new manager begins to catch up", zap.String("node", s.Add))
		return true, raft.AddNonvoter(ctx, s.Add)
	case s.HandOver:
		m.log.Info("raft: this leader is to go and hands over")
		return true, raft.TransferLeadership(ctx, "")
	}
	demoted, err := m.release(ctx, stats.Servers)
	return learning || demoted, err
}

// release lets managers that raft has let go of become workers.
func (m *manager) release(ctx context.Context, servers []cluster.Server) (bool, error) {
	inRaft := map[string]bool{}
	for _, s := range servers {
		inRaft[s.NodeID] = true
	}
	changed := false
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		var free []*api.Node
		for n := range tx.Nodes.All() {
			if n.Role == swarm.NodeRoleManager && n.Spec.Role == swarm.NodeRoleWorker && !inRaft[n.ID] {
				free = append(free, n)
			}
		}
		changed = len(free) > 0
		for _, n := range free {
			n = api.Clone(n)
			n.Role = swarm.NodeRoleWorker
			if err := tx.Put(n); err != nil {
				return err
			}
		}
		return nil
	})
	return changed, err
}
