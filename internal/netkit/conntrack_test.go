//go:build linux

package netkit_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// track makes the kernel remember a connection that was redirected.
func track(t testing.TB, proto byte, from, to, answers string, port uint16) {
	t.Helper()
	ip := func(s string) net.IP { return net.ParseIP(s).To4() }
	f := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 600}
	if proto == unix.IPPROTO_TCP {
		f.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
	}
	f.Forward = netlink.IPTuple{SrcIP: ip(from), DstIP: ip(to), SrcPort: 4000, DstPort: port, Protocol: proto}
	f.Reverse = netlink.IPTuple{SrcIP: ip(answers), DstIP: ip(from), SrcPort: port, DstPort: 4000, Protocol: proto}
	if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
		t.Fatal(err)
	}
}

// TestConntrack: the kernel lists what a filter asks for, and forgets what
// matches of that.
func TestConntrack(t *testing.T) {
	track(t, unix.IPPROTO_TCP, "192.0.2.1", "192.0.2.9", "10.0.0.1", 80)
	track(t, unix.IPPROTO_TCP, "192.0.2.2", "192.0.2.9", "10.0.0.2", 80)
	track(t, unix.IPPROTO_UDP, "192.0.2.1", "192.0.2.9", "10.0.0.2", 53)
	track(t, unix.IPPROTO_UDP, "192.0.2.2", "192.0.2.9", "10.0.0.1", 54)
	c, err := netkit.OpenConntrack()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := netkit.Tracked(); n != 4 {
		t.Errorf("%d connections are tracked", n)
	}
	list := func(f netkit.FlowFilter) (out []string) {
		t.Helper()
		if err := c.Delete([]netkit.FlowFilter{f}, func(f netkit.Flow) bool {
			if f.To != netip.MustParseAddr("192.0.2.9") || f.Asker != f.From || (f.State == 3) != (f.Proto == unix.IPPROTO_TCP) {
				t.Errorf("%+v", f)
			}
			out = append(out, f.From.String()+" "+f.Answers.String())
			return false
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return out
	}
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, tc := range []struct {
		filter netkit.FlowFilter
		want   []string
	}{
		{netkit.FlowFilter{}, []string{"192.0.2.1 10.0.0.1", "192.0.2.1 10.0.0.2", "192.0.2.2 10.0.0.1", "192.0.2.2 10.0.0.2"}},
		{netkit.FlowFilter{Answers: one}, []string{"192.0.2.1 10.0.0.1", "192.0.2.2 10.0.0.1"}},
		{netkit.FlowFilter{From: netip.MustParseAddr("192.0.2.2")}, []string{"192.0.2.2 10.0.0.1", "192.0.2.2 10.0.0.2"}},
		{netkit.FlowFilter{From: netip.MustParseAddr("192.0.2.2"), Answers: two}, []string{"192.0.2.2 10.0.0.2"}},
		{netkit.FlowFilter{Proto: unix.IPPROTO_UDP}, []string{"192.0.2.1 10.0.0.2", "192.0.2.2 10.0.0.1"}},
		{netkit.FlowFilter{Proto: unix.IPPROTO_UDP, Port: 53}, []string{"192.0.2.1 10.0.0.2"}},
		{netkit.FlowFilter{Answers: netip.MustParseAddr("10.0.0.3")}, nil},
	} {
		if diff := cmp.Diff(tc.want, list(tc.filter)); diff != "" {
			t.Errorf("%+v: %s", tc.filter, diff)
		}
	}
	if err := c.Delete([]netkit.FlowFilter{{Answers: one}, {Answers: one}}, func(f netkit.Flow) bool {
		return f.Proto == unix.IPPROTO_UDP
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1 10.0.0.1", "192.0.2.1 10.0.0.2", "192.0.2.2 10.0.0.2"}, list(netkit.FlowFilter{})); diff != "" {
		t.Error(diff)
	}
}
