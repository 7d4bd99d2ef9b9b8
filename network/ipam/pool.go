// Package ipam hands out the addresses of a network. A pool is plain memory:
// its caller writes what it was given to the store before anybody uses it, and
// rebuilds pools from there. The same calls in the same order give the same
// addresses.
package ipam

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// Pool holds the addresses of one network, which may have several subnets.
type Pool struct {
	network string // for messages
	blocks  []*block
	cursor  cursor
}

// cursor is where the next search begins. It goes through one subnet after the
// other.
type cursor struct {
	block  int
	offset uint32
}

// New returns the pool of a network with nothing handed out yet. The gateway
// of each subnet, what its user keeps for something else, and the addresses that
// IPv4 gives a meaning of their own (the first and the last), are never handed out.
func New(network string, subnets []api.Subnet) (*Pool, error) {
	p := &Pool{network: network}
	for _, s := range subnets {
		if err := p.Add(s); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Add gives a pool one more subnet.
func (p *Pool) Add(s api.Subnet) error {
	b, err := newBlock(s)
	if err != nil {
		return fmt.Errorf("network %q: %w", p.network, err)
	}
	p.blocks = append(p.blocks, b)
	return nil
}

// Subnets are those that the pool was given.
func (p *Pool) Subnets() []netip.Prefix {
	out := make([]netip.Prefix, len(p.blocks))
	for i, b := range p.blocks {
		out[i] = b.subnet.Prefix
	}
	return out
}

// Next hands out an address, with the length of its subnet. It takes up where
// the last call left off, so that a freed address rests for as long as the
// network has others: neighbours and connection trackers that still remember its
// old owner get time to forget.
func (p *Pool) Next() (netip.Prefix, error) {
	// The subnet that it begins in comes twice: its beginning is looked at last.
	at := p.cursor
	for i := 0; len(p.blocks) > 0 && i <= len(p.blocks); i++ {
		b := p.blocks[at.block]
		if off, ok := b.search(at.offset); ok && b.take(off) {
			p.cursor = cursor{at.block, off + 1}
			return netip.PrefixFrom(b.at(off), b.subnet.Prefix.Bits()), nil
		}
		at = cursor{block: (at.block + 1) % len(p.blocks)}
	}
	return netip.Prefix{}, fmt.Errorf("network %q has no free address: %s: %w", p.network, p.usage(), errdefs.ErrResourceExhausted)
}

// Claim hands out an address that somebody asks for by name.
func (p *Pool) Claim(a netip.Addr) (netip.Prefix, error) {
	for _, b := range p.blocks {
		switch {
		case !b.subnet.Prefix.Contains(a):
			continue
		case !b.contains(a):
			return netip.Prefix{}, fmt.Errorf("network %q: address %s is not in %s, which addresses are taken from: %w", p.network, a, b.rng, errdefs.ErrInvalidArgument)
		case b.reserved(a) || !b.take(b.offset(a)):
			return netip.Prefix{}, fmt.Errorf("network %q: address %s: Address already in use: %w", p.network, a, errdefs.ErrConflict)
		}
		return netip.PrefixFrom(a, b.subnet.Prefix.Bits()), nil
	}
	return netip.Prefix{}, fmt.Errorf("network %q has no subnet that address %s is in: %w", p.network, a, errdefs.ErrInvalidArgument)
}

// Take marks an address that was handed out before this pool was built, and
// tells whether it was free. One outside of the pool, as after a change of its
// range, needs no mark: it is never handed out.
func (p *Pool) Take(a netip.Addr) bool {
	for _, b := range p.blocks {
		if b.contains(a) {
			return b.take(b.offset(a))
		}
	}
	return true
}

// Release gives an address back. Releasing a free one changes nothing.
func (p *Pool) Release(a netip.Addr) {
	for _, b := range p.blocks {
		if b.contains(a) && !b.reserved(a) {
			b.release(b.offset(a))
		}
	}
}

// Resume places the next search of a rebuilt pool, given the address that was
// handed out last of those still in use: half of the network away. What was
// handed out after it and freed since is not known any more, but lies near it.
func (p *Pool) Resume(a netip.Addr) {
	var all, place uint64
	ours := false
	for _, b := range p.blocks {
		if b.contains(a) {
			place, ours = all+uint64(b.offset(a)), true
		}
		all += uint64(b.size)
	}
	if !ours {
		return
	}
	place = (place + all/2) % all
	for i, b := range p.blocks {
		if place < uint64(b.size) {
			p.cursor = cursor{i, uint32(place)}
			return
		}
		place -= uint64(b.size)
	}
}

// Free is how many addresses are left.
func (p *Pool) Free() int {
	n := 0
	for _, b := range p.blocks {
		n += b.free
	}
	return n
}

func (p *Pool) usage() string {
	if len(p.blocks) == 0 {
		return "it has no subnet"
	}
	var names []string
	usable := 0
	for i, b := range p.blocks {
		if usable += b.usable; i < named {
			names = append(names, b.rng.String())
		}
	}
	more := ""
	if n := len(p.blocks) - named; n > 0 {
		more = fmt.Sprintf(" and %d more subnets", n)
	}
	return fmt.Sprintf("all %d of %s%s are in use", usable, strings.Join(names, ", "), more)
}

// named is how many subnets a message names: there may be hundreds.
const named = 3
