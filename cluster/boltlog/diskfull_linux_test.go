package boltlog

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// TestDiskFull fills a real filesystem until the file can no longer grow.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	for _, size := range []string{"size=300k", "size=1m", "size=3m"} {
		t.Run(size, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
				t.Skipf("mount: %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			path := filepath.Join(dir, "raft.db")
			if err := Create(path, who, nil); err != nil {
				t.Fatal(err)
			}
			var told error
			s, err := Open(path, who, func(err error) { told = err })
			if err != nil {
				t.Fatal(err)
			}

			var acknowledged []*raft.Log
			rng := rand.New(rand.NewPCG(5, 5))
			for i := uint64(1); ; i++ {
				batch := entries(rng, i, i, 8000)
				if err = s.StoreLogs(batch); err != nil {
					break
				}
				acknowledged = append(acknowledged, batch...)
				if i > 10000 {
					t.Fatal("the disk never filled up")
				}
			}
			if !errors.Is(err, syscall.ENOSPC) || !errors.Is(told, syscall.ENOSPC) {
				t.Fatalf("writing to a full disk: %v; the owner was told: %v", err, told)
			}
			if len(acknowledged) < 10 {
				t.Fatalf("only %d entries fitted", len(acknowledged))
			}
			// Nothing is promised after the failure, and raft is not panicked.
			if err := s.Set([]byte("LastVoteCand"), []byte("x")); err == nil {
				t.Fatal("a failed store took a vote")
			}
			if err := s.SetUint64([]byte("CurrentTerm"), 5); err != nil {
				t.Fatalf("raft would have panicked: %v", err)
			}
			mustClose(t, s)

			if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=32m"); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, path)
			got, values, err := content(s)
			if err != nil {
				t.Fatal(err)
			}
			// The entry that failed may be there or not; all others must be.
			if len(got) > len(acknowledged)+1 {
				t.Fatalf("%d entries came out of %d", len(got), len(acknowledged))
			}
			if d := cmp.Diff(acknowledged, got[:min(len(got), len(acknowledged))]); d != "" {
				t.Fatal(d)
			}
			if values["CurrentTerm"] != "" {
				t.Fatal("a term was kept that could not be written")
			}
			last, _ := s.LastIndex()
			if err := s.StoreLogs(entries(rng, last+1, last+100, 8000)); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			mustClose(t, openStore(t, path))
		})
	}
}
