package service

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/network/ipam"
)

// TakenSubnet is a range of addresses, and who has it, for messages.
type TakenSubnet struct {
	Prefix netip.Prefix
	Owner  string
}

// TakenSubnets lists the subnets of all networks, and of removed ones for as
// long as a task that was on them may still answer there.
func TakenSubnets(v *store.View) []TakenSubnet {
	all := networkSubnets(v)
	seen := map[netip.Prefix]bool{} // that of a guest can not go before it
	for t := range v.Tasks.All() {
		if api.Terminal(t.Status.State) {
			continue
		}
		for _, at := range t.Networks {
			if _, there := v.Networks.Get(at.NetworkID); !there && !seen[at.Addr.Masked()] {
				seen[at.Addr.Masked()] = true
				all = append(all, TakenSubnet{at.Addr.Masked(), "a removed network, on which a task is still stopping"})
			}
		}
	}
	return all
}

func networkSubnets(v *store.View) (all []TakenSubnet) {
	for n := range v.Networks.All() {
		for _, s := range n.Subnets {
			all = append(all, TakenSubnet{s.Prefix, "network " + n.Spec.Name})
		}
	}
	return all
}

// CutSubnet finds a subnet for a network in its grounds that nobody has, and none
// of reserved has either. A node's address is somebody's, too.
func CutSubnet(v *store.View, grounds []netip.Prefix, reserved ...netip.Prefix) (api.Subnet, error) {
	c := v.Cluster()
	if c == nil {
		return api.Subnet{}, errdefs.ErrUnavailable.WithMessage("the cluster has no state yet")
	}
	used := reserved
	for _, o := range TakenSubnets(v) {
		used = append(used, o.Prefix)
	}
	for n := range v.Nodes.All() {
		if a, err := netip.ParseAddrPort(n.Addr); err == nil {
			used = append(used, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
		if a, err := netip.ParseAddr(n.DataPath); err == nil {
			used = append(used, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	p, err := ipam.Cut(grounds, int(c.SubnetSize), used, c.LastSubnet)
	if err != nil {
		return api.Subnet{}, err
	}
	return api.Subnet{Prefix: p, Gateway: p.Addr().Next()}, nil
}

// NoteSubnets has the cluster remember which subnet was cut last, if one was.
// Whoever gives a network a subnet does so, and thereby goes after whoever else
// does at the same time: two that do not know of each other could give the same.
func NoteSubnets(tx *store.Tx, cut netip.Prefix) error {
	c := tx.Cluster()
	if c == nil {
		return nil
	}
	c = c.Tended()
	if cut.IsValid() {
		c.LastSubnet = cut
	}
	return tx.Put(c)
}

// maxSubnets is how far a network grows: with the default size, to 16,000
// addresses. Every node has a rule for every pair of subnets of a network.
const maxSubnets = 64

// grow gives a network that has no address left another subnet. It is the
// network's in memory alone, until something that was given an address of it is
// written: see widen. full is what is said of one that does not grow.
func (l *leases) grow(id string, full error) error {
	if err := l.spent[id]; err != nil {
		return err
	}
	var grounds []netip.Prefix
	if c := l.view.Cluster(); c != nil {
		grounds = l.networks[id].Grounds(c.Pools())
	}
	if len(grounds) == 0 {
		if l.networks[id].Chosen() {
			return fmt.Errorf("%w; its subnet was chosen, so it gets no other: make a network with a larger one (--subnet), and move services to that", full)
		}
		return full
	}
	if len(l.pools[id].Subnets()) >= maxSubnets {
		l.spent[id] = fmt.Errorf("%w, and it has as many subnets as a network may have, %d: let a network have larger ones (--subnet)", full, maxSubnets)
		return l.spent[id]
	}
	var reserved []netip.Prefix
	for _, cut := range l.grown {
		for _, s := range cut {
			reserved = append(reserved, s.Prefix)
		}
	}
	s, err := CutSubnet(l.view, grounds, reserved...)
	if err == nil {
		err = l.pools[id].Add(s)
	}
	if err != nil {
		only := ""
		if l.networks[id].Encrypted() {
			only = "it grows near its first subnet alone, as it is encrypted: "
		}
		l.spent[id] = fmt.Errorf("%w, and %s%w", full, only, err)
		return l.spent[id]
	}
	l.grown[id] = append(l.grown[id], s)
	return nil
}

// widen gives networks, in a transaction, the subnets that were cut for what it
// writes. It tells whether all addresses lie in their networks then: somebody may
// have given a subnet to another network meanwhile.
func (l *leases) widen(tx *store.Tx, given []lease) (bool, error) {
	for _, a := range given {
		n, ok := tx.Networks.Get(a.networkID)
		if !ok || within(n.Subnets, a.addr) {
			continue // of one that was removed nothing is asked any more
		}
		s, ok := subnetOf(l.grown[n.ID], a.addr)
		if !ok {
			return false, nil
		}
		for _, o := range networkSubnets(&tx.View) {
			if o.Prefix.Overlaps(s.Prefix) {
				return false, nil
			}
		}
		n = api.Clone(n)
		n.Subnets = slices.Concat(n.Subnets, []api.Subnet{s})
		if err := tx.Put(n); err != nil {
			return false, err
		}
		if err := NoteSubnets(tx, s.Prefix); err != nil {
			return false, err
		}
	}
	return true, nil
}

// settle forgets what was cut for networks and is theirs, or somebody else's, by
// now.
func (l *leases) settle() {
	for id, cut := range l.grown {
		cut = slices.DeleteFunc(slices.Clone(cut), func(s api.Subnet) bool {
			for _, n := range l.networks {
				for _, o := range n.Subnets {
					if o.Prefix.Overlaps(s.Prefix) {
						return true
					}
				}
			}
			return false
		})
		switch {
		case len(cut) == len(l.grown[id]):
		case len(cut) == 0:
			delete(l.grown, id)
		default:
			l.grown[id] = cut
		}
		l.fill(id)
	}
}

func within(subnets []api.Subnet, a netip.Addr) bool {
	_, ok := subnetOf(subnets, a)
	return ok
}

func subnetOf(subnets []api.Subnet, a netip.Addr) (api.Subnet, bool) {
	for _, s := range subnets {
		if s.Prefix.Contains(a) {
			return s, true
		}
	}
	return api.Subnet{}, false
}
