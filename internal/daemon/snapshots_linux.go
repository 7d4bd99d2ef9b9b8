package daemon

import (
	"context"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/internal/api"
)

// settings brings what the cluster's spec says of raft to raft.
func (m *manager) settings(ctx context.Context) error {
	feed := m.store.Watch(api.KindCluster)
	defer feed.Close()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.cluster.Raft.Ready():
	}
	var now cluster.Snapshots
	for {
		if c := m.store.View().Cluster(); c != nil {
			now = m.setSnapshots(now, snapshotsOf(c.Spec.Raft))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-feed.Ready():
			feed.Take()
		}
	}
}

// setSnapshots returns what raft runs with afterwards.
func (m *manager) setSnapshots(now, wanted cluster.Snapshots) cluster.Snapshots {
	if wanted == now {
		return now
	}
	if err := m.cluster.Raft.SetSnapshots(wanted); err != nil {
		m.log.Warn("can not change when raft takes snapshots and what it keeps", zap.Error(err))
		return now
	}
	return wanted
}

// maxKept bounds the snapshots that are kept: a number to count with, beyond
// what anybody has disks for.
const maxKept = 1 << 20

// snapshotsOf translates what the cluster's spec says. Old snapshots come on
// top of the newest.
func snapshotsOf(c swarm.RaftConfig) cluster.Snapshots {
	s := cluster.Snapshots{Entries: c.SnapshotInterval, Trailing: c.LogEntriesForSlowFollowers, Retain: 1}
	if old := c.KeepOldSnapshots; old != nil {
		s.Retain += int(min(*old, maxKept))
	}
	return s
}
