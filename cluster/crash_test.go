package cluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"shoal/cluster/seal"
)

const crashEnv = "SHOAL_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// crashConfig takes the data key from the directory: it is the same for all
// processes.
func crashConfig(dir string) (RaftConfig, error) {
	cfg := singleConfig(dir, Bootstrap)
	path := filepath.Join(dir, "key")
	file, err := seal.Load(path, cfg.Key.Owner())
	if errdefs.IsNotFound(err) {
		file, err = seal.Create(path, cfg.Key, seal.Lock{})
	}
	if err != nil {
		return cfg, err
	}
	if cfg.Key, err = file.Open(nil); err != nil {
		return cfg, err
	}
	// Snapshots and compaction all the time, so that kills fall into them.
	cfg.SnapshotEntries, cfg.TrailingEntries, cfg.SnapshotCheck = 40, 10, 5*time.Millisecond
	return cfg, nil
}

// writeUntilKilled is the child: eight writers, each of which says what was
// acknowledged, after it was.
func writeUntilKilled(dir string) error {
	cfg, err := crashConfig(dir)
	if err != nil {
		return err
	}
	machine := &ledger{}
	cfg.Machine = machine
	r := NewRaft(cfg)
	done := make(chan error, 1)
	go func() { done <- r.Run(context.Background()) }()
	select {
	case <-r.Ready():
	case err := <-done:
		return err
	}
	if err := r.barrierUntil(context.Background()); err != nil {
		return err
	}
	base := len(machine.all())
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				entry := fmt.Sprintf("%d-%d-%d", base, w, i)
				if err := r.Apply(context.Background(), []byte(entry)); err != nil {
					done <- err
					return
				}
				out.Lock()
				fmt.Println(entry)
				out.Unlock()
			}
		}()
	}
	return <-done
}

// TestKilledWhileWriting kills a process that writes, again and again, on one
// directory. Whatever it acknowledged must be there, once.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 12 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashEnv+"="+dir)
		var stderr strings.Builder
		child.Stderr = &stderr
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines, killAfter := bufio.NewScanner(stdout), 30+round*37
		for n := 0; lines.Scan(); n++ {
			acknowledged = append(acknowledged, lines.Text())
			if n == killAfter {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); child.ProcessState.Success() || stderr.Len() > 0 {
			t.Fatalf("round %d: the child ended by itself: %v %s", round, err, stderr.String())
		}
	}

	cfg, err := crashConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := startMember(t, cfg)
	if err := m.barrierUntil(deadline(t)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range m.machine.all() {
		seen[e]++
	}
	for _, e := range acknowledged {
		if seen[e] != 1 {
			t.Errorf("acknowledged entry %s is there %d times", e, seen[e])
		}
	}
	m.stop(t)
	snapshots, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"+snapshotSuffix))
	if err != nil || len(snapshots) == 0 {
		t.Errorf("no snapshot was ever taken (%v), so no kill can have hit one", err)
	}
	t.Logf("%d entries acknowledged over 12 kills, %d in all", len(acknowledged), len(seen))
}

// TestTwoRaftsOnOneDirectory must not both run.
func TestTwoRaftsOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	m := startMember(t, singleConfig(dir, Bootstrap))
	if err := refuseStart(t, singleConfig(dir, Restart)); !strings.Contains(err.Error(), "in use") {
		t.Fatal(err)
	}
	m.waitLeader(t)
	m.mustApply(t, "unharmed")
	m.stop(t)
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	lock, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir)
	if err == nil || !strings.Contains(err.Error(), "in use by pid "+strconv.Itoa(os.Getpid())) {
		t.Fatalf("a second lock: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Unlock(); err != nil {
		t.Fatal(err)
	}
}
