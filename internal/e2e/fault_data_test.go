package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestDamagedData starts the daemon on data that is damaged or not its own. It
// must refuse, name the file, say what to do, and touch nothing that runs.
func TestDamagedData(t *testing.T) {
	h, outside := node(t)
	quiet(t, h)
	rnd, _ := seeded(t)
	deploy(t, h, "web", 2, 8080)

	// Another node's files, from a cluster that was left.
	do(t, h.StopShoal)
	other := copyDir(t, h.DataDir())
	ours := t.TempDir()
	do(t, startShoal(h))
	testbed.Must(t, h.Shoal("swarm", "leave", "--force"))
	testbed.Must(t, h.Shoal("swarm", "init"))
	deploy(t, h, "web", 2, 8080)
	before := mustLive(t, h, "web")
	do(t, h.StopShoal)
	copyInto(t, h.DataDir(), ours)

	path := func(name ...string) string { return filepath.Join(append([]string{h.DataDir()}, name...)...) }
	overwrite := func(name string, content string) {
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	restore := func(name string, from string) { copyInto(t, filepath.Join(from, name), path(name)) }
	log := "raft/raft.db"
	size := func() int64 {
		info, err := os.Stat(path(log))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const remedy = "move the data directory away"
	for _, c := range []struct {
		name   string
		damage func()
		words  []string
	}{
		{"log cut short", func() { truncate(t, path(log), 1+rnd.Int64N(12<<10)) }, []string{"/var/lib/shoal/raft/raft.db is damaged", remedy}},
		{"log empty", func() { truncate(t, path(log), 0) }, []string{"/var/lib/shoal/raft/raft.db is damaged", remedy}},
		{"log missing", func() { remove(t, path(log)) }, []string{"/var/lib/shoal/raft/raft.db is missing", remedy}},
		{"log with a damaged head", func() { scribble(t, path(log), 0, 512) }, []string{"/var/lib/shoal/raft/raft.db is damaged", remedy}},
		{"log of another node", func() { restore("raft", other) }, []string{"/var/lib/shoal/raft/key is of node", remedy}},
		{"log of another life", func() { restore("raft/raft.db", other) }, []string{"/var/lib/shoal/raft/raft.db is of node", remedy}},
		{"data key damaged", func() { scribble(t, path("raft/key"), 30, 20) }, []string{"/var/lib/shoal/raft/key is damaged", remedy}},
		{"data key missing", func() { remove(t, path("raft/key")) }, []string{"/var/lib/shoal/raft/key does not exist", remedy}},
		{"snapshot damaged", func() { overwrite("raft/snapshots/00000000000000000009-00000000000000000009.snap", "not a snapshot") }, []string{".snap is damaged", remedy}},
		{"snapshot of another cluster", func() { overwrite("raft/snapshots/00000000000000000009-00000000000000000009.snap", foreignSnapshot) }, []string{".snap is of cluster elsewhere", "remove it"}},
		{"identity empty", func() { overwrite("node.json", "") }, []string{"/var/lib/shoal/node.json is damaged", "move /var/lib/shoal away"}},
		{"identity cut short", func() { truncate(t, path("node.json"), 40) }, []string{"/var/lib/shoal/node.json is damaged", "move /var/lib/shoal away"}},
		{"identity of another node", func() { restore("node.json", other) }, []string{"/var/lib/shoal is mixed", "node.json", "restore it from one backup"}},
		{"identity without addresses", func() { overwrite("node.json", stripAddresses(t, path("node.json"))) }, []string{"/var/lib/shoal/node.json is damaged", "move /var/lib/shoal away"}},
		{"key damaged", func() { scribble(t, path("tls/node.key"), 60, 20) }, []string{"/var/lib/shoal/tls is damaged", remedy}},
		{"certificate empty", func() { overwrite("tls/node.crt", "") }, []string{"/var/lib/shoal/tls is damaged", remedy}},
		{"root missing", func() { remove(t, path("tls/ca.crt")) }, []string{"/var/lib/shoal/tls", "ca.crt", remedy}},
		{"key material missing", func() { copyInto(t, t.TempDir(), path("tls")) }, []string{"/var/lib/shoal/tls", remedy}},
		{"key material of another node", func() { restore("tls", other) }, []string{"/var/lib/shoal is mixed", "restore it from one backup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer restore(".", ours)
			c.damage()
			refused(t, runDaemon(t, h), c.words...)
			untouched(t, h, "web", before)
		})
	}
	t.Run("log damaged anywhere", func(t *testing.T) {
		caught := 0
		for range 8 {
			at := rnd.Int64N(size() - 512)
			scribble(t, path(log), at, 512)
			if r := runDaemon(t, h); r.Code != 0 {
				refused(t, r, "/var/lib/shoal/raft/raft.db is damaged", remedy)
				caught++
			} // else it hit a free part of the file, and the service was found to be whole
			untouched(t, h, "web", before)
			restore(".", ours)
		}
		if caught == 0 {
			t.Error("no damage was noticed")
		}
	})
	t.Run("records that are only caches", func(t *testing.T) {
		for _, name := range []string{"worker/tasks.json", "network/plugin.json"} {
			overwrite(name, `{"Tasks":`)
		}
		if r := runDaemon(t, h); r.Code != 0 {
			t.Errorf("refused over what the managers and the engine know: %s", r.Stderr)
		}
		untouched(t, h, "web", before)
		restore(".", ours)
	})
	t.Run("two daemons", func(t *testing.T) {
		do(t, startShoal(h))
		r := runDaemon(t, h, "--socket", "/run/second.sock")
		refused(t, r, "data directory /var/lib/shoal is already in use by pid")
		testbed.Eventually(t, patience, func() error { return settled(h, "web", 2) })
	})
	untouched(t, h, "web", before)
	testbed.Eventually(t, patience, func() error { return meshed(outside, h, "web", 8080, 2) })
}

// runDaemon runs a daemon until it ends or can be used, and then stops it. Its
// exit code is 0 if it could be used.
func runDaemon(t *testing.T, h *testbed.Host, flags ...string) testbed.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out strings.Builder
	argv := append([]string{os.Getenv(testbed.ShoalEnv), "daemon"}, flags...)
	cmd := h.Command(ctx, argv...)
	cmd.Stderr = &out
	if err := h.StartOn(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its exit code tells
	}()
	api := dialed(t, h.API)
	usable := testbed.Poll(ctx, patience, func() error {
		select {
		case <-ended:
			return nil
		default:
		}
		if len(flags) > 0 { // the API is another daemon's
			return errNotYet
		}
		_, err := api.NodeList(ctx, swarm.NodeListOptions{})
		return err
	})
	select {
	case <-ended:
	default:
		if usable == nil {
			usable = testbed.Poll(ctx, patience, func() error { return settled(h, "web", 2) })
		}
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	}
	r := testbed.Result{Args: argv, Stderr: out.String(), Code: cmd.ProcessState.ExitCode()}
	for _, bad := range []string{"panic", "fatal error", "DATA RACE"} {
		if strings.Contains(r.Stderr, bad) {
			t.Errorf("%s: %s", bad, r.Stderr)
		}
	}
	if r.Code == 0 && usable != nil {
		t.Errorf("the daemon neither refused nor worked: %v\n%s", usable, r.Stderr)
	}
	return r
}

// foreignSnapshot is healthy as far as its description.
var foreignSnapshot = func() string {
	text := `{"ClusterID":"elsewhere","Meta":{"Index":9,"Term":9}}`
	return "SHOALSN2\x00\x00\x00" + string(rune(len(text))) + text + strings.Repeat("x", 100)
}()

func stripAddresses(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, "NodeID") || strings.Contains(line, "ClusterID") {
			kept = append(kept, strings.TrimRight(strings.TrimSpace(line), ","))
		}
	}
	return "{" + strings.Join(kept, ",") + "}"
}

func truncate(t testing.TB, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// scribble turns n bytes of a file into others.
func scribble(t testing.TB, path string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x55
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	copyInto(t, from, to)
	return to
}

// copyInto makes to, a file or a directory, what from is. A directory that
// exists stays the same directory, as it may be mounted somewhere.
func copyInto(t testing.TB, from, to string) {
	t.Helper()
	if info, err := os.Stat(from); err != nil {
		t.Fatal(err)
	} else if info.IsDir() {
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		from += "/."
		old, err := os.ReadDir(to)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range old {
			if err := os.RemoveAll(filepath.Join(to, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("cp: %w: %s", err, out))
	}
}
