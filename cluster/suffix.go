package cluster

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"

	"shoal/cluster/boltlog"
)

// raftLog is the log as raft gets it.
//
// When raft has installed a snapshot it drops the whole log, without a look at
// what follows the snapshot there, and goes on in the belief that the last entry
// is still what it was. Entries may follow it: those that came in, and were
// acknowledged, while the snapshot was on its way. They must not be lost, as they
// may count as committed by now; and raft panics when it looks for them.
type raftLog struct {
	*boltlog.Store
	snapshots *snapshotStore
	fail      func(error)
	ending    <-chan struct{} // closed when raft was told to end
}

// overruledPatience bounds how long raft is held up where it must not go on. What
// ends it may itself wait for an answer of raft's.
const overruledPatience = 5 * time.Second

// DeleteRange keeps what follows the newest snapshot if it is of the same
// history. It is when the log has the snapshot's last entry, which stays too, as
// what later entries are compared with.
func (l raftLog) DeleteRange(low, high uint64) error {
	found, err := l.snapshots.List()
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].Index < low || found[0].Index >= high {
		return l.Store.DeleteRange(low, high) // a snapshot's compaction, or the end, overruled by a leader
	}
	snapshot := found[0]
	var last raft.Log
	if err := l.GetLog(snapshot.Index, &last); err != nil {
		return err
	}
	if last.Term == snapshot.Term {
		return l.Store.DeleteRange(low, snapshot.Index-1)
	}
	// Another history, and only a new start makes raft forget where it ended.
	if err := l.Store.DeleteRange(low, high); err != nil {
		return err
	}
	l.fail(fmt.Errorf("a snapshot has overruled the end of the raft log, entries %d to %d: start again to go on with it: %w",
		snapshot.Index+1, high, errdefs.ErrAborted))
	// raft would look for entries that are gone, and panic, before it hears of it.
	select {
	case <-l.ending:
	case <-time.After(overruledPatience):
	}
	return nil
}
