package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"shoal/cluster/seal"
	"shoal/internal/store"
)

const (
	// maxPending bounds the bytes that may wait to be committed. Proposers
	// beyond it wait in Apply, with nothing proposed yet.
	maxPending = 64 << 20

	// perEntry is what a proposal weighs beside its data.
	perEntry = 4 << 10

	// drainTime is how long a stop waits for proposals in flight. They end by
	// themselves as soon as the disk or the quorum answers, or the lease ends.
	drainTime = 3 * time.Second
)

// Start says what a missing raft log means.
type Start int

const (
	Restart   Start = iota // a fault: this node has been a manager before
	Bootstrap              // a new cluster with this node as its only voter
	Join                   // a new member that the leader will bring up to date
	Recover                // go on as the only voter, without the others: see recover.go
)

// RaftConfig says which raft to run. Zero durations and counts mean defaults.
type RaftConfig struct {
	Dir       string    // of raft.db and snapshots/
	Key       *seal.Key // seals both; its owner's node ID is the server ID, whatever the node's address
	Start     Start
	Machine   StateMachine
	Transport func() (raft.Transport, error) // called once by Run, which closes it
	Logger    *zap.Logger

	SnapshotEntries uint64 // entries between snapshots, 10000
	TrailingEntries uint64 // entries kept behind a snapshot for slow followers, 500
	RetainSnapshots int    // 2

	// ElectionTimeout is how long followers hear nothing before they elect,
	// 300 ms. The leader is heard from every 30 to 60 ms, so at least five
	// heartbeats in a row must be lost. DESIGN.md has what was measured.
	ElectionTimeout time.Duration

	// SnapshotCheck is how often to look whether a snapshot is due, 5 s.
	SnapshotCheck time.Duration
}

func (c *RaftConfig) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.ElectionTimeout, 300*time.Millisecond)
	def(&c.SnapshotCheck, 5*time.Second)
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 10000
	}
	if c.TrailingEntries == 0 {
		c.TrailingEntries = 500
	}
	if c.RetainSnapshots == 0 {
		c.RetainSnapshots = 2
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}

// Raft is one member of the group of managers. Its methods may be called before
// Run and after it; they then report that raft is not running.
type Raft struct {
	cfg     RaftConfig
	nodeID  string
	log     *zap.Logger
	lead    leadership
	fatal   chan error // the first failure of the log store
	ready   chan struct{}
	pending *semaphore.Weighted

	disk     atomic.Uint64 // how far the log went when raft started
	replayed atomic.Bool   // all that is applied

	leaving atomic.Int32 // hand-overs under way: nothing new is proposed

	leaderSeen signal // fires when raft starts, ends, or hears of a leader or of none

	mu        sync.RWMutex
	raft      *raft.Raft     // nil unless running
	snapshots *snapshotStore // of raft
}

// NewRaft only wires. Run opens the files and takes part.
func NewRaft(cfg RaftConfig) *Raft {
	cfg.setDefaults()
	return &Raft{
		cfg:     cfg,
		nodeID:  cfg.Key.Owner().NodeID,
		log:     cfg.Logger.Named("raft"),
		fatal:   make(chan error, 1),
		ready:   make(chan struct{}),
		pending: semaphore.NewWeighted(maxPending),
	}
}

// Ready is closed when the files are open and calls are taken. The state machine
// then holds the newest snapshot; the log behind it is applied once there is a
// leader to say how much of it was committed. WaitLeader waits for one.
func (r *Raft) Ready() <-chan struct{} { return r.ready }

// begin hands out raft to a caller that holds some of pending: a stop waits until
// nobody does.
func (r *Raft) begin() (*raft.Raft, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.raft == nil {
		return nil, errNotRunning
	}
	return r.raft, nil
}

// await runs one of raft's calls, which know no context, and gives up waiting
// when ctx ends; the call itself is counted until it ends too. interrupted
// tells that ctx ended after the call was begun.
func (r *Raft) await(ctx context.Context, weight int64, call func(*raft.Raft) error) (interrupted bool, err error) {
	if err := r.pending.Acquire(ctx, weight); err != nil {
		return false, err
	}
	h, err := r.begin()
	if err != nil {
		r.pending.Release(weight)
		return false, err
	}
	result := make(chan error, 1)
	go func() {
		defer r.pending.Release(weight)
		result <- call(h)
	}()
	select {
	case err := <-result:
		return false, err
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// Apply proposes one entry and returns after this node has applied it; the
// error may then be the state machine's own. Any other error is one of
//   - store.ErrTooLarge, *NotLeaderError, or of kind Unavailable, or ctx's own:
//     nothing was proposed;
//   - *UnknownOutcomeError: it was, and what became of it is not known.
//
// data must not be changed afterwards, whatever the outcome.
func (r *Raft) Apply(ctx context.Context, data []byte) error {
	if len(data) > store.MaxTxn {
		return fmt.Errorf("%w: %d bytes, limit %d", store.ErrTooLarge, len(data), store.MaxTxn)
	}
	interrupted, err := r.await(ctx, int64(len(data))+perEntry, func(h *raft.Raft) error {
		if r.leaving.Load() > 0 {
			return &NotLeaderError{} // who is next is about to be seen
		}
		f := h.Apply(data, 0)
		if err := f.Error(); err != nil {
			return r.proposalError(err)
		}
		if err, ok := f.Response().(error); ok {
			return stateMachineError{err}
		}
		return nil
	})
	if interrupted {
		return &UnknownOutcomeError{Cause: err}
	}
	var own stateMachineError
	if errors.As(err, &own) {
		return own.error
	}
	return err
}

// stateMachineError carries an error out of the state machine past the
// handling of raft's.
type stateMachineError struct{ error }

func (r *Raft) proposalError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return r.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &NotLeaderError{} // who is next is about to be seen
	default:
		// Leadership lost with the entry in flight, a shutdown, or a failed
		// write, after which it may be on the disk all the same.
		return &UnknownOutcomeError{Cause: err}
	}
}

func (r *Raft) notLeader() error {
	id, self := r.Leader()
	if self { // gained between the refusal and this look
		id = ""
	}
	return &NotLeaderError{LeaderID: id}
}

// queryError is for calls that change nothing and so have no unknown outcome.
func (r *Raft) queryError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return r.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &NotLeaderError{}
	case errors.Is(err, raft.ErrRaftShutdown):
		return errNotRunning
	default:
		return err
	}
}

func (r *Raft) query(ctx context.Context, call func(*raft.Raft) error) error {
	_, err := r.await(ctx, perEntry, func(h *raft.Raft) error { return r.queryError(call(h)) })
	return err
}

// Barrier returns when everything committed before it has been applied here.
// Only the leader can say so.
func (r *Raft) Barrier(ctx context.Context) error {
	return r.query(ctx, func(h *raft.Raft) error { return h.Barrier(0).Error() })
}

// VerifyLeader asks a quorum whether this node still leads, without an entry.
// After it, what this node has applied is current.
func (r *Raft) VerifyLeader(ctx context.Context) error {
	return r.query(ctx, func(h *raft.Raft) error { return h.VerifyLeader().Error() })
}

// RunAsLeader runs fn whenever this node leads, until ctx ends. fn starts after
// a barrier, so it sees all that its predecessors committed, and its context
// ends when leadership does. The next leadership, be it a moment later, begins
// only after fn has returned. An fn that fails while it leads is run again after
// a pause, behind another barrier; one that returns nil is not run again before
// the next leadership.
func (r *Raft) RunAsLeader(ctx context.Context, fn func(context.Context) error) error {
	return r.lead.runAsLeader(ctx, r.barrierUntil, fn, func(err error) {
		r.log.Warn("the leader's work was interrupted; it begins again", zap.Error(err))
	})
}

// barrierUntil repeats the barrier for as long as this leadership lasts. A
// leader that tries in vain to hand over refuses barriers for a while and then
// goes on leading.
func (r *Raft) barrierUntil(ctx context.Context) error {
	for {
		err := r.Barrier(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Leader returns the node ID of the leader this node knows of, empty if none,
// and whether that is this node.
func (r *Raft) Leader() (nodeID string, self bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.raft == nil {
		return "", false
	}
	_, id := r.raft.LeaderWithID()
	return string(id), string(id) == r.nodeID
}

// WaitLeader waits until a leader is known and returns its node ID.
func (r *Raft) WaitLeader(ctx context.Context) (string, error) { return r.NextLeader(ctx, "") }

// NextLeader waits until another leader than this one is known.
func (r *Raft) NextLeader(ctx context.Context, than string) (string, error) {
	for {
		seen := r.leaderSeen.next()
		if id, _ := r.Leader(); id != "" && id != than {
			return id, nil
		}
		select {
		case <-seen:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Snapshots says when raft takes snapshots, and what stays beside the newest.
type Snapshots struct {
	Entries  uint64 // between two of them, at least 1
	Trailing uint64 // entries kept behind one for slow followers
	Retain   int    // snapshots kept, at least 1
}

// SetSnapshots changes the configured values while raft runs.
func (r *Raft) SetSnapshots(s Snapshots) error {
	if s.Entries == 0 || s.Retain < 1 {
		return fmt.Errorf("raft needs at least one entry between snapshots, and one snapshot: %w", errdefs.ErrInvalidArgument)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.raft == nil {
		return errNotRunning
	}
	c := r.raft.ReloadableConfig()
	c.SnapshotThreshold, c.TrailingLogs = s.Entries, s.Trailing
	return errors.Join(r.raft.ReloadConfig(c), r.snapshots.keep(s.Retain))
}

// Snapshot takes a snapshot now.
func (r *Raft) Snapshot(ctx context.Context) error {
	return r.query(ctx, func(h *raft.Raft) error {
		err := h.Snapshot().Error()
		if errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return nil
		}
		return err
	})
}

// Stats is for people and for metrics.
type Stats struct {
	State        string // Follower, Candidate, Leader, Shutdown
	LeaderID     string
	Term         uint64
	LastIndex    uint64
	CommitIndex  uint64
	AppliedIndex uint64
	Servers      []Server
}

// Replayed tells whether the state machine has all that this member's disk held
// when it started. Until a leader says what of the log is committed, it has the
// last snapshot alone, which may be much older.
func (r *Raft) Replayed() bool {
	if r.replayed.Load() {
		return true
	}
	st := r.Stats()
	if st.State == "" || st.AppliedIndex < r.disk.Load() {
		return false
	}
	r.replayed.Store(true)
	return true
}

// Stats reports where this member stands. It is zero unless raft is running.
func (r *Raft) Stats() Stats {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.raft == nil {
		return Stats{}
	}
	_, leader := r.raft.LeaderWithID()
	return Stats{
		State:        r.raft.State().String(),
		LeaderID:     string(leader),
		Term:         r.raft.CurrentTerm(),
		LastIndex:    r.raft.LastIndex(),
		CommitIndex:  r.raft.CommitIndex(),
		AppliedIndex: r.raft.AppliedIndex(),
		Servers:      servers(r.raft),
	}
}
