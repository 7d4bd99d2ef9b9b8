package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"shoal/cluster/boltlog"
)

// Run opens the state on disk and takes part until ctx ends, which is not an
// error, or until the log can no longer be written, which is: what is on disk
// is then uncertain, and the next start finds out from the file.
func (r *Raft) Run(ctx context.Context) error {
	snapshots := r.snapshotFiles()
	store, err := r.openStore(snapshots)
	if err != nil {
		return err
	}
	if r.cfg.Start == Recover {
		if err := r.recoverAlone(store, snapshots); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	transport, err := r.cfg.Transport()
	if err != nil {
		return errors.Join(fmt.Errorf("open raft transport: %w", err), store.Close())
	}
	fenced, err := newFence(transport, store, snapshots)
	if err != nil {
		return errors.Join(err, closeTransport(transport), store.Close())
	}

	var running atomic.Pointer[raft.Raft]
	snapshots.past = func(index uint64) bool {
		h := running.Load()
		return h != nil && fenced.sends(index) && h.AppliedIndex() > index
	}
	notify, observed := make(chan bool), make(chan raft.Observation)
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { r.follow(notify, observed, stop) })
	beside.Go(func() { fenced.run(stop) })

	ending := make(chan struct{})
	h, machine, err := r.start(raftLog{store, snapshots, r.fail, ending}, fenced, notify)
	if err != nil {
		if restore := machine.lastRestoreError(); restore != nil {
			err = fmt.Errorf("%w: %w", err, restore)
		}
		err = errors.Join(fmt.Errorf("start raft: %w", err), closeTransport(transport))
	} else {
		h.RegisterObserver(raft.NewObserver(observed, true, func(o *raft.Observation) bool {
			_, ok := o.Data.(raft.LeaderObservation)
			return ok
		}))
		running.Store(h)
		r.disk.Store(h.LastIndex())
		r.setRunning(h, snapshots)
		r.leaderSeen.fire() // of whom was elected before there was an observer
		close(r.ready)
		r.log.Info("raft is running", zap.Uint64("last index", h.LastIndex()), zap.Int("servers", len(servers(h))))
		select {
		case <-ctx.Done():
			r.handOver(h)
		case err = <-r.fatal:
			r.log.Error("raft stops: its log can not be trusted any more", zap.Error(err))
		}
		r.drain()
		stopped := h.Shutdown()
		close(ending)
		// Before waiting: calls to peers that do not answer end with their
		// connections, not with their timeouts.
		err = errors.Join(err, closeTransport(transport), stopped.Error())
	}

	// Following ends after raft has, as raft waits for its notifications to be
	// received, and the log is closed when nobody can write to it any more.
	close(stop)
	beside.Wait()
	return errors.Join(err, store.Close())
}

// fail ends Run. The first reason counts.
func (r *Raft) fail(err error) {
	select {
	case r.fatal <- err:
	default:
	}
}

// follow takes in what raft has to say about leadership. raft waits for each
// piece of news to be received and holds everything else up meanwhile, so this
// does nothing slow.
func (r *Raft) follow(notify <-chan bool, observed <-chan raft.Observation, stop <-chan struct{}) {
	for {
		select {
		case leading := <-notify:
			if leading {
				r.log.Info("this node leads now")
			} else {
				r.log.Info("this node no longer leads")
			}
			r.lead.set(leading)
		case <-observed:
			r.leaderSeen.fire()
		case <-stop:
			r.lead.set(false)
			r.leaderSeen.fire()
			return
		}
	}
}

// logFile is the raft log's name in RaftConfig.Dir.
const logFile = "raft.db"

func (r *Raft) snapshotFiles() *snapshotStore {
	return &snapshotStore{
		dir:    filepath.Join(r.cfg.Dir, "snapshots"),
		key:    r.cfg.Key,
		retain: r.cfg.RetainSnapshots,
	}
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// start creates raft on stores that have been checked.
func (r *Raft) start(log raftLog, transport raft.Transport, notify chan<- bool) (*raft.Raft, *fsm, error) {
	machine := &fsm{machine: r.cfg.Machine, fatal: r.fail}
	conf := r.raftConfig()
	conf.NotifyCh = notify
	// One unit above what it shall be, so that the reload below is a decrease,
	// which is how raft is made to look at its election timer at once.
	conf.HeartbeatTimeout++
	conf.ElectionTimeout++
	h, err := raft.NewRaft(conf, machine, log, log.Store, log.snapshots, transport)
	if err != nil {
		return nil, machine, err
	}
	if s := servers(h); len(s) == 1 && s[0].Voter && s[0].NodeID == r.nodeID {
		// The only voter waits for nobody: it would hear nothing for the
		// whole timeout and then vote for itself.
		c := h.ReloadableConfig()
		c.HeartbeatTimeout, c.ElectionTimeout = r.cfg.ElectionTimeout, r.cfg.ElectionTimeout
		err = h.ReloadConfig(c)
	}
	if err != nil {
		return nil, machine, errors.Join(err, h.Shutdown().Error())
	}
	return h, machine, nil
}

func (r *Raft) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.nodeID)
	c.Logger = newRaftLogger(r.log)
	c.HeartbeatTimeout = r.cfg.ElectionTimeout
	c.ElectionTimeout = r.cfg.ElectionTimeout
	// As long as followers wait: a shorter lease would depose a leader that was
	// starved for a moment while nobody else is ready to stand.
	c.LeaderLeaseTimeout = r.cfg.ElectionTimeout
	// Proposals that arrive during an fsync share the next one.
	c.BatchApplyCh = true
	c.MaxAppendEntries = 128
	c.SnapshotInterval = r.cfg.SnapshotCheck
	c.SnapshotThreshold = r.cfg.SnapshotEntries
	c.TrailingLogs = r.cfg.TrailingEntries
	// A member that was removed learns it here and ends by its owner's
	// decision, not from inside.
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	return c
}

// openStore opens the log, making a new one where that is what was asked for,
// and checks that log and snapshots belong together.
func (r *Raft) openStore(snapshots *snapshotStore) (*boltlog.Store, error) {
	path := filepath.Join(r.cfg.Dir, logFile)
	if err := os.MkdirAll(r.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft directory: %w", err)
	}
	if err := snapshots.open(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := r.createLog(path, snapshots); err != nil {
			return nil, err
		}
	}
	store, err := boltlog.Open(path, r.cfg.Key, r.fail)
	if err != nil {
		return nil, err
	}
	if err := r.reconcile(store, snapshots, path); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func (r *Raft) createLog(path string, snapshots *snapshotStore) error {
	ids, err := snapshots.ids()
	if err != nil {
		return err
	}
	if r.cfg.Start == Restart || r.cfg.Start == Recover || len(ids) > 0 {
		return fmt.Errorf("raft log %s is missing; move the data directory away and join again, or restore a backup: %w", path, errdefs.ErrDataLoss)
	}
	var fill func(*boltlog.Store) error
	if r.cfg.Start == Bootstrap {
		fill = func(s *boltlog.Store) error {
			return raft.BootstrapCluster(r.raftConfig(), s, s, raft.NewDiscardSnapshotStore(), nil, r.alone())
		}
	}
	return boltlog.Create(path, r.cfg.Key, fill)
}

// reconcile makes sure that snapshot and log form one history. raft assumes it
// and panics where they do not meet.
func (r *Raft) reconcile(store *boltlog.Store, snapshots *snapshotStore, path string) error {
	snapshot, err := snapshots.newest()
	if err != nil {
		return err
	}
	first, _ := store.FirstIndex()
	last, _ := store.LastIndex()
	if last == 0 {
		return nil
	}
	if first > snapshot+1 {
		return fmt.Errorf("raft log %s begins at entry %d but the newest snapshot ends at entry %d: a snapshot is missing; move the data directory away and join again, or restore a backup: %w",
			path, first, snapshot, errdefs.ErrDataLoss)
	}
	if last < snapshot {
		// A snapshot from the leader was installed and we died before the log
		// it replaces was dropped. Kept, it would leave a gap.
		return store.DeleteRange(first, last)
	}
	return nil
}

func (r *Raft) setRunning(h *raft.Raft, snapshots *snapshotStore) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raft, r.snapshots = h, snapshots
}

// handOver lets another voter lead before this one goes, so that a planned stop
// costs no election timeout. Failing that, the others elect.
func (r *Raft) handOver(h *raft.Raft) {
	if h.State() != raft.Leader {
		return
	}
	for _, s := range servers(h) {
		if s.Voter && s.NodeID != r.nodeID {
			if err := r.transfer(h, ""); err != nil {
				r.log.Info("could not hand over leadership", zap.Error(err))
			}
			return
		}
	}
}

// drain refuses new calls and waits for those in flight. raft forgets, at
// shutdown, whoever waits in its queues, so it is shut down when none does.
func (r *Raft) drain() {
	r.setRunning(nil, nil)
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if r.pending.Acquire(ctx, maxPending) != nil {
		r.log.Warn("some proposals are still waiting for an answer; they will not get one")
		return
	}
	r.pending.Release(maxPending)
}
