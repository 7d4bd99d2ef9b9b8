package daemon

import (
	"math"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
)

func TestSnapshotsOf(t *testing.T) {
	for _, c := range []struct {
		spec swarm.RaftConfig
		want cluster.Snapshots
	}{
		{swarm.RaftConfig{SnapshotInterval: 10}, cluster.Snapshots{Entries: 10, Retain: 1}},
		{swarm.RaftConfig{SnapshotInterval: 10, LogEntriesForSlowFollowers: 7, KeepOldSnapshots: new(uint64(2))}, cluster.Snapshots{Entries: 10, Trailing: 7, Retain: 3}},
		{swarm.RaftConfig{SnapshotInterval: 10, KeepOldSnapshots: new(uint64(math.MaxUint64))}, cluster.Snapshots{Entries: 10, Retain: 1 + maxKept}},
	} {
		if got := snapshotsOf(c.spec); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.spec, got, c.want)
		}
	}
}
