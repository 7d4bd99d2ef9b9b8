package boltlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"shoal/cluster/seal"
)

var who = seal.NewKey(seal.Owner{ClusterID: "cluster1", NodeID: "node1"})

func newStore(t testing.TB, path string) *Store {
	t.Helper()
	if err := Create(path, who, nil); err != nil {
		t.Fatal(err)
	}
	return openStore(t, path)
}

func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, who, func(err error) { t.Errorf("the store failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fastDir is on a filesystem without a disk where there is one: the trials of
// a damage test are many, and none of them is about the disk.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "boltlog")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// entries makes log entries whose content follows from the seed.
func entries(rng *rand.Rand, from, to uint64, size int) []*raft.Log {
	var out []*raft.Log
	for i := from; i <= to; i++ {
		data := make([]byte, rng.IntN(size))
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		e := &raft.Log{Index: i, Term: 1 + i/100, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(0, int64(i)*1e6)}
		if i%7 == 0 {
			e.Extensions = []byte("ext")
		}
		out = append(out, e)
	}
	return out
}

// content reads everything through the store.
func content(s *Store) ([]*raft.Log, map[string]string, error) {
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	var logs []*raft.Log
	if last > 0 {
		for i := first; i <= last; i++ {
			var e raft.Log
			if err := s.GetLog(i, &e); err != nil {
				return nil, nil, err
			}
			logs = append(logs, &e)
		}
	}
	values := map[string]string{}
	for _, k := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		v, err := s.Get([]byte(k))
		if err != nil {
			return nil, nil, err
		}
		values[k] = string(v)
	}
	return logs, values, nil
}

func TestStoreKeepsEverythingAcrossReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := newStore(t, path)
	rng := rand.New(rand.NewPCG(1, 1))
	want := entries(rng, 1, 300, 3000)
	for chunk := want; len(chunk) > 0; {
		n := min(1+rng.IntN(20), len(chunk))
		if err := s.StoreLogs(chunk[:n]); err != nil {
			t.Fatal(err)
		}
		chunk = chunk[n:]
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("node2")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)

	s = openStore(t, path)
	got, _, err := content(s)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if n, err := s.GetUint64([]byte("CurrentTerm")); n != 7 || err != nil {
		t.Fatalf("CurrentTerm = %d, %v", n, err)
	}
	if n, err := s.GetUint64([]byte("never set")); n != 0 || err != nil {
		t.Fatalf("a value never set = %d, %v", n, err)
	}

	// The oldest go with a snapshot, the newest at a new leader's word.
	for _, del := range [][2]uint64{{1, 120}, {290, 300}} {
		if err := s.DeleteRange(del[0], del[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []uint64{1, 120, 290, 300, 301} {
		if err := s.GetLog(gone, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d: %v", gone, err)
		}
	}
	mustClose(t, s)
	s = openStore(t, path)
	got, _, err = content(s)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want[120:289], got); d != "" {
		t.Fatal(d)
	}

	// An emptied log starts again wherever the installed snapshot ends.
	if err := s.DeleteRange(121, 289); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entries(rng, 1000, 1001, 10)); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.FirstIndex(); first != 1000 {
		t.Fatalf("first index %d", first)
	}
	mustClose(t, s)
}

// TestAppendDuringCompaction: raft does both at once, and each must leave the
// other's end of the log alone.
func TestAppendDuringCompaction(t *testing.T) {
	path := filepath.Join(fastDir(t), "raft.db")
	s := newStore(t, path)
	rng := rand.New(rand.NewPCG(6, 6))
	if err := s.StoreLogs(entries(rng, 1, 10, 50)); err != nil {
		t.Fatal(err)
	}
	var compacting sync.WaitGroup
	compacting.Go(func() {
		for {
			first, _ := s.FirstIndex()
			last, _ := s.LastIndex()
			if last >= 3000 {
				return
			}
			if first+10 < last {
				if err := s.DeleteRange(first, last-10); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := uint64(11); i <= 3000; i += 5 {
		if err := s.StoreLogs(entries(rng, i, min(i+4, 3000), 50)); err != nil {
			t.Fatal(err)
		}
	}
	compacting.Wait()
	mustClose(t, s)
	mustClose(t, openStore(t, path))
}

func TestStoreRefusesAGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := Create(path, who, nil); err != nil {
		t.Fatal(err)
	}
	var told error
	s, err := Open(path, who, func(err error) { told = err })
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	if err := s.StoreLogs(entries(rng, 1, 3, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entries(rng, 5, 5, 10)); err == nil {
		t.Fatal("a gap was stored")
	}
	if told == nil {
		t.Fatal("the owner was not told")
	}
	if err := s.StoreLogs(entries(rng, 4, 4, 10)); !errors.Is(err, told) {
		t.Fatalf("a failed store went on: %v", err)
	}
	mustClose(t, s)
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	s := newStore(t, path)

	if _, err := Open(path, who, nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("open twice: %v", err)
	}
	mustClose(t, s)

	for _, other := range []seal.Owner{{ClusterID: "cluster2", NodeID: "node1"}, {ClusterID: "cluster1", NodeID: "node2"}, who.Owner()} {
		_, err := Open(path, seal.NewKey(other), nil)
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
			t.Errorf("open as %+v: %v", other, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none.db"), who, nil); !errdefs.IsNotFound(err) {
		t.Errorf("open a missing file: %v", err)
	}
	if err := Create(path, who, nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create over a file: %v", err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := Open(empty, who, nil); !errors.As(err, &damaged) || !errdefs.IsDataLoss(err) {
		t.Errorf("open an empty file: %v", err)
	}
	mustClose(t, openStore(t, path)) // none of it harmed the file
}

func TestCreateInterruptedLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	boom := errors.New("boom")
	if err := Create(path, who, func(*Store) error { return boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("a log that was never finished has appeared")
	}
	mustClose(t, newStore(t, path))
}

// TestOpenAfterDamage changes a healthy file at random. Each time it must either
// be refused by name, or be complete, right, and able to take more.
func TestOpenAfterDamage(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "raft.db")
	rng := rand.New(rand.NewPCG(2024, 7))
	s := newStore(t, path)
	log := entries(rng, 1, 1500, 600)
	for i := 0; i < len(log); i += 10 {
		if err := s.StoreLogs(log[i : i+10]); err != nil {
			t.Fatal(err)
		}
	}
	big := &raft.Log{Index: 1501, Term: 99, Data: bytes.Repeat([]byte("overflow"), 3000)}
	if err := s.StoreLog(big); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]uint64{"CurrentTerm": 99, "LastVoteTerm": 98} {
		if err := s.SetUint64([]byte(k), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteRange(1, 400); err != nil {
		t.Fatal(err)
	}
	wantLog, wantValues, err := content(s)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	healthy, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var used int // the last byte that is not a hole
	for used = len(healthy); healthy[used-1] == 0; used-- {
	}

	kinds := []struct {
		name   string
		damage func(b []byte) []byte
	}{
		{"flip one bit", func(b []byte) []byte { b[rng.IntN(used)] ^= 1 << rng.IntN(8); return b }},
		{"flip a bit of a page header or key table", func(b []byte) []byte {
			b[rng.IntN(used/4096)*4096+rng.IntN(256)] ^= 1 << rng.IntN(8)
			return b
		}},
		{"flip a bit of a meta page", func(b []byte) []byte { b[rng.IntN(2)*4096+rng.IntN(96)] ^= 1 << rng.IntN(8); return b }},
		{"random bytes", func(b []byte) []byte {
			at := rng.IntN(used)
			for i := at; i < min(at+1+rng.IntN(64), len(b)); i++ {
				b[i] = byte(rng.Uint32())
			}
			return b
		}},
		{"zeroed page", func(b []byte) []byte { at := rng.IntN(used/4096) * 4096; clear(b[at : at+4096]); return b }},
		{"page in another's place", func(b []byte) []byte {
			from, to := rng.IntN(used/4096)*4096, rng.IntN(used/4096)*4096
			copy(b[to:to+4096], b[from:from+4096])
			return b
		}},
		{"truncated", func(b []byte) []byte { return b[:rng.IntN(len(b))] }},
	}
	for _, kind := range kinds {
		t.Run(strings.ReplaceAll(kind.name, " ", "-"), func(t *testing.T) {
			var refused, sound int
			for trial := range 150 {
				victim := filepath.Join(dir, "victim.db")
				if err := os.WriteFile(victim, kind.damage(bytes.Clone(healthy)), 0o600); err != nil {
					t.Fatal(err)
				}
				s, err := Open(victim, who, nil)
				if err != nil {
					var d *DamagedError
					if !errors.As(err, &d) || !strings.Contains(err.Error(), victim) {
						t.Fatalf("trial %d: refused with %v", trial, err)
					}
					refused++
					continue
				}
				sound++
				if err := sameAndWritable(s, victim, wantLog, wantValues); err != nil {
					t.Fatalf("trial %d: opened, but %v", trial, err)
				}
			}
			t.Logf("%d refused, %d opened sound", refused, sound)
			if refused == 0 {
				t.Fatal("no damage was ever noticed")
			}
		})
	}
}

func sameEntry(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}

func sameAndWritable(s *Store, path string, wantLog []*raft.Log, wantValues map[string]string) error {
	check := func(s *Store, want []*raft.Log) error {
		log, values, err := content(s)
		if err != nil {
			return err
		}
		if !maps.Equal(wantValues, values) || !slices.EqualFunc(want, log, sameEntry) {
			return errors.New("its content differs")
		}
		return nil
	}
	if err := check(s, wantLog); err != nil {
		return err
	}
	last, _ := s.LastIndex()
	more := entries(rand.New(rand.NewPCG(3, 3)), last+1, last+60, 600)
	for i := 0; i < len(more); i += 10 {
		if err := s.StoreLogs(more[i : i+10]); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	s, err := Open(path, who, nil)
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	if err := check(s, append(wantLog[:len(wantLog):len(wantLog)], more...)); err != nil {
		return err
	}
	return s.Close()
}

func TestDamageUnderARunningStoreIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := Create(path, who, nil); err != nil {
		t.Fatal(err)
	}
	var told error
	s, err := Open(path, who, func(err error) { told = err })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 1, Term: 1, Data: []byte("the bytes that will rot")}); err != nil {
		t.Fatal(err)
	}
	var marker []byte
	if err := s.db.View(func(tx *bolt.Tx) error {
		marker = bytes.Clone(tx.Bucket([]byte(logBucket)).Get(indexKey(1)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ { // every copy, as old pages hold it too
		i := bytes.Index(data[at:], marker)
		if i < 0 {
			break
		}
		at += i
		if _, err := f.WriteAt([]byte{^data[at]}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if err := s.GetLog(1, new(raft.Log)); !errors.As(err, &damaged) || !errors.As(told, &damaged) {
		t.Fatalf("read: %v, told: %v", err, told)
	}
	mustClose(t, s)
}

func TestFileCutShortUnderARunningStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := Create(path, who, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, who, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entries(rand.New(rand.NewPCG(4, 4)), 1, 100, 500)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	// Without the guard this read is a SIGBUS and the end of the process.
	if err := s.GetLog(50, new(raft.Log)); err == nil {
		t.Fatal("an entry was read from a file that no longer has it")
	}
	if err := s.StoreLogs(entries(rand.New(rand.NewPCG(4, 4)), 101, 101, 500)); err == nil {
		t.Fatal("a damaged store was written to")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestEntriesDoNotMove swaps sealed entries and values inside a file and between
// the files of two nodes; bbolt's own structure stays in order.
func TestEntriesDoNotMove(t *testing.T) {
	neighbour := seal.NewKey(seal.Owner{ClusterID: "cluster1", NodeID: "node2"})
	fill := func(key *seal.Key, path string) *Store {
		if err := Create(path, key, nil); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.StoreLogs(entries(rand.New(rand.NewPCG(8, 8)), 1, 10, 50)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	type ref struct {
		bucket string
		key    []byte
	}
	read := func(s *Store, r ref) (v []byte) {
		if err := s.db.View(func(tx *bolt.Tx) error {
			v = bytes.Clone(tx.Bucket([]byte(r.bucket)).Get(r.key))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, move := range map[string]struct {
		from, to ref
		foreign  bool
	}{
		"to another index":          {ref{logBucket, indexKey(3)}, ref{logBucket, indexKey(4)}, false},
		"from another node":         {ref{logBucket, indexKey(3)}, ref{logBucket, indexKey(3)}, true},
		"a value to another":        {ref{metaBucket, []byte(stableKey)}, ref{metaBucket, []byte(boundsKey)}, false},
		"a value of another node":   {ref{metaBucket, []byte(boundsKey)}, ref{metaBucket, []byte(boundsKey)}, true},
		"an entry as a value":       {ref{logBucket, indexKey(3)}, ref{metaBucket, []byte(boundsKey)}, false},
		"the stamp of another node": {ref{metaBucket, []byte(stampKey)}, ref{metaBucket, []byte(stampKey)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			path := filepath.Join(dir, "a.db")
			s, source := fill(who, path), fill(neighbour, filepath.Join(dir, "b.db"))
			v := read(s, move.from)
			if move.foreign {
				v = read(source, move.from)
			}
			if err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(move.to.bucket)).Put(move.to.key, v) }); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			mustClose(t, source)
			if _, err := Open(path, who, nil); !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("opened with %v", err)
			}
		})
	}
}

func TestAppendInTerm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := newStore(t, path)
	if err := s.AppendInTerm(&raft.Log{Index: 40, Term: 9, Type: raft.LogConfiguration}); err != nil { // behind a snapshot
		t.Fatal(err)
	}
	if err := s.AppendInTerm(&raft.Log{Index: 41, Term: 11}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s = openStore(t, path)
	log, _, err := content(s)
	if err != nil || len(log) != 2 || log[0].Index != 40 || log[1].Term != 11 {
		t.Fatalf("%v, %v", log, err)
	}
	if term, err := s.GetUint64([]byte(termKey)); term != 11 || err != nil {
		t.Fatalf("term %d, %v", term, err)
	}
	mustClose(t, s)
}
