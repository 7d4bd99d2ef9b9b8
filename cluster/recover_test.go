package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
)

// TestRecoverAlone gives up two of three, which then come back: they are a
// quorum of the old group and go on as that, but neither group touches the
// other.
func TestRecoverAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		lead := g.leader(t)
		for _, e := range []string{"a", "b", "c"} {
			lead.mustApply(t, e)
		}
		g.agree(t, []string{"a", "b", "c"})
		g.leader(t)
		for _, id := range []string{"n1", "n2", "n3"} {
			g.stop(t, id)
		}

		survivor := g.start(t, "n2", Recover)
		survivor.waitLeader(t)
		survivor.mustApply(t, "d")
		s := survivor.Stats()
		if len(s.Servers) != 1 || s.Servers[0].NodeID != "n2" || generation(s.Term) != 1 {
			t.Fatalf("after recovery: %+v", s)
		}
		want := "a b c d"
		if got := strings.Join(survivor.machine.all(), " "); got != want {
			t.Fatalf("after recovery: %s", got)
		}

		// The others, who know nothing of it.
		old := &group{dir: g.dir, members: g.members}
		old.start(t, "n1", Restart)
		old.start(t, "n3", Restart)
		var other *member
		eventually(t, "the old group goes on", func() bool {
			for _, id := range []string{"n1", "n3"} {
				if g.members[id].VerifyLeader(deadline(t)) == nil {
					other = g.members[id]
					return true
				}
			}
			return false
		})
		other.mustApply(t, "old")
		if err := survivor.VerifyLeader(deadline(t)); err != nil {
			t.Fatalf("the old group deposed the new leader: %v", err)
		}
		survivor.mustApply(t, "e")
		want += " e"
		if got := strings.Join(survivor.machine.all(), " "); got != want {
			t.Fatalf("the old group reached the new one: %s", got)
		}
		if got := strings.Join(other.machine.all(), " "); got != "a b c old" {
			t.Fatalf("the new group reached the old one: %s", got)
		}

		// One that begins anew is taken in, and a restart changes nothing.
		g.stop(t, "n1")
		if err := os.RemoveAll(g.config("n1", Join).Dir); err != nil {
			t.Fatal(err)
		}
		g.start(t, "n1", Join)
		if err := survivor.AddVoter(deadline(t), "n1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new member has everything", func() bool {
			return strings.Join(g.members["n1"].machine.all(), " ") == want
		})
		g.stop(t, "n2")
		g.start(t, "n2", Restart)
		eventually(t, "it goes on after a restart", func() bool {
			return g.members["n2"].Apply(deadline(t), []byte("f")) == nil || g.members["n1"].Apply(deadline(t), []byte("f")) == nil
		})
	})
}

func TestRecoverBehindASnapshot(t *testing.T) {
	dir := t.TempDir()
	cfg := singleConfig(dir, Bootstrap)
	cfg.TrailingEntries = 1
	m := startMember(t, cfg)
	m.waitLeader(t)
	for i := range 20 {
		m.mustApply(t, fmt.Sprint("e", i))
	}
	if err := m.Snapshot(deadline(t)); err != nil {
		t.Fatal(err)
	}
	want := m.machine.all()
	m.stop(t)
	for range 3 { // also again, as after a crash before it was noted as done
		m = startMember(t, singleConfig(dir, Recover))
		if err := m.barrierUntil(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if got := m.machine.all(); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		m.stop(t)
	}
}

func TestRecoverRefusesNothing(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, singleConfig(dir, Join))
	m.stop(t)
	if err := refuseStart(t, singleConfig(dir, Recover)); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("an empty log: %v", err)
	}
	if err := refuseStart(t, singleConfig(t.TempDir(), Recover)); !errdefs.IsDataLoss(err) {
		t.Fatalf("a missing log: %v", err)
	}
}

// TestNothingLegibleOnDisk looks for what went through raft in every file.
func TestNothingLegibleOnDisk(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, singleConfig(dir, Bootstrap))
	m.waitLeader(t)
	marker := "a very secret name "
	for i := range 50 {
		m.mustApply(t, strings.Repeat(marker, 1+i*100))
	}
	if err := m.Snapshot(deadline(t)); err != nil {
		t.Fatal(err)
	}
	m.stop(t)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(raw, []byte(marker)) {
			t.Errorf("%s shows what it holds", path)
		}
		return nil
	})
	if err != nil || files < 2 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// TestSnapshotIsOvertaken: a snapshot that takes longer than the next does not
// come after it.
func TestSnapshotIsOvertaken(t *testing.T) {
	s := &snapshotStore{dir: t.TempDir(), key: testKey("n1"), retain: 9}
	create := func(index uint64) raft.SnapshotSink {
		t.Helper()
		k, err := s.Create(1, index, 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	own, sent := create(5), create(9)
	if err := sent.Close(); err != nil {
		t.Fatal(err)
	}
	if err := own.Close(); err == nil || !strings.Contains(err.Error(), "entry 5 comes too late: there is one at entry 9") {
		t.Fatalf("an older snapshot was finished: %v", err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
}

// TestSnapshotPieces writes states of sizes around a piece's, and then damages,
// cuts, reorders and swaps their files.
func TestSnapshotPieces(t *testing.T) {
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := &snapshotStore{dir: t.TempDir(), key: testKey("n1"), retain: 9}
			state := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			write := func(index uint64) string {
				k, err := s.Create(1, index, 1, (&Raft{nodeID: "n1"}).alone(), 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				for rest := state; len(rest) > 0; {
					n, err := k.Write(rest[:min(len(rest), 1000)])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := k.Close(); err != nil {
					t.Fatal(err)
				}
				return k.ID()
			}
			id, twin := write(5), write(6)
			if _, err := s.Create(1, 4, 1, (&Raft{nodeID: "n1"}).alone(), 1, nil); err == nil || !strings.Contains(err.Error(), "entry 4 comes too late: there is one at entry 6") {
				t.Fatalf("an older snapshot than the newest: %v", err)
			}
			read := func() ([]byte, error) {
				meta, r, err := s.Open(id)
				if err != nil {
					return nil, err
				}
				defer r.Close()
				var b bytes.Buffer
				if _, err := b.ReadFrom(r); err != nil {
					return nil, err
				}
				if meta.Size != int64(b.Len()) {
					t.Fatalf("size %d, but %d bytes", meta.Size, b.Len())
				}
				return b.Bytes(), nil
			}
			if got, err := read(); err != nil || !bytes.Equal(got, state) {
				t.Fatalf("%d bytes came back, %v", len(got), err)
			}

			healthy, err := os.ReadFile(s.path(id))
			if err != nil {
				t.Fatal(err)
			}
			foreign, err := os.ReadFile(s.path(twin))
			if err != nil {
				t.Fatal(err)
			}
			spoil := func(what string, b []byte) {
				t.Helper()
				if err := os.WriteFile(s.path(id), b, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := read(); err == nil {
					t.Errorf("%s: it was read all the same", what)
				}
			}
			for at := 0; at < len(healthy); at += 1 + len(healthy)/300 {
				b := bytes.Clone(healthy)
				b[at] ^= 4
				spoil(fmt.Sprintf("byte %d of %d changed", at, len(b)), b)
				spoil(fmt.Sprintf("cut to %d of %d", at, len(b)), healthy[:at])
			}
			spoil("a byte more", append(bytes.Clone(healthy), 0))
			start := len(healthy) - size - (max(size-1, 0)/pieceSize+1)*40
			if size > 2*pieceSize {
				b := bytes.Clone(healthy)
				copy(b[start:], healthy[start+sealedPiece:start+2*sealedPiece])
				copy(b[start+sealedPiece:], healthy[start:start+sealedPiece])
				spoil("pieces swapped", b)
				spoil("cut between pieces", healthy[:start+sealedPiece])
			}
			spoil("another snapshot under this name", foreign)
			spoil("the state of another snapshot", append(bytes.Clone(healthy[:start]), foreign[start:]...))
			if err := os.WriteFile(s.path(id), healthy, 0o600); err != nil {
				t.Fatal(err)
			}
			s.key = testKey("n2")
			if _, err := read(); err == nil {
				t.Error("another node's snapshot was read")
			}
		})
	}
}
