package e2e

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/vishvananda/netns"

	"shoal/internal/netkit/nettest"
	"shoal/internal/testbed"
)

// TestEncryptedNetwork has tasks on three hosts speak on an encrypted network
// while daemons, keys and what encrypts change, and listens on every wire.
func TestEncryptedNetwork(t *testing.T) {
	t.Parallel()
	bed := swarmOf(t, 1, 2)
	h1, h3 := bed.Host(0), bed.Host(2)

	// One can not encrypt.
	testbed.Must(t, h3.Run(t.Context(), "/bin/sh", "-c", "mount --bind /dev/null /dev/net/tun"))
	restart(t, h3)
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "--opt", "encrypted", "closed"))
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "open"))
	if got := testbed.Must(t, h1.Docker("network", "inspect", "closed", "--format", "{{json .Options}}")); !strings.Contains(got, `"encrypted":""`) {
		t.Errorf("options of the network: %s", got)
	}
	testbed.Must(t, h1.Shoal("service", "create", "--detach", "--no-resolve-image", "--name", "web", "--mode", "global",
		"--network", "closed", testbed.WebV1))
	create(t, h1, "--name", "plain", "--mode", "global", "--network", "open", testbed.WebV1)
	says(t, h1, "web", "encrypted network not possible on 1 node", "/dev/net/tun")
	contains(t, testbed.Must(t, h1.Shoal("explain", "web")), "encrypted network not possible: the kernel has no WireGuard")
	testbed.Must(t, h3.Run(t.Context(), "/bin/sh", "-c", "umount /dev/net/tun"))
	restart(t, h3)

	testbed.Eventually(t, patience, func() error {
		running := 0
		for _, task := range tasks(t, h1, "web") {
			if task.Status.State == swarm.TaskStateRunning {
				running++
			}
		}
		if running != 3 {
			return fmt.Errorf("%d tasks run", running)
		}
		return nil
	})
	var wires []*nettest.Capture
	for _, h := range bed.Hosts() {
		wires = append(wires, listenOn(t, h))
	}
	closed, open := spotsOf(t, bed, "web"), spotsOf(t, bed, "plain")
	for _, from := range closed {
		for _, to := range closed {
			testbed.Eventually(t, patience, func() error {
				_, err := inside(from.host, from.id, "get", "http://"+to.addrs["closed"]+"/confidential")
				return err
			})
		}
	}
	for _, from := range open {
		for _, to := range open {
			if _, err := inside(from.host, from.id, "get", "http://"+to.addrs["open"]+"/readable"); err != nil {
				t.Error(err)
			}
		}
	}

	contains(t, testbed.Must(t, h1.Shoal("doctor", "--all")), "UDP 4789 and UDP 4790 both ways", "this node's key", "last agreed on a key")

	from, to := closed[0], closed[1]
	t.Run("the daemon is killed", func(t *testing.T) {
		ask := keepAsking(t, from, to)
		for _, p := range []spot{from, to} {
			if err := p.host.KillShoal(t.Context()); err != nil {
				t.Fatal(err)
			}
			ask.more(t, 5)
			if err := p.host.StartShoal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ask.more(t, 5)
		ask.unharmed(t)
	})
	t.Run("what encrypts is killed", func(t *testing.T) {
		if out := testbed.Must(t, from.host.Run(t.Context(), "/bin/sh", "-c", "ip -d link show dev shoalwg")); strings.Contains(out, " wireguard ") {
			t.Skip("this kernel serves WireGuard by itself")
		}
		pids := servesWireGuard(t, from.host)
		if len(pids) != 1 {
			t.Fatalf("%d processes serve WireGuard on %s: %v", len(pids), from.host.Name, pids)
		}
		testbed.Must(t, from.host.Run(t.Context(), "kill", "-9", pids[0]))
		testbed.Eventually(t, patience, func() error {
			_, err := inside(from.host, from.id, "get", "http://"+to.addrs["closed"]+"/confidential")
			return err
		})
	})
	t.Run("keys change", func(t *testing.T) {
		before := map[string]string{}
		for _, h := range bed.Hosts() {
			before[h.Name] = keyOf(t, h)
		}
		ask := keepAsking(t, from, to)
		testbed.Must(t, h1.Shoal("network", "rotate-keys"))
		testbed.Eventually(t, 3*patience, func() error { // they take turns
			for _, h := range bed.Hosts() {
				if keyOf(t, h) == before[h.Name] {
					return fmt.Errorf("%s has its old key", h.Name)
				}
			}
			return nil
		})
		ask.more(t, 5)
		ask.unharmed(t)
	})

	ask := keepAsking(t, from, to)
	ask.more(t, 1)
	testbed.Must(t, h1.Shoal("service", "rm", "web"))
	testbed.Eventually(t, patience, func() error { return h1.Shoal("network", "rm", "closed").Err() })
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, func() error {
			if out := testbed.Must(t, h.Run(t.Context(), "ip", "-o", "link")); strings.Contains(out, "shoalwg") || strings.Contains(out, "shoal0e") {
				return errors.New("there is nothing to encrypt, and the device is there: " + out)
			}
			if pids := servesWireGuard(t, h); len(pids) > 0 {
				return fmt.Errorf("there is nothing to encrypt, and processes %v go on", pids)
			}
			return nil
		})
	}
	ask.end()
	heard := false
	for _, w := range wires {
		heard = heard || w.Heard("/readable")
		if w.Heard("confidential") {
			t.Error("what was said on the encrypted network is in the clear on the wire")
		}
	}
	if !heard {
		t.Error("what was said on the other network was not seen: the captures prove nothing")
	}
}

// servesWireGuard lists the processes that serve a host's device. Hosts may see
// each other's processes.
func servesWireGuard(t *testing.T, h *testbed.Host) []string {
	t.Helper()
	const mine = "for p in $(pgrep -f ' system [w]ireguard shoalwg'); do [ \"$(readlink /proc/$p/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ] || echo $p; done"
	return strings.Fields(testbed.Must(t, h.Run(t.Context(), "/bin/sh", "-c", mine)))
}

// listenOn listens on a host's cable.
func listenOn(t *testing.T, h *testbed.Host) *nettest.Capture {
	t.Helper()
	pid, err := h.EnginePID()
	if err != nil {
		t.Fatal(err)
	}
	var c *nettest.Capture
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread stays there, and ends
		ns, err := netns.GetFromPid(pid)
		if err == nil {
			if err = netns.Set(ns); err == nil {
				c, err = nettest.Open(t, "eth0")
			}
			_ = ns.Close()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c
}

// keyOf stands for the key that a host uses: the address that it sends from.
func keyOf(t *testing.T, h *testbed.Host) string {
	t.Helper()
	return testbed.Must(t, h.Run(t.Context(), "/bin/sh", "-c", "ip -d link show dev shoal0e | grep -o 'local [^ ]*'"))
}

// asking is a task that asks another again and again.
type asking struct {
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	asked  int
	failed []error
}

func keepAsking(t *testing.T, from, to spot) *asking {
	ctx, stop := context.WithCancel(t.Context())
	a := &asking{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		for ctx.Err() == nil {
			_, err := inside(from.host, from.id, "get", "http://"+to.addrs["closed"]+"/confidential")
			a.mu.Lock()
			if a.asked++; err != nil {
				a.failed = append(a.failed, err)
			}
			a.mu.Unlock()
		}
	}()
	t.Cleanup(a.end)
	return a
}

func (a *asking) end() {
	a.stop()
	<-a.done
}

func (a *asking) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// more waits for so many more answers.
func (a *asking) more(t *testing.T, n int) {
	t.Helper()
	begin := a.count()
	testbed.Eventually(t, patience, func() error {
		if got := a.count() - begin; got < n {
			return fmt.Errorf("%d of %d answers", got, n)
		}
		return nil
	})
}

func (a *asking) unharmed(t *testing.T) {
	t.Helper()
	a.end()
	if len(a.failed) > 0 {
		t.Errorf("%d of %d questions failed: %v", len(a.failed), a.asked, a.failed[0])
	}
}
