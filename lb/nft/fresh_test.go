//go:build linux

package nft

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/lb"
)

// TestEntriesOfBeforeASubnet: what a container sent to an address that was nobody's
// here was masqueraded, and must not go on so when a network has got it.
func TestEntriesOfBeforeASubnet(t *testing.T) {
	first, second := netip.MustParsePrefix("10.0.0.0/29"), netip.MustParsePrefix("10.0.0.8/29")
	s := staleness(lb.Table{Subnets: []netip.Prefix{first}}, lb.Table{Subnets: []netip.Prefix{first, second}})
	flow := func(client, asked, answers, seenAs string) *netlink.ConntrackFlow {
		f := &netlink.ConntrackFlow{}
		f.Forward.Protocol = unix.IPPROTO_UDP
		f.Forward.SrcIP, f.Forward.DstIP = net.ParseIP(client), net.ParseIP(asked)
		f.Reverse.SrcIP, f.Reverse.DstIP = net.ParseIP(answers), net.ParseIP(seenAs)
		return f
	}
	for name, tc := range map[string]struct {
		flow *netlink.ConntrackFlow
		want bool
	}{
		"masqueraded":                    {flow("10.0.0.2", "10.0.0.10", "10.0.0.10", "192.0.2.1"), true},
		"within the network":             {flow("10.0.0.2", "10.0.0.10", "10.0.0.10", "10.0.0.2"), false},
		"to the subnet that it had":      {flow("10.0.0.2", "10.0.0.3", "10.0.0.3", "192.0.2.1"), false},
		"to somebody outside":            {flow("10.0.0.2", "198.51.100.7", "198.51.100.7", "192.0.2.1"), false},
		"to itself by a virtual address": {flow("10.0.0.10", "10.0.0.9", "10.0.0.10", "169.254.1.1"), false},
	} {
		if got := s.MatchConntrackFlow(tc.flow); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if s := staleness(lb.Table{Subnets: []netip.Prefix{first, second}}, lb.Table{Subnets: []netip.Prefix{second}}); len(s.fresh) != 0 {
		t.Errorf("%v are new", s.fresh)
	}
}
