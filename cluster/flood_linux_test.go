package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/cluster/ca"
)

// residentKB is how much memory this process has.
func residentKB(t testing.TB) (kb int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}

// idle connects from an address of the loopback and says nothing. It is a bare
// descriptor, so that the memory that is measured is the port's.
func idle(from [4]byte, port int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// TestIdleStrangersHurtNobody opens ten thousand connections that never say a
// word, from enough addresses that no cap of one address is met, and more all
// the time. Nodes get in meanwhile, and memory is bounded.
func TestIdleStrangersHurtNobody(t *testing.T) {
	const many = 10000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < many+2*maxStrangers {
		t.Skipf("%d open files are not enough", limit.Cur)
	}
	home := newAuthority(t, "c1")
	p := startPort(t, PortConfig{Credentials: home.issue("m1", ca.RoleManager, time.Now())})
	echo(t, p.Listener(ProtocolGossip), "hello")
	port := p.Addr().(*net.TCPAddr).Port
	before := residentKB(t)

	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	flood := func(n int) {
		for range n {
			i := len(fds)
			fd, err := idle([4]byte{127, 1, byte(i / 20 / 250), byte(1 + i/20%250)}, port)
			if err != nil {
				t.Errorf("idle connection %d: %v", i, err)
				return
			}
			fds = append(fds, fd)
		}
	}
	flood(many / 2)

	from := NewPort(PortConfig{Credentials: home.issue("w1", ca.RoleWorker, time.Now())})
	var slowest time.Duration
	var nodes sync.WaitGroup
	flooded := make(chan struct{})
	enter := func() error {
		conn, err := from.Dial(deadline(t), p.Addr().String(), ProtocolGossip, ca.Peer{})
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err := says(conn)
		if got != "hello" {
			return fmt.Errorf("it heard %q: %w", got, err)
		}
		return nil
	}
	nodes.Go(func() {
		for in := 0; ; in++ {
			begin := time.Now()
			// Tens of thousands a second may drop one during its handshake. As
			// any node it tries again.
			for err := enter(); err != nil; err = enter() {
				if time.Since(begin) > 5*time.Second {
					t.Errorf("a node was kept out: %v", err)
					return
				}
			}
			slowest = max(slowest, time.Since(begin))
			select {
			case <-flooded:
				if in >= 20 {
					return
				}
			default:
			}
		}
	})
	flood(many / 2)
	close(flooded)
	nodes.Wait()

	grown := residentKB(t) - before
	t.Logf("%d idle connections: %d KB more, a node got in within %s", len(fds), grown, slowest)
	if grown > floodKB {
		t.Errorf("memory grew by %d KB", grown)
	}
	p.strangers.mu.Lock()
	kept := p.strangers.all.Len()
	p.strangers.mu.Unlock()
	if kept > maxStrangers {
		t.Errorf("%d strangers are kept", kept)
	}
}
