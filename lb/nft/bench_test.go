//go:build linux

package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// BenchmarkConnect makes connections through a published port, with ever more
// services in the table. Straight is to a task itself.
func BenchmarkConnect(b *testing.B) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		b.Fatal(err)
	}
	node := netip.MustParseAddr("192.0.2.1")
	const backends = 3
	served := endpoint("service00000", 0, backends)
	own := []netip.Addr{node}
	for _, t := range served.Backends {
		own = append(own, t.Networks[0].Addr.Addr())
	}
	for _, a := range own {
		parsed := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.AddrAdd(lo, parsed); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = netlink.AddrDel(lo, parsed) })
	}
	for _, a := range own[1:] {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(a, 80).String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
	}
	connect := func(b *testing.B, to netip.AddrPort) {
		for b.Loop() {
			c, err := net.Dial("tcp4", to.String())
			if err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // ports would run out
			_ = c.Close()
		}
	}
	for _, services := range []int{1, 10, 1000, 10000} {
		p := New(zaptest.NewLogger(b))
		if err := p.Set(ctx, cluster(services, backends)); err != nil {
			b.Fatal(err)
		}
		b.Run("straight", func(b *testing.B) { connect(b, netip.AddrPortFrom(own[1], 80)) })
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			connect(b, netip.AddrPortFrom(node, served.Ports[0].Published))
		})
		if err := p.Clear(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForget makes what a task has left behind forgotten, among ever more
// connections that are tracked.
func BenchmarkForget(b *testing.B) {
	p := New(zaptest.NewLogger(b))
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	b.Cleanup(func() { _ = netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	s := stale{dead: map[netip.Addr]bool{addr(1): true}}
	made := 0
	for _, n := range []int{0, 10_000, 100_000} {
		for ; made < n; made++ {
			client := net.IPv4(192, 0, 2, byte(made%200)).To4()
			f := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 600, ProtoInfo: &netlink.ProtoInfoTCP{State: tcpTimeWait}}
			f.Forward = netlink.IPTuple{SrcIP: client, DstIP: net.IPv4(192, 0, 2, 250).To4(), SrcPort: uint16(1024 + made/200), DstPort: 8080, Protocol: unix.IPPROTO_TCP}
			f.Reverse = netlink.IPTuple{SrcIP: addr(2).AsSlice(), DstIP: client, SrcPort: 80, DstPort: uint16(1024 + made/200), Protocol: unix.IPPROTO_TCP}
			if err := h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
				b.Fatal(err)
			}
		}
		for name, filters := range map[string][]netkit.FlowFilter{"asked for": s.filters(1 << 20), "all": {{}}} {
			b.Run(fmt.Sprintf("%d connections/%s", n, name), func(b *testing.B) {
				if p.conntrack == nil {
					if err := p.flush(s); err != nil {
						b.Fatal(err)
					}
				}
				for b.Loop() {
					if err := p.conntrack.Delete(filters, s.contradicts); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
