package proxy

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"shoal/lb"
)

// backends are what a port leads to, as of now.
type backends struct{ now atomic.Pointer[round] }

// round is one table's backends of a port. It is never changed.
type round struct {
	lb.Port
	from netip.Addr // that tasks see this node by; the zero value leaves it to the kernel
}

var errNoBackend = errors.New("no task can take the connection")

// replace sets the backends and tells whether they are others than before.
func (b *backends) replace(p lb.Port, from netip.Addr) bool {
	if r := b.now.Load(); r != nil && r.same(p, from) {
		return false
	}
	b.now.Store(&round{Port: p, from: from})
	return true
}

func (r *round) same(p lb.Port, from netip.Addr) bool {
	return r.from == from && r.Target == p.Target && r.ProxyProtocol == p.ProxyProtocol && slices.Equal(r.Backends, p.Backends)
}

// pick chooses a backend at random, but none that was tried.
func (r *round) pick(tried []netip.Addr) (a netip.Addr, ok bool) {
	left := r.Backends
	if len(tried) > 0 {
		left = slices.DeleteFunc(slices.Clone(left), func(a netip.Addr) bool { return slices.Contains(tried, a) })
	}
	if len(left) == 0 {
		return netip.Addr{}, false
	}
	return left[rand.IntN(len(left))], true
}
