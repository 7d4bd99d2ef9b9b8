//go:build linux

package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"shoal/internal/api"
)

// TestClientThatNeverPauses: a UDP client keeps its socket, and thereby the
// kernel's memory of where it went, through everything that makes that memory
// wrong. It always comes to a task that serves.
func TestClientThatNeverPauses(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	const published, target = 5300, 53
	node := netip.MustParseAddr("192.0.2.1")
	for _, a := range []string{node.String() + "/32", addr(11).String() + "/32", addr(12).String() + "/32"} {
		parsed, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, parsed); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.AddrDel(lo, parsed) })
	}
	for n := 11; n <= 12; n++ {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", addr(n), target))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 100)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(fmt.Append(nil, n), from)
			}
		}()
		t.Cleanup(func() { c.Close(); <-done })
	}
	state := func(backends ...int) *api.NodeState {
		s := cluster(0, 0)
		e := &api.Endpoint{ServiceID: "dns"}
		if len(backends) > 0 {
			e.Ports = []api.Port{{Protocol: "udp", Target: target, Published: published}}
		}
		for _, b := range backends {
			e.Backends = append(e.Backends, api.Backend{
				TaskID: fmt.Sprint(b), NodeID: "n1", Networks: []api.Attachment{{NetworkID: "ing", Addr: netip.PrefixFrom(addr(b), 8)}},
			})
		}
		s.Endpoints["dns"] = e
		return s
	}
	client, err := net.Dial("udp4", netip.AddrPortFrom(node, published).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	comesTo := func(when string, task int) {
		t.Helper()
		buf := make([]byte, 100)
		said := "nothing"
		for range 100 {
			_, _ = io.WriteString(client, "?")
			_ = client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := client.Read(buf)
			if err != nil {
				said = err.Error()
				continue
			}
			if said = string(buf[:n]); said == fmt.Sprint(task) {
				return
			}
		}
		t.Fatalf("%s: the client comes to %s, not to %d", when, said, task)
	}
	set := func(p *Plane, s *api.NodeState) {
		t.Helper()
		if err := p.Set(ctx, s); err != nil {
			t.Fatal(err)
		}
	}

	// The process that has the port until the service does.
	other, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", node, published))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(client, "?")
	if _, _, err := other.ReadFrom(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	set(p, state())
	set(p, state(11))
	comesTo("the port is published", 11)
	set(p, state(12))
	comesTo("its task left", 12)

	p = New(zaptest.NewLogger(t)) // a daemon that was away while the task left
	set(p, state(11))
	comesTo("its task left while no daemon ran", 11)

	// Somebody flushes the table, and the client goes on to the other process.
	if out, err := exec.Command("nft", "delete", "table", "ip", tableName).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(client, "?")
	if _, _, err := other.ReadFrom(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if repaired, err := p.table.Verify(); err != nil || !repaired {
		t.Fatalf("repaired %t, %v", repaired, err)
	}
	if err := p.sweep(); err != nil {
		t.Fatal(err)
	}
	comesTo("the table is back", 11)
	other.Close()
}

// TestPortOfBefore: a client comes again from a port that it had before, to
// where the kernel still remembers a connection that was never closed, of a task
// that is gone: it comes to a task that serves.
func TestPortOfBefore(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	const published, target, from = 8080, 80, 33333
	node := netip.MustParseAddr("192.0.2.1")
	has := func(t *testing.T, a netip.Addr) *netlink.Addr {
		t.Helper()
		parsed := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.AddrAdd(lo, parsed); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.AddrDel(lo, parsed) })
		return parsed
	}
	has(t, node)
	serve := func(t *testing.T, a netip.Addr) net.Listener {
		t.Helper()
		l, err := net.Listen("tcp4", netip.AddrPortFrom(a, target).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	state := func(runs ...int) *api.NodeState {
		s := cluster(0, 0)
		e := &api.Endpoint{ServiceID: "web", Ports: []api.Port{{Protocol: "tcp", Target: target, Published: published}}}
		s.Remotes = map[string]*api.Remote{}
		for _, n := range runs {
			at := []api.Attachment{{NetworkID: "ing", Addr: netip.PrefixFrom(addr(n), 8)}}
			e.Backends = append(e.Backends, api.Backend{TaskID: fmt.Sprint(n), NodeID: "n2", Networks: at})
			s.Remotes[fmt.Sprint(n)] = &api.Remote{TaskID: fmt.Sprint(n), NodeID: "n2", Networks: at}
		}
		s.Endpoints["web"] = e
		return s
	}
	// draining leaves a task's containers, but for new connections.
	draining := func(s *api.NodeState, n int) *api.NodeState {
		at := []api.Attachment{{NetworkID: "ing", Addr: netip.PrefixFrom(addr(n), 8)}}
		s.Remotes[fmt.Sprint(n)] = &api.Remote{TaskID: fmt.Sprint(n), NodeID: "n2", Networks: at}
		return s
	}
	connect := func() (*net.TCPConn, error) {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: node.AsSlice(), Port: from}, Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}), err)
		}}
		c, err := d.Dial("tcp4", netip.AddrPortFrom(node, published).String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}

	// A task that is told to stop resets what it does not answer any more. The
	// kernel remembers such a connection, and its client may have its port again
	// at once.
	t.Run("a connection that its task has reset", func(t *testing.T) {
		p := New(zaptest.NewLogger(t))
		t.Cleanup(func() { _ = p.Clear(ctx) })
		has(t, addr(11))
		has(t, addr(12))
		old := serve(t, addr(11))
		serve(t, addr(12))
		if err := p.Set(ctx, state(11)); err != nil {
			t.Fatal(err)
		}
		client, err := connect()
		if err != nil {
			t.Fatal(err)
		}
		task, err := old.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Set(ctx, draining(state(12), 11)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(task.(*net.TCPConn).SetLinger(0), task.Close(), old.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the connection ends with %v", err)
		}
		client.Close()
		again, err := connect()
		if err != nil {
			t.Fatalf("the client does not reach the task that there is: %v", err)
		}
		vanish(t, again)
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			t.Fatal(err)
		}
	})

	for name, next := range map[string]func(p *Plane) *Plane{
		"the daemon sees it go": func(p *Plane) *Plane { return p },
		"while no daemon ran":   func(*Plane) *Plane { return New(zaptest.NewLogger(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := New(zaptest.NewLogger(t))
			t.Cleanup(func() { _ = p.Clear(ctx) })
			first := has(t, addr(11))
			has(t, addr(12))
			old := serve(t, addr(11))
			set := func(p *Plane, s *api.NodeState) {
				t.Helper()
				if err := p.Set(ctx, s); err != nil {
					t.Fatal(err)
				}
			}
			set(p, state(11))
			client, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			task, err := old.Accept()
			if err != nil {
				t.Fatal(err)
			}
			set(p, draining(state(12), 11))
			if _, err := io.WriteString(client, "still here"); err != nil {
				t.Fatal(err)
			}
			if n, err := task.Read(make([]byte, 100)); n != len("still here") {
				t.Fatalf("a connection to a task that drains is cut: %v", err)
			}
			vanish(t, client)
			vanish(t, task.(*net.TCPConn))
			old.Close()
			if err := netlink.AddrDel(lo, first); err != nil {
				t.Fatal(err)
			}
			serve(t, addr(12))
			p = next(p)
			set(p, state(12))
			again, err := connect()
			if err != nil {
				t.Fatalf("the client does not reach the task that there is: %v", err)
			}
			vanish(t, again)
			if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// vanish ends a connection without a word to the other end.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	if err := errors.Join(err, failed, c.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestForgottenLater: what could not be forgotten with a change is with the next
// one.
func TestForgottenLater(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	var asked []stale
	broken := false
	p.forget = func(s stale) error {
		if asked = append(asked, s); broken {
			return errors.New("no memory")
		}
		return nil
	}
	set := func(services, backends int) error { return p.Set(ctx, cluster(services, backends)) }
	if err := set(2, 2); err != nil {
		t.Fatal(err)
	}
	broken = true
	if err := set(2, 1); err == nil {
		t.Fatal("a failure is not told")
	}
	broken = false
	for range 2 {
		if err := set(2, 1); err != nil {
			t.Fatal(err)
		}
	}
	gone := cluster(1, 2).Endpoints["service00000"].Backends[1].Networks[0].Addr.Addr()
	kept := cluster(1, 2).Endpoints["service00000"].Backends[0].Networks[0].Addr.Addr()
	for i, want := range []bool{false, true, true, false} {
		if asked[i].left(kept) {
			t.Errorf("change %d has connections of %s forgotten, which serves", i, kept)
		}
		if got := asked[i].left(gone); got != want {
			t.Errorf("change %d has connections of %s forgotten: %t, want %t", i, gone, got, want)
		}
	}
}
