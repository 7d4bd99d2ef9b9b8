//go:build linux

package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"
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
