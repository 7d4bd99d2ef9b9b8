package cluster

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"

	"shoal/cluster/boltlog"
)

// TestInstalledSnapshotKeepsWhatFollows: raft drops the log when it has installed
// a snapshot. What came in behind the snapshot meanwhile must stay.
func TestInstalledSnapshotKeepsWhatFollows(t *testing.T) {
	for _, c := range []struct {
		name        string
		begin       uint64 // of the log, which goes to 10
		term        uint64 // of its entries; the snapshot's is 2
		snapshot    uint64 // 0: none
		low, high   uint64
		first, last uint64 // left
		startsAgain bool
	}{
		{"same history", 1, 2, 6, 1, 10, 6, 10, false},
		{"all of it follows", 7, 2, 6, 6, 10, 7, 10, false},
		{"another history", 1, 1, 6, 1, 10, 0, 0, true},
		{"nothing follows", 1, 2, 10, 1, 10, 0, 0, false},
		{"the log was far behind", 1, 2, 20, 1, 10, 0, 0, false},
		{"compaction", 1, 2, 6, 1, 4, 5, 10, false},
		{"the end is overruled", 1, 2, 6, 7, 10, 1, 6, false},
		{"all that follows is overruled", 7, 2, 6, 7, 10, 0, 0, false},
		{"no snapshot", 1, 2, 0, 1, 10, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, snapshots := testStores(t)
			storeEntries(t, store, c.begin, 10, c.term)
			if c.snapshot > 0 {
				takeSnapshot(t, snapshots, c.snapshot)
			}
			var failed error
			ending := make(chan struct{})
			close(ending)
			l := raftLog{store, snapshots, func(err error) { failed = err }, ending}
			if first, _ := l.FirstIndex(); c.begin == c.snapshot+1 && c.begin > 1 && first != c.snapshot {
				t.Errorf("the log begins with entry %d", first)
			}
			if err := l.DeleteRange(c.low, c.high); err != nil {
				t.Fatal(err)
			}
			first, _ := store.FirstIndex()
			last, _ := store.LastIndex()
			if first != c.first || last != c.last {
				t.Errorf("entries %d to %d are left, want %d to %d", first, last, c.first, c.last)
			}
			if (failed != nil) != c.startsAgain {
				t.Errorf("asked to start again: %v", failed)
			}
		})
	}
}

// TestFollowerGoesOnBehindItsSnapshot: a follower that has a snapshot, and entries
// right behind it, is sent entries from there or from further back: the same again,
// as the leader has missed an answer, or others by the next leader.
func TestFollowerGoesOnBehindItsSnapshot(t *testing.T) {
	dir := t.TempDir()
	everybody := raft.Configuration{}
	for _, id := range []string{"n1", "n2", "n3"} {
		everybody.Servers = append(everybody.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	var content bytes.Buffer
	if _, err := (ledgerSnapshot{"in the snapshot"}).WriteTo(&content); err != nil {
		t.Fatal(err)
	}
	_, leader := raft.NewInmemTransportWithTimeout("leader", time.Minute)
	begin := func(start Start) *member {
		cfg := singleConfig(dir, start)
		cfg.ElectionTimeout = time.Hour // it leads whom it is told to
		_, transport := raft.NewInmemTransport("n1")
		cfg.Transport = func() (raft.Transport, error) { return transport, nil }
		leader.Connect("n1", transport)
		return startMember(t, cfg)
	}
	from := func(id string) raft.RPCHeader {
		return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
	}
	install := func(id string, term uint64) {
		t.Helper()
		var resp raft.InstallSnapshotResponse
		err := leader.InstallSnapshot("n1", "n1", &raft.InstallSnapshotRequest{
			RPCHeader: from(id), SnapshotVersion: raft.SnapshotVersionMax, Term: term, LastLogIndex: 10, LastLogTerm: 2,
			Configuration: raft.EncodeConfiguration(everybody), ConfigurationIndex: 1, Size: int64(content.Len()),
		}, &resp, bytes.NewReader(content.Bytes()))
		if err != nil || !resp.Success {
			t.Fatalf("%s sends its snapshot: %+v, %v", id, resp, err)
		}
	}
	appendTo := func(id string, term, prev, prevTerm, commit uint64, entries ...string) {
		t.Helper()
		req := &raft.AppendEntriesRequest{RPCHeader: from(id), Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit}
		for i, e := range entries {
			req.Entries = append(req.Entries, &raft.Log{Index: prev + 1 + uint64(i), Term: term, Type: raft.LogCommand, Data: []byte(e)})
		}
		var resp raft.AppendEntriesResponse
		if err := leader.AppendEntries("n1", "n1", req, &resp); err != nil || !resp.Success {
			t.Fatalf("%s sends %q behind entry %d: %+v, %v", id, entries, prev, resp, err)
		}
	}

	m := begin(Join)
	install("n2", 2)
	for range 2 {
		appendTo("n2", 2, 10, 2, 10, "a2", "b2", "c2")
	}
	install("n2", 2) // again, and late
	appendTo("n2", 2, 7, 2, 7, "of the snapshot")
	appendTo("n2", 2, 8, 2, 10, "of the snapshot", "too", "a2", "b2")
	appendTo("n2", 2, 13, 2, 10, "d2")
	appendTo("n3", 3, 7, 2, 12, "of the snapshot") // n3 has others from 11 on, and they are committed
	appendTo("n3", 3, 10, 2, 10, "a3", "b3")       // nobody else has heard of n2's
	appendTo("n3", 3, 12, 3, 11)
	m.stop(t)

	m = begin(Restart)
	appendTo("n2", 4, 9, 2, 10)
	appendTo("n2", 4, 10, 2, 10)
	appendTo("n2", 4, 11, 3, 11, "b4")
	appendTo("n2", 4, 12, 4, 12)
	want := []string{"in the snapshot", "a3", "b4"}
	eventually(t, "it has what was committed", func() bool { return slices.Equal(m.machine.all(), want) })
	m.stop(t)
}

// TestMembersBehindASnapshot: raft takes the members from a snapshot that it
// installs. Who was added or removed behind it must not be forgotten by that.
func TestMembersBehindASnapshot(t *testing.T) {
	dir := t.TempDir()
	configuration := func(ids ...string) []byte {
		var c raft.Configuration
		for _, id := range ids {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		return raft.EncodeConfiguration(c)
	}
	var content bytes.Buffer
	if _, err := (ledgerSnapshot{"in the snapshot"}).WriteTo(&content); err != nil {
		t.Fatal(err)
	}
	_, leader := raft.NewInmemTransportWithTimeout("n2", time.Minute)
	begin := func(start Start) *member {
		cfg := singleConfig(dir, start)
		cfg.ElectionTimeout = time.Hour
		_, transport := raft.NewInmemTransport("n1")
		cfg.Transport = func() (raft.Transport, error) { return transport, nil }
		leader.Connect("n1", transport)
		return startMember(t, cfg)
	}
	from := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("n2"), Addr: []byte("n2")}
	install := func(term uint64) (resp raft.InstallSnapshotResponse, err error) {
		err = leader.InstallSnapshot("n1", "n1", &raft.InstallSnapshotRequest{
			RPCHeader: from, SnapshotVersion: raft.SnapshotVersionMax, Term: term, LastLogIndex: 10, LastLogTerm: 2,
			Configuration: configuration("n1", "n2"), ConfigurationIndex: 1, Size: int64(content.Len()),
		}, &resp, bytes.NewReader(content.Bytes()))
		return resp, err
	}
	mustInstall := func(term uint64) {
		t.Helper()
		if resp, err := install(term); err != nil || !resp.Success {
			t.Fatalf("%+v, %v", resp, err)
		}
	}
	m := begin(Join)
	mustInstall(2)
	var resp raft.AppendEntriesResponse
	err := leader.AppendEntries("n1", "n1", &raft.AppendEntriesRequest{
		RPCHeader: from, Term: 2, PrevLogEntry: 10, PrevLogTerm: 2, LeaderCommitIndex: 10,
		Entries: []*raft.Log{{Index: 11, Term: 2, Type: raft.LogConfiguration, Data: configuration("n1", "n2", "n3")}},
	}, &resp)
	if err != nil || !resp.Success {
		t.Fatalf("%+v, %v", resp, err)
	}
	three := func() {
		t.Helper()
		if all := m.Stats().Servers; len(all) != 3 {
			t.Errorf("the managers are %v", all)
		}
	}
	mustInstall(2)
	three()
	_, _ = install(3) // it may end before it has answered
	if err := <-m.done; !errdefs.IsAborted(err) {
		t.Fatalf("it went on: %v", err)
	}
	m = begin(Restart)
	three()
	mustInstall(3)
	three()
	m.stop(t)
}

// TestSnapshotsLastEntryIsNotSent: that the log begins with it is said to raft so
// that it has something to compare with.
func TestSnapshotsLastEntryIsNotSent(t *testing.T) {
	store, snapshots := testStores(t)
	storeEntries(t, store, 7, 9, 2)
	takeSnapshot(t, snapshots, 6)
	l := raftLog{Store: store, snapshots: snapshots}
	var first raft.Log
	if err := l.GetLog(6, &first); err != nil || first.Index != 6 || first.Term != 2 {
		t.Fatalf("the entry before the log: %+v, %v", first, err)
	}
	f := &fence{store: store}
	for _, c := range []struct {
		name    string
		entries []*raft.Log
		refused bool
	}{
		{"none", nil, false},
		{"real ones", []*raft.Log{{Index: 1, Type: raft.LogNoop}, {Index: 2, Type: raft.LogCommand}}, false},
		{"the snapshot's last", []*raft.Log{{Index: 5, Type: raft.LogCommand}, &first}, true},
	} {
		if err := f.check(raft.RPC{Command: &raft.AppendEntriesRequest{Term: 2, Entries: c.entries}}); (err != nil) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func testStores(t *testing.T) (*boltlog.Store, *snapshotStore) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	if err := boltlog.Create(path, testKey("n1"), nil); err != nil {
		t.Fatal(err)
	}
	store, err := boltlog.Open(path, testKey("n1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	snapshots := &snapshotStore{dir: filepath.Join(dir, "snapshots"), key: testKey("n1"), retain: 1}
	if err := snapshots.open(); err != nil {
		t.Fatal(err)
	}
	return store, snapshots
}

func storeEntries(t *testing.T, store *boltlog.Store, first, last, term uint64) {
	t.Helper()
	for i := first; i <= last; i++ {
		if err := store.StoreLog(&raft.Log{Index: i, Term: term}); err != nil {
			t.Fatal(err)
		}
	}
}

func takeSnapshot(t *testing.T, snapshots *snapshotStore, index uint64) {
	t.Helper()
	sink, err := snapshots.Create(1, index, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}
