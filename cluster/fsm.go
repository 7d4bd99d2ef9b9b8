package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// StateMachine is what raft replicates. internal/store implements it.
type StateMachine interface {
	// Apply makes one committed change. It must be deterministic: no clock, no
	// randomness, no I/O. Its error goes to the proposer alone, on the node
	// that proposed; the entry stays committed. An error that has a method
	// Unreadable says that this version can not tell what was committed: the
	// node stops rather than go on without it.
	Apply(index uint64, data []byte) error

	// Snapshot captures the state at this point and returns at once. WriteTo
	// runs later, while Apply goes on.
	Snapshot() (io.WriterTo, error)

	// Restore replaces the whole state with a snapshot.
	Restore(r io.Reader) error
}

// fsm gives raft a StateMachine.
//
// It is deliberately not a raft.BatchingFSM. What costs is the fsync, and raft
// shares that among all proposals that are waiting anyway; a batch here would
// only make the first proposer of a batch wait for the last.
type fsm struct {
	machine StateMachine
	fatal   func(error) // told of an entry that can not be read

	mu         sync.Mutex
	restoreErr error // the last Restore's, which raft logs and then forgets
	unreadable error // the first entry that could not be read
}

func (f *fsm) Apply(entry *raft.Log) any {
	err := f.machine.Apply(entry.Index, entry.Data)
	if err == nil {
		return nil
	}
	var u interface{ Unreadable() }
	if errors.As(err, &u) {
		err = fmt.Errorf("entry %d of the raft log: %w", entry.Index, err)
		f.mu.Lock()
		f.unreadable = err
		f.mu.Unlock()
		f.fatal(err)
	}
	return err
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	missing := f.unreadable
	f.mu.Unlock()
	if missing != nil {
		return nil, missing // it would be a state without that entry
	}
	w, err := f.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{w}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	err := f.machine.Restore(r)
	f.mu.Lock()
	f.restoreErr = err
	f.mu.Unlock()
	return err // raft closes r
}

func (f *fsm) lastRestoreError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restoreErr
}

type fsmSnapshot struct{ io.WriterTo }

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	buffered := bufio.NewWriterSize(sink, 1<<16)
	_, err := s.WriteTo(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (fsmSnapshot) Release() {}
