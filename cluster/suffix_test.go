package cluster

import (
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"shoal/cluster/boltlog"
)

// TestInstalledSnapshotKeepsWhatFollows: raft drops the log when it has installed
// a snapshot. What came in behind the snapshot meanwhile must stay.
func TestInstalledSnapshotKeepsWhatFollows(t *testing.T) {
	for _, c := range []struct {
		name        string
		term        uint64 // of the log's entries; the snapshot's is 2
		snapshot    uint64 // 0: none
		low, high   uint64
		first, last uint64 // left
		startsAgain bool
	}{
		{"same history", 2, 6, 1, 10, 6, 10, false},
		{"another history", 1, 6, 1, 10, 0, 0, true},
		{"nothing follows", 2, 10, 1, 10, 0, 0, false},
		{"the log was far behind", 2, 20, 1, 10, 0, 0, false},
		{"compaction", 2, 6, 1, 4, 5, 10, false},
		{"the end is overruled", 2, 6, 7, 10, 1, 6, false},
		{"no snapshot", 2, 0, 1, 10, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "raft.db")
			if err := boltlog.Create(path, testKey("n1"), nil); err != nil {
				t.Fatal(err)
			}
			store, err := boltlog.Open(path, testKey("n1"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			for i := range uint64(10) {
				if err := store.StoreLog(&raft.Log{Index: i + 1, Term: c.term}); err != nil {
					t.Fatal(err)
				}
			}
			snapshots := &snapshotStore{dir: filepath.Join(dir, "snapshots"), key: testKey("n1"), retain: 1}
			if err := snapshots.open(); err != nil {
				t.Fatal(err)
			}
			if c.snapshot > 0 {
				sink, err := snapshots.Create(1, c.snapshot, 2, raft.Configuration{}, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := sink.Close(); err != nil {
					t.Fatal(err)
				}
			}
			var failed error
			ending := make(chan struct{})
			close(ending)
			l := raftLog{store, snapshots, func(err error) { failed = err }, ending}
			if err := l.DeleteRange(c.low, c.high); err != nil {
				t.Fatal(err)
			}
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			if first != c.first || last != c.last {
				t.Errorf("entries %d to %d are left, want %d to %d", first, last, c.first, c.last)
			}
			if (failed != nil) != c.startsAgain {
				t.Errorf("asked to start again: %v", failed)
			}
		})
	}
}
