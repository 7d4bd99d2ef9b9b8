package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/api"
	"shoal/lb"
)

// The kernel's numbers for a handshake that nobody answered, and for a connection
// that both sides have closed.
const (
	tcpSynSent  = 1
	tcpTimeWait = 7
)

// stale names the connection tracking entries that contradict a new table. For
// the kernel a connection, once rewritten, stays with its backend; that is
// wanted for TCP while the backend runs, but a UDP client that never pauses would
// send to a dead address for ever. So would a TCP client that comes from a port
// of before: a task that ends may leave a connection that was never closed, and
// for the kernel the new one is that old one.
type stale struct {
	gone   map[netip.Addr]bool // backends that left
	opened map[uint16]bool     // UDP ports published since: entries from before are not rewritten
	dead   map[netip.Addr]bool // containers that ended
	fresh  []netip.Prefix      // subnets known since: what was sent there was masqueraded
	// Where nobody knows what the kernel had before: every address of these
	// networks that is no backend counts as one that left, and as that of a
	// container that ended if none has it.
	networks []netip.Prefix
	serving  map[netip.Addr]bool
	living   map[netip.Addr]bool
}

// leftovers names the entries that contradict a table, whatever was there before.
func leftovers(now lb.Table, living map[netip.Addr]bool) stale {
	s := staleness(lb.Table{}, now)
	s.networks, s.serving, s.living = now.Subnets, map[netip.Addr]bool{}, living
	for _, p := range now.Ports {
		add(s.serving, p.Backends)
	}
	for _, v := range now.VIPs {
		add(s.serving, v.Backends)
	}
	return s
}

// left tells whether an address is that of a backend no more.
func (s stale) left(a netip.Addr) bool { return s.gone[a] || !s.serving[a] && s.ours(a) }

// ended tells whether an address is that of a container no more.
func (s stale) ended(a netip.Addr) bool {
	return s.dead[a] || !s.living[a] && !s.serving[a] && s.ours(a)
}

func (s stale) ours(a netip.Addr) bool {
	return slices.ContainsFunc(s.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// with adds containers that ended.
func (s stale) with(dead map[netip.Addr]bool) stale {
	s.dead = dead
	return s
}

// departed lists the addresses of containers that have ended since an earlier
// state.
func departed(old, now *api.NodeState) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	add := func(networks []api.Attachment) {
		for _, at := range networks {
			out[at.Addr.Addr()] = true
		}
	}
	for id, r := range old.Remotes {
		if now.Remotes[id] == nil {
			add(r.Networks)
		}
	}
	for id, a := range old.Tasks {
		if b := now.Tasks[id]; !api.Terminal(a.Task.Status.State) && (b == nil || api.Terminal(b.Task.Status.State)) {
			add(a.Task.Networks)
		}
	}
	return out
}

// living lists the addresses that containers have, also those that only finish
// what they have begun.
func living(s *api.NodeState) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, r := range s.Remotes {
		for _, at := range r.Networks {
			out[at.Addr.Addr()] = true
		}
	}
	for _, a := range s.Tasks {
		if api.Terminal(a.Task.Status.State) {
			continue
		}
		for _, at := range a.Task.Networks {
			out[at.Addr.Addr()] = true
		}
	}
	return out
}

// staleness compares two tables.
func staleness(old, now lb.Table) stale {
	s := stale{gone: map[netip.Addr]bool{}, opened: map[uint16]bool{}}
	for _, p := range old.Ports {
		add(s.gone, p.Backends)
	}
	for _, v := range old.VIPs {
		add(s.gone, v.Backends)
	}
	for _, p := range now.Subnets {
		if !slices.Contains(old.Subnets, p) {
			s.fresh = append(s.fresh, p)
		}
	}
	for _, p := range now.Ports {
		remove(s.gone, p.Backends)
		if p.Protocol == "udp" && len(p.Backends) > 0 {
			s.opened[p.Published] = true
		}
	}
	for _, v := range now.VIPs {
		remove(s.gone, v.Backends)
	}
	for _, p := range old.Ports {
		if p.Protocol == "udp" && len(p.Backends) > 0 {
			delete(s.opened, p.Published)
		}
	}
	return s
}

func add(set map[netip.Addr]bool, addrs []netip.Addr) {
	for _, a := range addrs {
		set[a] = true
	}
}

func remove(set map[netip.Addr]bool, addrs []netip.Addr) {
	for _, a := range addrs {
		delete(set, a)
	}
}

// flush deletes the entries of connections that a new table contradicts.
func (p *Plane) flush(s stale) error {
	if len(s.gone) == 0 && len(s.opened) == 0 && len(s.dead) == 0 && len(s.fresh) == 0 && len(s.networks) == 0 {
		return nil
	}
	if p.conntrack == nil {
		// Kept open, as closing a socket of netfilter may wait for the
		// kernel to free what the last change of the ruleset replaced.
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("open connection tracking: %w", err)
		}
		p.conntrack = h
	}
	if _, err := p.conntrack.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s); err != nil {
		p.conntrack.Close() // the next attempt has another
		p.conntrack = nil
		return fmt.Errorf("flush connection tracking: %w", err)
	}
	return nil
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	asked, ok1 := netip.AddrFromSlice(f.Forward.DstIP)
	answers, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP)
	client, ok3 := netip.AddrFromSlice(f.Forward.SrcIP)
	if !ok1 || !ok2 || !ok3 {
		return false
	}
	tcp, _ := f.ProtoInfo.(*netlink.ProtoInfoTCP)
	if s.ended(answers.Unmap()) || s.ended(client.Unmap()) {
		// What both sides closed the kernel begins anew by itself, and there are
		// tens of thousands of that behind a busy service.
		return tcp == nil || tcp.State != tcpTimeWait
	}
	rewritten := asked.Unmap() != answers.Unmap()
	plain := !rewritten && f.Forward.SrcIP.Equal(f.Reverse.DstIP)
	if !rewritten && !plain && slices.ContainsFunc(s.fresh, func(n netip.Prefix) bool { return n.Contains(asked.Unmap()) }) {
		return true // a sender that never pauses would stay a stranger there
	}
	switch f.Forward.Protocol {
	case unix.IPPROTO_UDP:
		return rewritten && s.left(answers.Unmap()) || plain && s.opened[f.Forward.DstPort]
	case unix.IPPROTO_TCP:
		// A client that waits for a task that is gone would repeat its first
		// packet to it until it gives up.
		return tcp != nil && tcp.State == tcpSynSent && rewritten && s.left(answers.Unmap())
	}
	return false
}
