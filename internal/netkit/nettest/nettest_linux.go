// Package nettest gives tests a kernel of their own: the test process itself
// runs in a fresh network namespace, and makes more for other hosts and
// containers.
package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"shoal/internal/netkit"
)

// inside marks the process that already has its own namespace.
const inside = "SHOAL_NETTEST"

// Main runs a package's tests in a fresh network namespace, with loopback up.
// As TestMain's last call it does not return.
func Main(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(rerun())
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bring up loopback:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func rerun() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "skipped: network namespaces need root")
		return 0
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState != nil {
			return cmd.ProcessState.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "run in a network namespace:", err)
		return 1
	}
	return 0
}

// NS is another network namespace: a client's host, or a container.
type NS struct {
	t  testing.TB
	fd netns.NsHandle
}

// NewNS makes a namespace that goes away with the test.
func NewNS(t testing.TB) *NS {
	t.Helper()
	ns := &NS{t: t}
	done := make(chan error)
	go func() {
		// The thread stays in the new namespace, so it must not be reused:
		// a goroutine that ends while locked takes its thread along.
		runtime.LockOSThread()
		var err error
		ns.fd, err = netns.New()
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { _ = ns.fd.Close() })
	return ns
}

// Here is the namespace of the test itself, for what is written for any.
func Here(t testing.TB) *NS {
	t.Helper()
	fd, err := netns.Get()
	if err != nil {
		t.Fatalf("own network namespace: %v", err)
	}
	t.Cleanup(func() { _ = fd.Close() })
	return &NS{t: t, fd: fd}
}

// Path is where the namespace can be opened, as an engine names a container's.
func (ns *NS) Path() string { return fmt.Sprintf("/proc/self/fd/%d", ns.fd) }

// Do runs f inside. Sockets opened by f belong to the namespace for good.
func (ns *NS) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(ns.fd)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Must is Do for what has to work.
func (ns *NS) Must(f func() error) {
	ns.t.Helper()
	if err := ns.Do(f); err != nil {
		ns.t.Fatal(err)
	}
}

// Take moves an interface in, gives it an address and routes, and renames it:
// what the engine does with a container's end.
func (ns *NS) Take(iface, name string, addr netip.Prefix, routes ...*netlink.Route) {
	ns.t.Helper()
	ns.TakeFrom(nil, iface, name, addr, routes...)
}

// TakeFrom is Take from another namespace than the test's own.
func (ns *NS) TakeFrom(from *NS, iface, name string, addr netip.Prefix, routes ...*netlink.Route) {
	ns.t.Helper()
	move := func() error {
		link, err := netlink.LinkByName(iface)
		if err == nil {
			err = netlink.LinkSetNsFd(link, int(ns.fd))
		}
		return err
	}
	err := error(nil)
	if from == nil {
		err = move()
	} else {
		err = from.Do(move)
	}
	if err != nil {
		ns.t.Fatalf("move %s: %v", iface, err)
	}
	ns.Must(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(link, name); err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: netkit.IPNet(addr)}); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, r := range routes {
			r.LinkIndex = link.Attrs().Index
			if err := netlink.RouteAdd(r); err != nil {
				return fmt.Errorf("route %s: %w", r, err)
			}
		}
		return nil
	})
}

// Connect joins the test's own namespace with ns by a cable: here and there
// are the addresses of its ends, and ns routes everything over it.
func (ns *NS) Connect(iface string, here, there netip.Prefix) {
	ns.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = iface
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: iface + "p"}
	err := netlink.LinkAdd(veth)
	if err == nil {
		err = netlink.AddrAdd(veth, &netlink.Addr{IPNet: netkit.IPNet(here)})
	}
	if err == nil {
		err = netlink.LinkSetUp(veth)
	}
	if err != nil {
		ns.t.Fatalf("cable %s: %v", iface, err)
	}
	ns.t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	ns.Take(iface+"p", "eth0", there, &netlink.Route{Gw: here.Addr().AsSlice()})
}

// Switch makes a bridge in the test's own namespace.
func Switch(t testing.TB, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	br := &netlink.Bridge{LinkAttrs: attrs}
	err := netlink.LinkAdd(br)
	if err == nil {
		err = netlink.LinkSetUp(br)
	}
	if err != nil {
		t.Fatalf("switch %s: %v", name, err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(br) })
}

// Plug connects ns to a bridge by a cable, under an address and with an MTU.
func (ns *NS) Plug(bridge, cable string, addr netip.Prefix, mtu int) {
	ns.t.Helper()
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		ns.t.Fatalf("switch %s: %v", bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = cable, mtu, br.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: cable + "p", PeerMTU: uint32(mtu)}
	if err = netlink.LinkAdd(veth); err == nil {
		err = netlink.LinkSetUp(veth)
	}
	if err != nil {
		ns.t.Fatalf("cable %s: %v", cable, err)
	}
	ns.t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	ns.Take(cable+"p", "eth0", addr)
}

// Listen opens a TCP listener inside.
func (ns *NS) Listen(addr string) net.Listener {
	ns.t.Helper()
	var ln net.Listener
	ns.Must(func() (err error) { ln, err = net.Listen("tcp4", addr); return err })
	ns.t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// ListenUDP opens a UDP socket inside.
func (ns *NS) ListenUDP(addr string) net.PacketConn {
	ns.t.Helper()
	var c net.PacketConn
	ns.Must(func() (err error) { c, err = net.ListenPacket("udp4", addr); return err })
	ns.t.Cleanup(func() { _ = c.Close() })
	return c
}
