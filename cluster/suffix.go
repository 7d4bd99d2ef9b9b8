package cluster

import (
	"errors"
	"fmt"
	"slices"
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
//
// Nor does raft find the end of a snapshot that entries follow
// (hashicorp/raft#205). What a leader sends is compared with the entry before,
// which is looked for at the end and in the log, but not in the snapshot. Where
// the log begins right behind it, a leader that sends the first entries again,
// as an answer was lost, or its own instead of them, is refused for ever: it
// goes back to its snapshot, which does not help. So for raft such a log begins
// with the snapshot's last entry, and what is sent from further back is cut to
// what follows it; see behindSnapshot.
type raftLog struct {
	*boltlog.Store
	snapshots *snapshotStore
	fail      func(error)
	ending    <-chan struct{} // closed when raft was told to end
}

// inSnapshot is the type of a snapshot's last entry where the log begins behind
// it. There is nothing in it but its index and term: it is to compare with, and
// never to be sent; see fence.check.
const inSnapshot raft.LogType = 0xff

// GetLog finds the entry before the first as well, if it is the snapshot's last.
func (l raftLog) GetLog(index uint64, e *raft.Log) error {
	err := l.Store.GetLog(index, e)
	if !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	before, ferr := l.before()
	if ferr != nil {
		return ferr
	}
	if before.Index != index || index == 0 {
		return err
	}
	*e = before
	return nil
}

// FirstIndex is of what GetLog finds.
func (l raftLog) FirstIndex() (uint64, error) {
	before, err := l.before()
	if err != nil || before.Index > 0 {
		return before.Index, err
	}
	return l.Store.FirstIndex()
}

// before returns the newest snapshot's last entry if the log begins right behind
// it, or an empty one.
func (l raftLog) before() (raft.Log, error) {
	first, err := l.Store.FirstIndex()
	if err != nil || first == 0 {
		return raft.Log{}, err
	}
	found, err := l.snapshots.List()
	if err != nil || len(found) == 0 || found[0].Index+1 != first {
		return raft.Log{}, err
	}
	return raft.Log{Index: found[0].Index, Term: found[0].Term, Type: inSnapshot}, nil
}

// behindSnapshot returns what of a leader's entries follows the snapshot, if the
// log has no more of what they follow. Where the snapshot ends, all leaders agree:
// it was committed.
func behindSnapshot(c *raft.AppendEntriesRequest, log *boltlog.Store, snapshots *snapshotStore) (*raft.AppendEntriesRequest, error) {
	if c.PrevLogEntry == 0 && len(c.Entries) == 0 {
		return c, nil // a heartbeat
	}
	first, err := log.FirstIndex()
	if err != nil || first > 0 && first <= c.PrevLogEntry+1 {
		return c, err
	}
	found, err := snapshots.List()
	if err != nil || len(found) == 0 || found[0].Index <= c.PrevLogEntry {
		return c, err
	}
	rest := *c
	rest.PrevLogEntry, rest.PrevLogTerm = found[0].Index, found[0].Term
	rest.Entries = slices.DeleteFunc(slices.Clone(c.Entries), func(e *raft.Log) bool { return e.Index <= rest.PrevLogEntry })
	// Whether what the log has from there on is the leader's as well this does not
	// tell. raft would take all of it that is committed there for committed here.
	rest.LeaderCommitIndex = min(c.LeaderCommitIndex, rest.PrevLogEntry+uint64(len(rest.Entries)))
	return &rest, nil
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
	if last.Term != snapshot.Term {
		// Another history, and only a new start makes raft forget where it ended.
		if err := l.Store.DeleteRange(low, high); err != nil {
			return err
		}
		l.startAgain(fmt.Errorf("a snapshot has overruled the end of the raft log, entries %d to %d", snapshot.Index+1, high))
		return nil
	}
	if err := l.Store.DeleteRange(low, snapshot.Index-1); err != nil {
		return err
	}
	// raft has just taken the members from the snapshot, and reads what follows it
	// for later ones at a start alone.
	for i := snapshot.Index + 1; i <= high; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return err
		}
		if e.Type == raft.LogConfiguration {
			l.startAgain(fmt.Errorf("entry %d, behind a snapshot that came late, changes who the managers are", i))
			return nil
		}
	}
	return nil
}

// startAgain ends raft, and holds it up until it hears of that: it would look for
// entries that are gone, and panic, or go by members that are not the last.
func (l raftLog) startAgain(why error) {
	l.fail(fmt.Errorf("%w: start again to go on with it: %w", why, errdefs.ErrAborted))
	select {
	case <-l.ending:
	case <-time.After(overruledPatience):
	}
}
