package nft

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"shoal/internal/api"
	"shoal/internal/netkit"
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
	if s.empty() {
		return nil
	}
	if p.conntrack == nil {
		c, err := netkit.OpenConntrack()
		if err != nil {
			return err
		}
		p.conntrack = c
	}
	if err := p.conntrack.Delete(s.filters(netkit.Tracked()), s.contradicts); err != nil {
		p.conntrack.Close() // the next attempt has another
		p.conntrack = nil
		return err
	}
	return nil
}

func (s stale) empty() bool {
	return len(s.gone) == 0 && len(s.opened) == 0 && len(s.dead) == 0 && len(s.fresh) == 0 && len(s.networks) == 0
}

// listWorth is how many connections there have to be for one more filtered list
// to be worth it. The kernel walks all of its table for each, which takes as long
// as telling us of some 1000 connections.
const listWorth = 1000

// filters says what to list of so many connections: those of each address and
// port, or simply all.
func (s stale) filters(connections int) (out []netkit.FlowFilter) {
	if len(s.fresh) > 0 || len(s.networks) > 0 {
		return []netkit.FlowFilter{{}}
	}
	for a := range s.gone {
		if !s.dead[a] {
			out = append(out, netkit.FlowFilter{Answers: a})
		}
	}
	for a := range s.dead {
		out = append(out, netkit.FlowFilter{Answers: a}, netkit.FlowFilter{From: a})
	}
	for port := range s.opened {
		out = append(out, netkit.FlowFilter{Proto: unix.IPPROTO_UDP, Port: port})
	}
	if (len(out)-1)*listWorth >= connections {
		return []netkit.FlowFilter{{}}
	}
	return out
}

// contradicts tells whether a connection is stale.
func (s stale) contradicts(f netkit.Flow) bool {
	if s.ended(f.Answers) || s.ended(f.From) {
		// What both sides closed the kernel begins anew by itself, and there are
		// tens of thousands of that behind a busy service.
		return f.Proto != unix.IPPROTO_TCP || f.State != tcpTimeWait
	}
	rewritten := f.To != f.Answers
	plain := !rewritten && f.From == f.Asker
	if !rewritten && !plain && slices.ContainsFunc(s.fresh, func(n netip.Prefix) bool { return n.Contains(f.To) }) {
		return true // a sender that never pauses would stay a stranger there
	}
	switch f.Proto {
	case unix.IPPROTO_UDP:
		return rewritten && s.left(f.Answers) || plain && s.opened[f.Port]
	case unix.IPPROTO_TCP:
		// A client that waits for a task that is gone would repeat its first
		// packet to it until it gives up.
		return f.State == tcpSynSent && rewritten && s.left(f.Answers)
	}
	return false
}
