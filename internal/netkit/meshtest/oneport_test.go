//go:build linux

package meshtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOnePort: a client uses one port of its own towards all nodes at once, as a
// balancer in front of them does, and they lead it to one task. Each of its
// connections is one of its own for the task, lives on beside the others, and
// sees the client's address; each datagram is answered by the node that was asked.
func TestOnePort(t *testing.T) {
	b := newBed(t, 4)
	b.network("ing", "10.0.0.0/24", ingress)
	home := b.nodes[2]
	b.run(home, "ing", "10.0.0.13/24", "web")
	b.service("s", "ing", "10.0.0.100", 8080, "web")
	b.sync()
	const want = "web " + clientAddr

	t.Run("connections", func(t *testing.T) {
		var conns []net.Conn
		for _, n := range b.nodes {
			c, err := dialFrom(b.client, clientAddr+":40000", n.at(8080))
			if err != nil {
				t.Fatalf("by %s: %v", n.id, err)
			}
			t.Cleanup(func() { c.Close() })
			conns = append(conns, c)
		}
		for range 3 {
			for i, c := range conns {
				if got, err := ask(c, patient); err != nil || got != want {
					t.Fatalf("by %s: %q, %v", b.nodes[i].id, got, err)
				}
			}
		}
		// The end of one is none of the others'.
		_ = conns[0].(*net.TCPConn).SetLinger(0)
		_ = conns[0].Close()
		for i, c := range conns[1:] {
			if got, err := ask(c, patient); err != nil || got != want {
				t.Fatalf("by %s, after another's end: %q, %v", b.nodes[i+1].id, got, err)
			}
		}
	})

	t.Run("datagrams", func(t *testing.T) {
		c := b.client.ListenUDP(clientAddr + ":40001")
		buf := make([]byte, 100)
		for round := range 3 {
			for _, n := range b.nodes {
				to, err := net.ResolveUDPAddr("udp4", n.at(8080))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.WriteTo([]byte("hello\n"), to); err != nil {
					t.Fatal(err)
				}
			}
			waiting := map[string]bool{}
			for _, n := range b.nodes {
				waiting[n.at(8080)] = true
			}
			for len(waiting) > 0 {
				_ = c.SetReadDeadline(time.Now().Add(patient))
				k, from, err := c.ReadFrom(buf)
				if err != nil {
					t.Fatalf("round %d: nothing from %v: %v", round, waiting, err)
				}
				if got := strings.TrimSpace(string(buf[:k])); got != want || !waiting[from.String()] {
					t.Fatalf("round %d: %q from %s", round, got, from)
				}
				delete(waiting, from.String())
			}
		}
	})
}

// dialFrom connects from a port that may be in use towards others.
func dialFrom(from place, local, to string) (c net.Conn, err error) {
	own, err := net.ResolveTCPAddr("tcp4", local)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: own, Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		return errors.Join(c.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}), set)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	err = from.Do(func() error {
		c, err = d.DialContext(ctx, "tcp4", to)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", local, err)
	}
	return c, nil
}
