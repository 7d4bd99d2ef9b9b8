//go:build linux

package nft

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"shoal/internal/netkit"
	"shoal/lb"
)

// TestEntriesOfBeforeASubnet: what a container sent to an address that was nobody's
// here was masqueraded, and must not go on so when a network has got it.
func TestEntriesOfBeforeASubnet(t *testing.T) {
	first, second := netip.MustParsePrefix("10.0.0.0/29"), netip.MustParsePrefix("10.0.0.8/29")
	s := staleness(lb.Table{Subnets: []netip.Prefix{first}}, lb.Table{Subnets: []netip.Prefix{first, second}})
	flow := func(client, asked, answers, seenAs string) netkit.Flow {
		return netkit.Flow{
			Proto: unix.IPPROTO_UDP, From: netip.MustParseAddr(client), To: netip.MustParseAddr(asked),
			Answers: netip.MustParseAddr(answers), Asker: netip.MustParseAddr(seenAs),
		}
	}
	for name, tc := range map[string]struct {
		flow netkit.Flow
		want bool
	}{
		"masqueraded":                    {flow("10.0.0.2", "10.0.0.10", "10.0.0.10", "192.0.2.1"), true},
		"within the network":             {flow("10.0.0.2", "10.0.0.10", "10.0.0.10", "10.0.0.2"), false},
		"to the subnet that it had":      {flow("10.0.0.2", "10.0.0.3", "10.0.0.3", "192.0.2.1"), false},
		"to somebody outside":            {flow("10.0.0.2", "198.51.100.7", "198.51.100.7", "192.0.2.1"), false},
		"to itself by a virtual address": {flow("10.0.0.10", "10.0.0.9", "10.0.0.10", "169.254.1.1"), false},
	} {
		if got := s.contradicts(tc.flow); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if s := staleness(lb.Table{Subnets: []netip.Prefix{first, second}}, lb.Table{Subnets: []netip.Prefix{second}}); len(s.fresh) != 0 {
		t.Errorf("%v are new", s.fresh)
	}
}

// TestFilters: whatever is stale is in one of the lists that the kernel is asked
// for.
func TestFilters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.Custom(func(t *rapid.T) netip.Addr { return addr(rapid.IntRange(1, 4).Draw(t, "address")) })
		port := rapid.Uint16Range(1, 3)
		s := stale{
			gone:   rapid.MapOf(some, rapid.Just(true)).Draw(t, "gone"),
			dead:   rapid.MapOf(some, rapid.Just(true)).Draw(t, "dead"),
			opened: rapid.MapOf(port, rapid.Just(true)).Draw(t, "opened"),
		}
		f := netkit.Flow{
			Proto: rapid.SampledFrom([]byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}).Draw(t, "protocol"),
			From:  some.Draw(t, "from"), To: some.Draw(t, "to"), Port: port.Draw(t, "port"),
			Answers: some.Draw(t, "answers"), Asker: some.Draw(t, "asker"),
			State: rapid.SampledFrom([]byte{0, tcpSynSent, tcpTimeWait}).Draw(t, "state"),
		}
		filters := s.filters(rapid.SampledFrom([]int{0, 3000, 1_000_000}).Draw(t, "connections"))
		if s.contradicts(f) && !slices.ContainsFunc(filters, func(l netkit.FlowFilter) bool { return listed(l, f) }) {
			t.Errorf("%+v is stale and in none of %+v", f, filters)
		}
	})
	s := stale{gone: map[netip.Addr]bool{addr(1): true}, dead: map[netip.Addr]bool{addr(2): true}}
	for connections, want := range map[int]int{0: 1, 2000: 1, 2001: 3} {
		if got := s.filters(connections); len(got) != want {
			t.Errorf("%d lists for %d connections, want %d", len(got), connections, want)
		}
	}
}

func listed(l netkit.FlowFilter, f netkit.Flow) bool {
	return (!l.From.IsValid() || l.From == f.From) && (!l.Answers.IsValid() || l.Answers == f.Answers) &&
		(l.Proto == 0 || l.Proto == f.Proto && (l.Port == 0 || l.Port == f.Port))
}
