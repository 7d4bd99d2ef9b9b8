package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

func TestHostsAreMachines(t *testing.T) {
	bed := Start(t, 2, WithoutShoal())
	one, two := bed.Host(0), bed.Host(1)

	t.Run("they reach each other by name", func(t *testing.T) {
		Must(t, one.Run(t.Context(), "busybox", "ping", "-c1", "-W2", two.Name))
		Must(t, two.Run(t.Context(), "busybox", "ping", "-c1", "-W2", bed.Client().Name))
	})

	t.Run("each has its own identity", func(t *testing.T) {
		seen := map[string]bool{}
		for _, h := range bed.Hosts() {
			id := Must(t, h.EngineDocker("info", "--format", "{{.ID}} {{.Name}}"))
			name := strings.Fields(id)[1]
			if name != h.Name {
				t.Errorf("engine of %s calls its host %s", h.Name, name)
			}
			seen[id] = true
		}
		if len(seen) != 2 {
			t.Errorf("engines %v, want two", seen)
		}
	})

	t.Run("nothing outside the bed keeps an engine waiting", func(t *testing.T) {
		begin := time.Now()
		for _, image := range []string{"nosuch:v1", "registry.example/x:v1", WebV1} {
			if res := one.EngineDocker("pull", image); res.Code == 0 {
				t.Errorf("%s was pulled", image)
			}
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("refused after %s", took)
		}
	})

	Must(t, one.EngineDocker("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8080:80/udp", "-e", "TASK=web.1", WebV2))
	address := net.JoinHostPort(one.IP.String(), "8080")
	url := "http://" + address + "/"
	Eventually(t, 10*time.Second, func() error { _, err := two.Get(url); return err })

	t.Run("a container sees who asks", func(t *testing.T) {
		for _, h := range []*Host{two, bed.Client()} {
			got, err := h.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			if got.Task != "web.1" || got.Version != "v2" || got.ClientIP() != h.IP.String() {
				t.Errorf("%s asked, got %+v", h.Name, got.Report)
			}
			rep, err := h.AskUDP(address, "hi", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Body != "hi" || rep.ClientIP() != h.IP.String() {
				t.Errorf("%s asked by UDP, got %+v", h.Name, rep)
			}
		}
	})

	t.Run("a cable can be pulled", func(t *testing.T) {
		if err := one.LinkDown(); err != nil {
			t.Fatal(err)
		}
		if res := two.Run(t.Context(), "busybox", "ping", "-c1", "-W1", one.Name); res.Code != 1 {
			t.Errorf("%s is reached without a cable: %+v", one.Name, res)
		}
		if err := one.LinkUp(); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 10*time.Second, func() error { _, err := two.Get(url); return err })
	})

	t.Run("an engine stops, dies and starts", func(t *testing.T) {
		for _, end := range []func(context.Context) error{one.StopEngine, one.KillEngine} {
			if err := end(t.Context()); err != nil {
				t.Fatal(err)
			}
			if up, err := one.EngineRunning(); up || err != nil {
				t.Fatalf("engine is running: %t, %v", up, err)
			}
			if res := two.EngineDocker("ps"); res.Code != 0 {
				t.Errorf("the other engine suffered: %v", res.Err())
			}
			if err := one.StartEngine(t.Context()); err != nil {
				t.Fatal(err)
			}
			Must(t, one.EngineDocker("start", "web"))
		}
	})

	t.Run("a host crashes and comes back", func(t *testing.T) {
		if err := one.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if up, err := one.running(func(argv []string) bool { return slices.Contains(argv, "webapp") }); up || err != nil {
			t.Errorf("a container survived: %t, %v", up, err)
		}
		if err := one.StartEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		Must(t, one.EngineDocker("start", "web"))
	})

	t.Run("an engine that does not start says why", func(t *testing.T) {
		if err := two.StartEngine(t.Context()); err == nil || !strings.Contains(err.Error(), "it is running") {
			t.Errorf("started twice: %v", err)
		}
		if err := two.StopEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(two.Dir(), "etc/docker/daemon.json")
		if err := os.WriteFile(config, []byte(`{"no-such-option": 1}`), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := two.StartEngine(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-option") {
			t.Errorf("started with a broken configuration: %v", err)
		}
	})

	t.Run("another process can use the bed", func(t *testing.T) {
		again, err := Open(bed.Name(), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if got := Must(t, again.Host(1).Run(t.Context(), "hostname")); got != "h2\n" {
			t.Errorf("hostname = %q", got)
		}
	})

	t.Run("a command that hangs is killed with what it started", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		res := one.Run(ctx, "sh", "-c", "sleep 1001 & sleep 1001")
		if res.Err() == nil {
			t.Error("no error")
		}
		Eventually(t, 30*time.Second, func() error {
			up, err := one.running(func(argv []string) bool { return slices.Contains(argv, "1001") })
			if up {
				return errors.New("it runs on")
			}
			return err
		})
	})
}

func TestDownLeavesNothing(t *testing.T) {
	bed := Start(t, 2, WithoutShoal())
	for _, h := range bed.Hosts() {
		Must(t, h.Run(t.Context(), "touch", "/var/lib/shoal/"+bed.Name(), "/run/"+bed.Name()))
		Must(t, h.EngineDocker("run", "-d", "-p", "80:80", WebV1))
		Must(t, h.Run(t.Context(), "ip", "netns", "add", "left-behind"))
	}
	// What a host makes in its own file system never shows outside.
	if left := traces(t, bed); len(left) < 4 || strings.Contains(strings.Join(left, " "), "left-behind") {
		t.Fatalf("a bed that is up leaves only these traces: %v", left)
	}
	for range 2 { // the second time there is nothing to do
		if err := bed.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := traces(t, bed); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	}
}

// traces lists everything of the bed that can be seen on this machine.
func traces(t *testing.T, bed *Bed) []string {
	t.Helper()
	var found []string
	if err := eachProcess(func(pid int) {
		// Containers do not name the bed, but their cgroups do.
		cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if (err == nil && strings.Contains(string(cgroup), "/shoal-testbed/"+bed.Name()+"/")) ||
			strings.Contains(strings.Join(cmdline(pid), " "), bed.Dir()) {
			found = append(found, fmt.Sprintf("process %d %v", pid, cmdline(pid)))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(bed.state.link()); err == nil {
		found = append(found, "link "+bed.state.link())
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, bed.Dir()) || strings.Contains(line, "left-behind") {
			found = append(found, "mount "+line)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/shoal-testbed/", "/sys/fs/cgroup/*/shoal-testbed/", Root + "/"} {
		paths, err := filepath.Glob(pattern + bed.Name())
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	for _, path := range []string{"/run/netns/left-behind", "/run/" + bed.Name(), "/var/lib/shoal/" + bed.Name()} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, path)
		}
	}
	return found
}

// A maker that is killed in the middle leaves processes and a directory, and
// perhaps no state; the next one to come cleans up.
func TestSweepRemovesTheBedsOfTheDead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	owner := exec.Command("sleep", "1000")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Process.Kill() }()
	bed, err := New(Config{Name: fmt.Sprintf("sweep-%d", os.Getpid()), Hosts: 1, Owner: owner.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bed.Down(context.WithoutCancel(t.Context())) })
	if err := bed.claim(); err != nil {
		t.Fatal(err)
	}
	if err := bed.makeGround(); err != nil {
		t.Fatal(err)
	}

	if err := Sweep(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, bed); len(left) == 0 {
		t.Fatal("a bed whose owner lives was swept away")
	}
	if err := owner.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed, so it reports that
	if err := Sweep(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, bed); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRegistryIsReal(t *testing.T) {
	bed := Start(t, 2, WithoutShoal())
	address, err := bed.StartRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := address + "/web:v1"
	if err := bed.Host(0).Push(t.Context(), WebV1, name); err != nil {
		t.Fatal(err)
	}
	Must(t, bed.Host(1).EngineDocker("pull", name))
	digest := func(h *Host) string {
		return Must(t, h.EngineDocker("image", "inspect", "--format", "{{index .RepoDigests 0}}", name))
	}
	if a, b := digest(bed.Host(0)), digest(bed.Host(1)); a != b || !strings.HasPrefix(a, address+"/web@sha256:") {
		t.Errorf("digests %q and %q", a, b)
	}
	if err := bed.StopRegistry(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := bed.Host(1).EngineDocker("pull", name); res.Code == 0 {
		t.Error("pulled from a registry that was stopped")
	}
}
