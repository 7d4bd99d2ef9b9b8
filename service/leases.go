package service

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/network/ipam"
)

// leases knows who has which address: tasks until they have ended or are
// deleted, services for as long as they want theirs, guests until they leave.
type leases struct {
	log      *zap.Logger
	networks map[string]*api.Network
	pools    map[string]*ipam.Pool // by network ID
	owners   map[string][]lease    // by ID of task, service or guest

	view  *store.View             // what a new subnet is cut beside
	grown map[string][]api.Subnet // cut for a network, which the store does not know of yet
	spent map[string]error        // networks for which none was to be had in this round
}

type lease struct {
	networkID string
	addr      netip.Addr
}

func newLeases(log *zap.Logger) *leases {
	return &leases{
		log:      log,
		networks: map[string]*api.Network{}, pools: map[string]*ipam.Pool{}, owners: map[string][]lease{},
		view: store.New().View(), grown: map[string][]api.Subnet{}, spent: map[string]error{},
	}
}

// begin starts a round with what the store has now.
func (l *leases) begin(v *store.View) {
	l.view = v
	clear(l.spent)
}

// taskLeases gives the addresses that a task holds. It keeps them until its
// node said that it has ended: before, something may still answer there.
func taskLeases(t *api.Task) (all []lease) {
	if api.Terminal(t.Status.State) {
		return nil
	}
	for _, a := range t.Networks {
		all = append(all, lease{a.NetworkID, a.Addr.Addr()})
	}
	return all
}

// guestLeases gives the address of a container that is no task.
func guestLeases(g *api.Guest) []lease {
	if !g.Addr.IsValid() {
		return nil
	}
	return []lease{{g.NetworkID, g.Addr.Addr()}}
}

func vipLeases(s *api.Service) (all []lease) {
	for _, v := range s.Endpoint.VirtualIPs {
		if p, err := netip.ParsePrefix(v.Addr); err == nil {
			all = append(all, lease{v.NetworkID, p.Addr()})
		}
	}
	return all
}

// setNetwork takes in a network, with what is already leased of it.
func (l *leases) setNetwork(n *api.Network) {
	l.networks[n.ID] = n
	l.settle()
	l.fill(n.ID)
}

// fill builds the pool of a network, if it is not as it should be: another one
// would not know which addresses rest.
func (l *leases) fill(id string) {
	n := l.networks[id]
	subnets := slices.Concat(n.Subnets, l.grown[id])
	if pool := l.pools[id]; pool != nil && slices.EqualFunc(pool.Subnets(), subnets, func(p netip.Prefix, s api.Subnet) bool { return p == s.Prefix.Masked() }) {
		return
	}
	pool, err := ipam.New(n.Spec.Name, subnets)
	if err != nil {
		l.log.Error("network without usable addresses", zap.String("network", n.ID), zap.Error(err))
		pool, _ = ipam.New(n.Spec.Name, nil)
	}
	l.pools[n.ID] = pool
	for _, held := range l.owners {
		for _, a := range held {
			if a.networkID == n.ID {
				pool.Take(a.addr)
			}
		}
	}
}

func (l *leases) removeNetwork(id string) {
	delete(l.networks, id)
	delete(l.pools, id)
	delete(l.grown, id)
}

// set makes these the leases of an owner. It tells whether any were given back.
func (l *leases) set(owner string, want []lease) (freed bool) {
	held := l.owners[owner]
	if len(held) == 0 && len(want) == 0 {
		return false
	}
	for _, a := range held {
		if !contains(want, a) {
			freed = true
			if pool, ok := l.pools[a.networkID]; ok {
				pool.Release(a.addr)
			}
		}
	}
	for _, a := range want {
		if pool, ok := l.pools[a.networkID]; ok && !contains(held, a) && !pool.Take(a.addr) {
			l.log.Error("address in use twice", zap.String("network", a.networkID), zap.Stringer("address", a.addr), zap.String("owner", owner))
		}
	}
	if len(want) == 0 {
		delete(l.owners, owner)
	} else {
		l.owners[owner] = want
	}
	return freed
}

func contains(all []lease, a lease) bool {
	for _, b := range all {
		if a == b {
			return true
		}
	}
	return false
}

// resume keeps every pool from giving out again what was freed just before this
// leader came, as far as the newest addresses in use tell where that was.
func (l *leases) resume(v *store.View) {
	newest := map[string]time.Time{}
	note := func(at time.Time, held []lease) {
		for _, a := range held {
			if pool, ok := l.pools[a.networkID]; ok && at.After(newest[a.networkID]) {
				newest[a.networkID] = at
				pool.Resume(a.addr)
			}
		}
	}
	for s := range v.Services.All() {
		note(s.CreatedAt, vipLeases(s))
	}
	for t := range v.Tasks.All() {
		note(t.CreatedAt, taskLeases(t))
	}
	for g := range v.Guests.All() {
		note(g.CreatedAt, guestLeases(g))
	}
}

// attach leases an address for a task on each of its networks, or none.
func (l *leases) attach(taskID string, networks []wantedNetwork) (out []api.Attachment, err error) {
	var got []lease
	for _, n := range networks {
		a, err := l.next(n.id)
		if err != nil {
			for _, g := range got {
				l.pools[g.networkID].Release(g.addr)
			}
			return nil, fmt.Errorf("allocate address: %w", err)
		}
		got = append(got, lease{n.id, a.Addr()})
		out = append(out, api.Attachment{NetworkID: n.id, Addr: a, Aliases: n.aliases})
	}
	if len(got) > 0 {
		l.owners[taskID] = got
	}
	return out, nil
}

// vips gives the virtual addresses of a service on networks: those it has, and
// new ones where it has none.
func (l *leases) vips(s *api.Service, networks []wantedNetwork) (out []swarm.EndpointVirtualIP, err error) {
	have := map[string]string{}
	for _, v := range s.Endpoint.VirtualIPs {
		have[v.NetworkID] = v.Addr
	}
	var got []lease
	for _, n := range networks {
		addr, ok := have[n.id]
		if !ok {
			a, err := l.next(n.id)
			if err != nil {
				for _, g := range got {
					l.pools[g.networkID].Release(g.addr)
				}
				return nil, err
			}
			got = append(got, lease{n.id, a.Addr()})
			addr = a.String()
		}
		out = append(out, swarm.EndpointVirtualIP{NetworkID: n.id, Addr: addr})
	}
	if len(got) > 0 {
		l.owners[s.ID] = append(vipLeases(s), got...)
	}
	return out, nil
}

// next leases an address of a network, of a new subnet if need be.
func (l *leases) next(networkID string) (netip.Prefix, error) {
	pool, ok := l.pools[networkID]
	if !ok {
		return netip.Prefix{}, fmt.Errorf("network %s does not exist", networkID)
	}
	a, err := pool.Next()
	if !errdefs.IsResourceExhausted(err) {
		return a, err
	}
	if err := l.grow(networkID, err); err != nil {
		return netip.Prefix{}, err
	}
	return pool.Next()
}
