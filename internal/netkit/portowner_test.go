//go:build linux

package netkit_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"shoal/internal/netkit"
)

func TestPortOwner(t *testing.T) {
	for _, tc := range []struct{ network, addr string }{
		{"tcp4", "0.0.0.0:0"}, {"tcp4", "127.0.0.1:0"}, {"tcp", "[::]:0"},
	} {
		ln, err := net.Listen(tc.network, tc.addr)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(ln.Addr().(*net.TCPAddr).Port)
		owner, held, err := netkit.PortOwner("tcp", port)
		if err != nil || !held || owner.PID != os.Getpid() || !strings.Contains(owner.String(), "(pid ") {
			t.Errorf("%s %s: %v, %t, %v", tc.network, tc.addr, owner, held, err)
		}
		if _, held, _ := netkit.PortOwner("udp", port); held {
			t.Errorf("%s: a TCP listener counted for UDP", tc.addr)
		}
		_ = ln.Close()
		if o, held, err := netkit.PortOwner("tcp", port); held || err != nil {
			t.Errorf("%s after closing: %v, %v", tc.addr, o, err)
		}
	}
	pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	if o, held, err := netkit.PortOwner("udp", uint16(pc.LocalAddr().(*net.UDPAddr).Port)); err != nil || !held || o.PID != os.Getpid() {
		t.Errorf("udp: %v, %t, %v", o, held, err)
	}
}

// TestPortOwnerOnOtherLoopback: what the mesh does not take is nobody's to lose,
// also where the host has the address by name.
func TestPortOwnerOnOtherLoopback(t *testing.T) {
	if out, err := exec.Command("ip", "addr", "add", "127.0.0.53/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ln, err := net.Listen("tcp4", "127.0.0.53:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if o, held, err := netkit.PortOwner("tcp", uint16(ln.Addr().(*net.TCPAddr).Port)); held || err != nil {
		t.Errorf("a listener on 127.0.0.53 counted: %v, %v", o, err)
	}
}

// TestPortOwnerIgnoresClients has an outgoing connection use the port.
func TestPortOwnerIgnoresClients(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	port := uint16(c.LocalAddr().(*net.TCPAddr).Port)
	if o, held, err := netkit.PortOwner("tcp", port); held || err != nil {
		t.Errorf("a client's port counted as held: %v, %v", o, err)
	}
}
