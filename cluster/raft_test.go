package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"

	"shoal/cluster/seal"
	"shoal/internal/store"
)

// ledger is a state machine that remembers every entry.
type ledger struct {
	mu      sync.Mutex
	entries []string
}

var errRefused = errors.New("refused by the state machine")

func (l *ledger) Apply(_ uint64, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if string(data) == "refuse me" {
		return errRefused
	}
	l.entries = append(l.entries, string(data))
	return nil
}

func (l *ledger) Snapshot() (io.WriterTo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledgerSnapshot(l.entries[:len(l.entries):len(l.entries)]), nil
}

func (l *ledger) Restore(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var entries []string
	for len(data) > 0 {
		n := binary.BigEndian.Uint32(data)
		entries = append(entries, string(data[4:4+n]))
		data = data[4+n:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = entries
	return nil
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.entries...)
}

type ledgerSnapshot []string

func (s ledgerSnapshot) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, e := range s {
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(e))))
		b.WriteString(e)
	}
	return b.WriteTo(w)
}

// member is one running Raft of a test.
type member struct {
	*Raft
	machine   *ledger
	transport *raft.InmemTransport
	cancel    context.CancelFunc
	done      chan error
}

var testKeys sync.Map // by node ID

// testKey is the data key of a test's node, the same at each start.
func testKey(nodeID string) *seal.Key {
	k, _ := testKeys.LoadOrStore(nodeID, seal.NewKey(seal.Owner{ClusterID: "c1", NodeID: nodeID}))
	return k.(*seal.Key)
}

func singleConfig(dir string, start Start) RaftConfig {
	return RaftConfig{
		Dir: dir, Key: testKey("n1"), Start: start,
		Transport: func() (raft.Transport, error) {
			_, t := raft.NewInmemTransport("n1")
			return t, nil
		},
	}
}

func startMember(t testing.TB, cfg RaftConfig) *member {
	t.Helper()
	m := &member{machine: &ledger{}, done: make(chan error, 1)}
	cfg.Machine = m.machine
	m.Raft = NewRaft(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		m.done <- m.Run(ctx)
	}()
	select {
	case <-m.Ready():
	case err := <-m.done:
		cancel()
		t.Fatalf("run: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		for range m.done {
		}
	})
	return m
}

func (m *member) stop(t testing.TB) {
	t.Helper()
	m.cancel()
	select {
	case err := <-m.done:
		if err != nil {
			t.Fatalf("run: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("raft did not stop")
	}
}

func (m *member) waitLeader(t testing.TB) {
	t.Helper()
	if _, err := m.WaitLeader(deadline(t)); err != nil {
		t.Fatalf("no leader: %v", err)
	}
}

func (m *member) mustApply(t testing.TB, data string) {
	t.Helper()
	if err := m.Apply(deadline(t), []byte(data)); err != nil {
		t.Fatalf("apply %s: %v", data, err)
	}
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestSingleVoterLeadsAtOnceAndKeepsItsState(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, singleConfig(dir, Bootstrap))
	m.waitLeader(t)
	for i := range 20 {
		m.mustApply(t, fmt.Sprint("e", i))
	}
	if err := m.Apply(deadline(t), []byte("refuse me")); !errors.Is(err, errRefused) {
		t.Fatalf("the state machine's own error came out as %v", err)
	}
	if err := m.Apply(deadline(t), make([]byte, store.MaxTxn+1)); !errors.Is(err, store.ErrTooLarge) || !errdefs.IsInvalidArgument(err) {
		t.Fatalf("an entry too large: %v", err)
	}
	if err := m.VerifyLeader(deadline(t)); err != nil {
		t.Fatal(err)
	}
	want := m.machine.all()
	s := m.Stats()
	if s.State != "Leader" || s.LeaderID != "n1" || len(s.Servers) != 1 || !s.Servers[0].Voter || s.AppliedIndex < 20 {
		t.Fatalf("stats: %+v", s)
	}
	m.stop(t)
	if err := m.Apply(deadline(t), []byte("late")); !errdefs.IsUnavailable(err) {
		t.Fatalf("apply after the end: %v", err)
	}

	// Without the kick in start, this takes one to two election timeouts.
	cfg := singleConfig(dir, Restart)
	cfg.ElectionTimeout = time.Minute
	m = startMember(t, cfg)
	if err := m.barrierUntil(deadline(t)); err != nil {
		t.Fatalf("a restart does not lead at once: %v", err)
	}
	if got := m.machine.all(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("after the restart: %v", got)
	}
	m.stop(t)
}

func TestSnapshotRestoreAndCompaction(t *testing.T) {
	dir := t.TempDir()
	cfg := singleConfig(dir, Bootstrap)
	cfg.SnapshotEntries, cfg.TrailingEntries, cfg.SnapshotCheck = 50, 10, 10*time.Millisecond
	m := startMember(t, cfg)
	m.waitLeader(t)
	for i := range 300 {
		m.mustApply(t, fmt.Sprint("e", i))
	}
	count := func() int {
		files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	eventually(t, "snapshots are taken", func() bool { return count() > 0 })
	if err := m.Snapshot(deadline(t)); err != nil {
		t.Fatal(err)
	}
	m.mustApply(t, "after")
	want := m.machine.all()
	m.stop(t)
	if n := count(); n > 2 {
		t.Errorf("%d snapshots are kept", n)
	}

	m = startMember(t, cfg)
	if len(m.machine.all()) < 300 {
		t.Error("the snapshot was not restored before the log was replayed")
	}
	if err := m.barrierUntil(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if got := m.machine.all(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("after the restart: %d entries, want %d", len(got), len(want))
	}
	m.stop(t)
}

// TestSetSnapshots changes what a running member keeps.
func TestSetSnapshots(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, singleConfig(dir, Bootstrap))
	m.waitLeader(t)
	kept := func() int {
		files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	snapshot := func() {
		m.mustApply(t, "e")
		if err := m.Snapshot(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.SetSnapshots(Snapshots{Entries: 50, Retain: 0}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no snapshot at all: %v", err)
	}
	if err := m.SetSnapshots(Snapshots{Entries: 1000, Trailing: 5, Retain: 4}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		snapshot()
	}
	if n := kept(); n != 4 {
		t.Errorf("%d snapshots are kept, want 4", n)
	}
	if c := m.raft.ReloadableConfig(); c.SnapshotThreshold != 1000 || c.TrailingLogs != 5 {
		t.Errorf("raft runs with %+v", c)
	}
	if err := m.SetSnapshots(Snapshots{Entries: 1000, Trailing: 5, Retain: 1}); err != nil {
		t.Fatal(err)
	}
	if n := kept(); n != 1 {
		t.Errorf("%d snapshots are kept, want 1", n)
	}
	m.stop(t)
	if err := m.SetSnapshots(Snapshots{Entries: 1, Retain: 1}); !errdefs.IsUnavailable(err) {
		t.Errorf("after the end: %v", err)
	}
}

// refuseStart runs a member that must not start, and returns why.
func refuseStart(t *testing.T, cfg RaftConfig) error {
	t.Helper()
	cfg.Machine = &ledger{}
	r := NewRaft(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("it started and ended without a word")
		}
		return err
	case <-r.Ready():
		cancel()
		<-done
		t.Fatal("it started")
	}
	return nil
}

func TestStartRefusesAnIncompleteDirectory(t *testing.T) {
	template := t.TempDir()
	cfg := singleConfig(template, Bootstrap)
	cfg.TrailingEntries = 5
	m := startMember(t, cfg)
	m.waitLeader(t)
	for i := range 100 {
		m.mustApply(t, fmt.Sprint("e", i))
	}
	if err := m.Snapshot(deadline(t)); err != nil {
		t.Fatal(err)
	}
	m.mustApply(t, "after")
	m.stop(t)

	snapshotOf := func(dir string) string {
		files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"+snapshotSuffix))
		if err != nil || len(files) != 1 {
			t.Fatalf("snapshots: %v, %v", files, err)
		}
		return files[0]
	}
	edit := func(path string, change func([]byte) []byte) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		spoil func(dir string)
		start Start
		says  string
	}{
		"log missing":                     {func(dir string) { os.Remove(filepath.Join(dir, "raft.db")) }, Restart, "raft.db is missing"},
		"log missing, asked to bootstrap": {func(dir string) { os.Remove(filepath.Join(dir, "raft.db")) }, Bootstrap, "raft.db is missing"},
		"snapshot missing":                {func(dir string) { os.Remove(snapshotOf(dir)) }, Restart, "a snapshot is missing"},
		"snapshot cut":                    {func(dir string) { edit(snapshotOf(dir), func(b []byte) []byte { return b[:len(b)/2] }) }, Restart, "damaged"},
		"snapshot's state flipped": {func(dir string) {
			edit(snapshotOf(dir), func(b []byte) []byte { b[len(b)-40] ^= 1; return b })
		}, Restart, "damaged (it was changed"},
		"snapshot's description flipped": {func(dir string) {
			edit(snapshotOf(dir), func(b []byte) []byte { return bytes.Replace(b, []byte(`"Index":`), []byte(`"Indey":`), 1) })
		}, Restart, "damaged (it was changed"},
		"log cut": {func(dir string) { edit(filepath.Join(dir, "raft.db"), func(b []byte) []byte { return b[:8192] }) }, Restart, "damaged"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
				t.Fatal(err)
			}
			c.spoil(dir)
			err := refuseStart(t, singleConfig(dir, c.start))
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "join again") || !errdefs.IsDataLoss(err) {
				t.Fatalf("refused with: %v", err)
			}
		})
	}
	t.Run("another node's", func(t *testing.T) {
		cfg := singleConfig(template, Restart)
		cfg.Key = testKey("n2")
		if err := refuseStart(t, cfg); !errdefs.IsFailedPrecondition(err) {
			t.Fatalf("refused with: %v", err)
		}
	})
}

func TestApplyEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		lead := g.leader(t)
		g.isolate(lead)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		var unknown *UnknownOutcomeError
		err := lead.Apply(ctx, []byte("lost?"))
		if !errors.As(err, &unknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("apply without a quorum: %v", err)
		}
		// And without a deadline of its own, with the lease.
		err = lead.Apply(deadline(t), []byte("lost too?"))
		var notLeader *NotLeaderError
		if !errors.As(err, &unknown) && !errors.As(err, &notLeader) {
			t.Fatalf("apply without a quorum: %v", err)
		}
	})
}

// TestReadBack: what a member has on disk is all that it applied, from the
// snapshot and from the log behind it, and reading it leaves it as it was.
func TestReadBack(t *testing.T) {
	cfg := singleConfig(t.TempDir(), Bootstrap)
	cfg.TrailingEntries = 5
	if err := NewRaft(cfg).ReadBack(&ledger{}); !errdefs.IsNotFound(err) {
		t.Fatalf("before there is anything: %v", err)
	}
	m := startMember(t, cfg)
	m.waitLeader(t)
	read := func() string {
		t.Helper()
		var l ledger
		if err := NewRaft(cfg).ReadBack(&l); err != nil {
			t.Fatal(err)
		}
		return strings.Join(l.all(), " ")
	}
	for i := range 30 {
		m.mustApply(t, fmt.Sprint("a", i))
	}
	if err := m.Apply(deadline(t), []byte("refuse me")); !errors.Is(err, errRefused) {
		t.Fatal(err)
	}
	want := strings.Join(m.machine.all(), " ")
	m.stop(t)
	if got := read(); got != want {
		t.Fatalf("from the log: %s", got)
	}

	cfg.Start = Restart
	m = startMember(t, cfg)
	m.waitLeader(t)
	if err := m.Snapshot(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		m.mustApply(t, fmt.Sprint("b", i))
	}
	want = strings.Join(m.machine.all(), " ")
	m.stop(t)
	for range 2 {
		if got := read(); got != want {
			t.Fatalf("from snapshot and log: %s", got)
		}
	}
	m = startMember(t, cfg)
	m.waitLeader(t)
	m.mustApply(t, "after")
	m.stop(t)
}
