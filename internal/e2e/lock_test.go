package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// lockState says what /info says of a node: "locked", "active" and so on.
func lockState(h *testbed.Host) string {
	return strings.TrimSpace(h.Shoal("info", "--format", "{{.Swarm.LocalNodeState}}").Stdout)
}

func hasState(t *testing.T, h *testbed.Host, want string) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		if got := lockState(h); got != want {
			return fmt.Errorf("%s is %q, want %q", h.Name, got, want)
		}
		return nil
	})
}

func unlock(t *testing.T, h *testbed.Host, key string) testbed.Result {
	t.Helper()
	return h.RunInput(t.Context(), strings.NewReader(key+"\n"), "shoal", "swarm", "unlock")
}

func unlockKey(t *testing.T, h *testbed.Host) string {
	t.Helper()
	key := strings.TrimSpace(testbed.Must(t, h.Shoal("swarm", "unlock-key", "-q")))
	if !strings.HasPrefix(key, "SWMKEY-1-") || len(key) != 52 {
		t.Fatalf("unlock key %q", key)
	}
	return key
}

func restart(t *testing.T, hosts ...*testbed.Host) {
	t.Helper()
	for _, h := range hosts {
		if err := h.KillShoal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hosts {
		if err := h.StartShoal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// diskAt waits until the data keys of managers are under the lock of an epoch.
func diskAt(t *testing.T, epoch int, hosts ...*testbed.Host) {
	t.Helper()
	for _, h := range hosts {
		testbed.Eventually(t, patience, func() error {
			raw, err := os.ReadFile(filepath.Join(h.DataDir(), "raft", "key"))
			if err != nil {
				return err
			}
			if !bytes.Contains(raw, []byte(fmt.Sprintf(`"Epoch":%d,`, epoch))) {
				return fmt.Errorf("the data key of %s is under another lock: %.150s", h.Name, raw)
			}
			return nil
		})
	}
}

// illegible looks through the raft files and the keys of a manager.
func illegible(t *testing.T, h *testbed.Host, words ...string) {
	t.Helper()
	files := 0
	for _, dir := range []string{"raft", "tls"} {
		err := filepath.WalkDir(filepath.Join(h.DataDir(), dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, w := range append(words, "BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY") {
				if bytes.Contains(raw, []byte(w)) {
					t.Errorf("%s of %s shows %q", path, h.Name, w)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 5 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestAutolock(t *testing.T) {
	bed := testbed.Start(t, 1)
	h, client := bed.Host(0), bed.Client()
	out := testbed.Must(t, h.Shoal("swarm", "init", "--autolock"))
	key := unlockKey(t, h)
	if !strings.Contains(out, "    "+key+"\n") {
		t.Errorf("init does not show the key: %s", out)
	}
	diskAt(t, 1, h)
	create(t, h, "--name", "very-private-name", "--replicas", "2", "--publish", "8080:80", "--env", "TASK={{.Task.ID}}", testbed.WebV1)
	before := mustLive(t, h, "very-private-name")
	token := strings.TrimSpace(testbed.Must(t, h.Shoal("swarm", "join-token", "-q", "worker")))

	restart(t, h)
	hasState(t, h, "locked")
	illegible(t, h, "very-private-name", token[len(token)-25:], key, key[9:])
	locked := "Swarm is encrypted and needs to be unlocked before it can be used"
	refused(t, h.Shoal("node", "ls"), locked)
	refused(t, h.Docker("service", "ls"), locked)
	refused(t, h.Shoal("swarm", "leave"), locked)
	refused(t, h.Shoal("swarm", "unlock-key"), locked)
	refused(t, h.Shoal("swarm", "init", "--force-new-cluster"), locked)
	refused(t, h.Shoal("swarm", "init"), "already part of a swarm")

	t.Run("the node goes on as a worker", func(t *testing.T) {
		if _, err := answers(client, url(h, "8080"), 2); err != nil {
			t.Error(err)
		}
		if now := mustLive(t, h, "very-private-name"); !maps.Equal(now, before) {
			t.Errorf("containers changed: %v, were %v", now, before)
		}
	})
	t.Run("a wrong key", func(t *testing.T) {
		refused(t, unlock(t, h, "foo"), "invalid unlock key")
		refused(t, unlock(t, h, "SWMKEY-1-"+strings.Repeat("A", 43)), "swarm could not be unlocked: invalid key provided")
		hasState(t, h, "locked")
	})
	t.Run("the right key", func(t *testing.T) {
		testbed.Must(t, unlock(t, h, key))
		hasState(t, h, "active")
		testbed.Eventually(t, patience, func() error { return settled(h, "very-private-name", 2) })
		if now := mustLive(t, h, "very-private-name"); !maps.Equal(now, before) {
			t.Errorf("containers changed: %v, were %v", now, before)
		}
		refused(t, unlock(t, h, key), "swarm is not locked")
	})
	t.Run("rotation", func(t *testing.T) {
		next := strings.TrimSpace(testbed.Must(t, h.Shoal("swarm", "unlock-key", "--rotate", "-q")))
		if next == key {
			t.Fatal("the key is the same")
		}
		diskAt(t, 2, h)
		restart(t, h)
		refused(t, unlock(t, h, key), "invalid key provided")
		testbed.Must(t, unlock(t, h, next))
		hasState(t, h, "active")
	})
	t.Run("off and on", func(t *testing.T) {
		testbed.Must(t, h.Shoal("swarm", "update", "--autolock=false"))
		refused(t, h.Shoal("swarm", "unlock-key"), "no unlock key is set")
		diskAt(t, 3, h)
		restart(t, h)
		hasState(t, h, "active")
		illegible(t, h, "very-private-name")
		out := testbed.Must(t, h.Shoal("swarm", "update", "--autolock=true"))
		key := unlockKey(t, h)
		if !strings.Contains(out, key) {
			t.Errorf("the key is not shown: %s", out)
		}
		diskAt(t, 4, h)
		restart(t, h)
		hasState(t, h, "locked")
		testbed.Must(t, unlock(t, h, key))
		hasState(t, h, "active")
	})
	if now := mustLive(t, h, "very-private-name"); !maps.Equal(now, before) {
		t.Errorf("containers changed: %v, were %v", now, before)
	}
	t.Run("leaving while locked", func(t *testing.T) {
		restart(t, h)
		hasState(t, h, "locked")
		testbed.Must(t, h.Shoal("swarm", "leave", "--force"))
		hasState(t, h, "inactive")
		if out := testbed.Must(t, h.EngineDocker("ps", "-aq")); strings.TrimSpace(out) != "" {
			t.Errorf("containers left: %s", out)
		}
	})
}

var keyText = regexp.MustCompile(`SWMKEY-1-[A-Za-z0-9+/]{43}`)

// TestKilledWhileLocking kills the daemon at random moments while the lock is
// changed again and again. It must always come back with a key that was shown
// for a lock of before or of that moment, or without one.
func TestKilledWhileLocking(t *testing.T) {
	rng, _ := seeded(t)
	bed := testbed.Start(t, 1)
	h := bed.Host(0)
	testbed.Must(t, h.Shoal("swarm", "init"))
	var keys []string // newest last
	locked := 0
	for round := range 12 {
		commands := [][]string{
			{"swarm", "update", "--autolock=true"}, {"swarm", "unlock-key", "--rotate", "-q"}, {"swarm", "update", "--autolock=false"},
		}
		killed := make(chan error, 1)
		kill := time.AfterFunc(time.Duration(rng.IntN(250))*time.Millisecond, func() { killed <- h.KillShoal(t.Context()) })
		for i := 0; ; i++ {
			r := h.Shoal(commands[i%3]...)
			keys = append(keys, keyText.FindAllString(r.Stdout, -1)...)
			if r.Code != 0 {
				break
			}
		}
		if kill.Stop() {
			t.Fatalf("round %d: a command failed before the daemon was killed", round)
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		if err := h.StartShoal(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		testbed.Eventually(t, patience, func() error {
			if s := lockState(h); s != "locked" && s != "active" {
				return errors.New(s)
			}
			return nil
		})
		if lockState(h) == "locked" {
			locked++
			opened := false
			for i := len(keys) - 1; i >= 0 && !opened; i-- {
				opened = unlock(t, h, keys[i]).Code == 0
			}
			if !opened {
				t.Fatalf("round %d: locked, and none of the %d keys that were shown opens it", round, len(keys))
			}
			hasState(t, h, "active")
		}
		testbed.Eventually(t, patience, func() error { return h.Shoal("swarm", "update", "--autolock=false").Err() })
	}
	t.Logf("locked after %d of 12 kills", locked)
}

// TestForceNewCluster loses two of three managers for good, with the third one
// locked.
func TestForceNewCluster(t *testing.T) {
	bed := testbed.Start(t, 4)
	h1, h2, h3, worker := bed.Host(0), bed.Host(1), bed.Host(2), bed.Host(3)
	testbed.Must(t, h1.Shoal("swarm", "init", "--autolock"))
	join(t, h1, h2, "manager")
	join(t, h1, h3, "manager")
	join(t, h1, worker, "worker")
	hasRoles(t, h1, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable", h3.Name: "Ready Reachable", worker.Name: "Ready"})
	diskAt(t, 1, h1, h2, h3)
	create(t, h1, "--name", "web", "--replicas", "4", "--publish", "8080:80", "--env", "TASK={{.Task.ID}}", testbed.WebV1)
	old := unlockKey(t, h1)

	// One manager misses a rotation: its key is kept for it.
	if err := h3.KillShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(testbed.Must(t, h1.Shoal("swarm", "unlock-key", "--rotate", "-q")))
	testbed.Eventually(t, patience, func() error {
		if out := h1.Shoal("swarm", "unlock-key"); !strings.Contains(out.Stdout, old) || !strings.Contains(out.Stdout, key) {
			return fmt.Errorf("both keys are needed, shown is: %s%s", out.Stdout, out.Stderr)
		}
		return nil
	})
	if err := h3.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, unlock(t, h3, key), "invalid key provided")
	testbed.Must(t, unlock(t, h3, old))
	hasRoles(t, h1, map[string]string{h1.Name: "Ready Leader", h2.Name: "Ready Reachable", h3.Name: "Ready Reachable", worker.Name: "Ready"})
	testbed.Eventually(t, patience, func() error {
		if out := testbed.Must(t, h1.Shoal("swarm", "unlock-key")); strings.Contains(out, old) {
			return fmt.Errorf("a key that nobody needs is kept: %s", out)
		}
		return nil
	})
	restart(t, h3)
	testbed.Must(t, unlock(t, h3, key))
	hasState(t, h3, "active")

	// Two hosts are lost with all that was on them; the third restarts.
	before := mustLive(t, h3, "web")
	for _, h := range []*testbed.Host{h1, h2} {
		if err := h.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	restart(t, h3)
	hasState(t, h3, "locked")
	testbed.Eventually(t, patience, func() error { // the tasks of the dead hosts are still chosen, too
		_, err := h3.Get(url(h3, "8080"))
		return err
	})
	refused(t, h3.Shoal("swarm", "init", "--force-new-cluster"), "needs to be unlocked")
	testbed.Must(t, unlock(t, h3, key))
	refused(t, h3.Shoal("node", "ls"), "trouble connecting to the cluster")
	refused(t, worker.Shoal("swarm", "init", "--force-new-cluster"), "not a manager")
	testbed.Must(t, h3.Shoal("swarm", "init", "--force-new-cluster"))

	hasRoles(t, h3, map[string]string{h1.Name: "Down", h2.Name: "Down", h3.Name: "Ready Leader", worker.Name: "Ready"})
	testbed.Eventually(t, 2*patience, func() error { return running(t, h3, "web", 4)() })
	for task, l := range before {
		if now := mustLive(t, h3, "web"); now[task] != l {
			t.Errorf("task %s was touched: %v, was %v", task, now[task], l)
		}
	}
	if got := unlockKey(t, h3); got != key {
		t.Errorf("the unlock key has changed")
	}
	testbed.Must(t, h3.Shoal("service", "scale", "-d", "web=5"))

	// It is a cluster like any other: it restarts, and takes managers.
	restart(t, h3)
	testbed.Must(t, unlock(t, h3, key))
	hasRoles(t, h3, map[string]string{h1.Name: "Down", h2.Name: "Down", h3.Name: "Ready Leader", worker.Name: "Ready"})
	testbed.Must(t, h3.Shoal("node", "promote", worker.Name))
	hasRoles(t, h3, map[string]string{h1.Name: "Down", h2.Name: "Down", h3.Name: "Ready Leader", worker.Name: "Ready Reachable"})
	diskAt(t, 2, worker)
	testbed.Must(t, h3.Shoal("node", "demote", worker.Name))
	testbed.Eventually(t, patience, func() error {
		if _, err := os.Stat(filepath.Join(worker.DataDir(), "raft")); err == nil {
			return errors.New("a demoted node keeps its log")
		}
		return nil
	})

	// One of the lost comes back: it finds that it is a manager no more.
	if err := h1.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h1.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, unlock(t, h1, key))
	hasRoles(t, h3, map[string]string{h1.Name: "Ready", h2.Name: "Down", h3.Name: "Ready Leader", worker.Name: "Ready"})
	refusedEventually(t, h1, "Worker nodes can't be used", "node", "ls")
	c := dialed(t, h3.API)
	nodes, err := c.NodeList(t.Context(), swarm.NodeListOptions{})
	if err != nil || len(nodes) != 4 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
}

func refusedEventually(t *testing.T, h *testbed.Host, word string, args ...string) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		if r := h.Shoal(args...); r.Code == 0 || !strings.Contains(r.Stderr, word) {
			return fmt.Errorf("%v: %q is not in: %s%s", args, word, r.Stdout, r.Stderr)
		}
		return nil
	})
}
