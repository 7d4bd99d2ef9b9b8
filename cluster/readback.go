package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
)

// ReadBack brings a state machine to the newest state that this member has on
// disk, without taking part in anything. It is for before Run, and for what has
// to be known before the members can speak with each other.
//
// The last entries may not have been committed: only a quorum knows. So it is
// no basis for a decision about the cluster.
func (r *Raft) ReadBack(machine StateMachine) (err error) {
	if _, err := os.Lstat(filepath.Join(r.cfg.Dir, logFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this manager has no raft log yet: %w", errdefs.ErrNotFound)
	}
	snapshots := r.snapshotFiles()
	store, err := r.openStore(snapshots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	next, err := snapshots.newest()
	if err != nil {
		return err
	}
	if next > 0 {
		if err := snapshots.restore(machine); err != nil {
			return err
		}
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	for i := max(next+1, first); i <= last; i++ {
		var entry raft.Log
		if err := store.GetLog(i, &entry); err != nil {
			return fmt.Errorf("read back entry %d: %w", i, err)
		}
		if entry.Type == raft.LogCommand {
			_ = machine.Apply(entry.Index, entry.Data) // a refusal was its proposer's to hear
		}
	}
	return nil
}

// restore loads the newest snapshot.
func (s *snapshotStore) restore(machine StateMachine) (err error) {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	_, content, err := s.Open(metas[0].ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	return machine.Restore(content)
}
