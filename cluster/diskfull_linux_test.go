package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDiskFullStopsTheNode: whoever proposed hears of it, the node ends with a
// message that names the file, and what was acknowledged is there afterwards.
func TestDiskFullStopsTheNode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})

	m := startMember(t, singleConfig(dir, Bootstrap))
	m.waitLeader(t)
	var (
		mu           sync.Mutex
		acknowledged []string
		writers      sync.WaitGroup
		failures     = make(chan error, 4)
	)
	for w := range 4 {
		writers.Go(func() {
			for i := range 10000 {
				entry := fmt.Sprintf("%d-%d-%s", w, i, strings.Repeat("x", 3000))
				if err := m.Apply(context.Background(), []byte(entry)); err != nil {
					failures <- err
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, entry)
				mu.Unlock()
			}
			failures <- nil
		})
	}
	writers.Wait()
	surfaced := false
	for range 4 {
		err := <-failures
		if err == nil {
			t.Fatal("the disk never filled up")
		}
		surfaced = surfaced || errors.Is(err, syscall.ENOSPC)
	}
	if !surfaced {
		t.Error("no proposer was told that the disk is full")
	}
	select {
	case err := <-m.done:
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Join(dir, "raft.db")) {
			t.Fatalf("the node ended with: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on with a log it cannot write")
	}

	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	m = startMember(t, singleConfig(dir, Restart))
	if err := m.barrierUntil(deadline(t)); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range m.machine.all() {
		have[e] = true
	}
	for _, e := range acknowledged {
		if !have[e] {
			t.Fatalf("acknowledged entry %.20s is lost", e)
		}
	}
	m.mustApply(t, "and on")
	m.stop(t)
}
