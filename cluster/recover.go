package cluster

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"shoal/cluster/boltlog"
)

// A manager that has lost the others for good goes on alone with all that its
// disk holds, committed or not: what of it the others had acknowledged nobody
// can say any more. That takes one entry at the end of the log, by which it is
// the only voter, written together with a new term in one transaction. Before
// it this is the old group, after it the new one.
//
// Should the others come back, with a quorum of the old group among them, they
// must not overrule the new one. So each group has a generation, which is the
// upper part of the term, and managers of different generations do not hear
// each other.
const generationBits = 24

func generation(term uint64) uint64 { return term >> (64 - generationBits) }

func nextGeneration(term uint64) uint64 { return (generation(term) + 1) << (64 - generationBits) }

// recoverAlone makes this server the only voter of a new generation.
func (r *Raft) recoverAlone(store *boltlog.Store, snapshots *snapshotStore) error {
	snapshot, err := snapshots.newest()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	if last = max(last, snapshot); last == 0 {
		return fmt.Errorf("this manager had received nothing of the cluster's state yet, so there is nothing to go on with: use another manager: %w", errdefs.ErrFailedPrecondition)
	}
	term, err := store.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	entry := &raft.Log{
		Index: last + 1, Term: nextGeneration(term), Type: raft.LogConfiguration,
		Data: raft.EncodeConfiguration(r.alone()), AppendedAt: time.Now(),
	}
	if err := store.AppendInTerm(entry); err != nil {
		return err
	}
	r.log.Warn("the other managers are given up: this one goes on alone", zap.Uint64("index", entry.Index), zap.Uint64("generation", generation(entry.Term)))
	return nil
}

// alone is the membership of a group of one.
func (r *Raft) alone() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.nodeID), Address: raft.ServerAddress(r.nodeID)}}}
}

// fence keeps raft from hearing servers of another generation. They get an
// error for an answer and not raft's own, which would tell them the term.
type fence struct {
	raft.Transport
	raft.WithPreVote
	store     *boltlog.Store
	snapshots *snapshotStore
	rpcs      chan raft.RPC

	mu sync.Mutex
	// sent has the last entries of the two snapshots that came last: raft is at
	// one while the other waits.
	sent [2]uint64
}

func newFence(t raft.Transport, store *boltlog.Store, snapshots *snapshotStore) (*fence, error) {
	pre, ok := t.(raft.WithPreVote)
	if !ok {
		return nil, fmt.Errorf("raft transport %T knows no pre-votes: %w", t, errdefs.ErrInternal)
	}
	return &fence{Transport: t, WithPreVote: pre, store: store, snapshots: snapshots, rpcs: make(chan raft.RPC)}, nil
}

// run passes on what may be heard, until stop.
func (f *fence) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case rpc := <-f.Transport.Consumer():
			if err := f.check(rpc); err != nil {
				rpc.Respond(nil, err)
				continue
			}
			switch c := rpc.Command.(type) {
			case *raft.InstallSnapshotRequest:
				needless, err := f.needless(c)
				if err != nil || needless {
					_, _ = io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Term: c.Term, Success: needless}, err)
					continue
				}
				f.mu.Lock()
				f.sent = [2]uint64{f.sent[1], c.LastLogIndex}
				f.mu.Unlock()
			case *raft.AppendEntriesRequest:
				rest, err := behindSnapshot(c, f.store, f.snapshots)
				if err != nil {
					rpc.Respond(nil, err)
					continue
				}
				rpc.Command = rest
			}
			select {
			case f.rpcs <- rpc:
			case <-stop:
				return
			}
		}
	}
}

// needless tells whether a snapshot ends at an entry that the log has, so that what
// is missing can be had as entries: the leader has missed an answer. Installing it
// would take raft back to it. One of a new term is for raft to hear of.
func (f *fence) needless(c *raft.InstallSnapshotRequest) (bool, error) {
	term, err := f.store.GetUint64([]byte("CurrentTerm"))
	if err != nil || c.Term != term {
		return false, err
	}
	var last raft.Log
	err = raftLog{Store: f.store, snapshots: f.snapshots}.GetLog(c.LastLogIndex, &last)
	if errors.Is(err, raft.ErrLogNotFound) {
		return false, nil
	}
	return err == nil && last.Term == c.LastLogTerm, err
}

// sends tells whether a snapshot that raft is at, and that ends at this entry, is
// a leader's. One that raft takes itself may end there as well.
func (f *fence) sends(index uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.sent[:], index)
}

// Consumer is raft's.
func (f *fence) Consumer() <-chan raft.RPC { return f.rpcs }

// SetHeartbeatHandler is raft's: heartbeats come past the queue.
func (f *fence) SetHeartbeatHandler(handle func(raft.RPC)) {
	f.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if err := f.check(rpc); err != nil {
			rpc.Respond(nil, err)
			return
		}
		handle(rpc)
	})
}

// check compares generations. A new server has none and takes the first it
// hears of, which is that of whoever added it.
func (f *fence) check(rpc raft.RPC) error {
	var theirs uint64
	switch c := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		theirs = c.Term
		for _, e := range c.Entries {
			if e.Type == inSnapshot { // its log was replaced while it read it
				return fmt.Errorf("entry %d was sent without what is in it", e.Index)
			}
		}
	case *raft.InstallSnapshotRequest:
		theirs = c.Term
	case *raft.RequestVoteRequest:
		theirs = c.Term
	case *raft.RequestPreVoteRequest:
		theirs = c.Term
	default:
		return nil // leadership is handed over without a term, and to be elected then takes votes
	}
	ours, err := f.store.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	if ours != 0 && generation(ours) != generation(theirs) {
		return fmt.Errorf("the cluster was forced to go on without some of its managers: generation %d is not %d; a manager that was left behind has to leave and join again", generation(theirs), generation(ours))
	}
	return nil
}
