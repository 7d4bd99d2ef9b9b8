package ipam

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// maxHostBits bounds the bitmap of one subnet to 2 MiB. Of a larger one (an
// IPv6 /64, say) only the first 16 million addresses are used.
const maxHostBits = 24

// block is the part of one subnet that addresses are taken from, as a bitmap.
type block struct {
	subnet api.Subnet
	rng    netip.Prefix // what addresses are taken from
	size   uint32       // addresses in rng, up to the bound
	usable int          // of these, how many may be handed out
	free   int
	used   []uint64
}

func newBlock(s api.Subnet) (*block, error) {
	if !s.Prefix.IsValid() {
		return nil, fmt.Errorf("subnet without an address range: %w", errdefs.ErrInvalidArgument)
	}
	s.Prefix = s.Prefix.Masked()
	rng := s.Prefix
	if s.Range.IsValid() {
		rng = s.Range.Masked()
	}
	if rng.Bits() < s.Prefix.Bits() || !s.Prefix.Contains(rng.Addr()) {
		return nil, fmt.Errorf("range %s is not a part of subnet %s: %w", rng, s.Prefix, errdefs.ErrInvalidArgument)
	}
	b := &block{subnet: s, rng: rng, size: 1 << min(maxHostBits, rng.Addr().BitLen()-rng.Bits())}
	b.used = make([]uint64, (b.size+63)/64)
	b.free = int(b.size)
	kept := slices.AppendSeq([]netip.Addr{s.Prefix.Addr(), s.Gateway, last(s.Prefix)}, maps.Values(s.Aux))
	slices.SortFunc(kept, netip.Addr.Compare)
	for _, a := range slices.Compact(kept) {
		if b.reserved(a) && b.contains(a) {
			b.take(b.offset(a))
		}
	}
	b.usable = b.free
	return b, nil
}

// reserved tells whether an address is never handed out.
func (b *block) reserved(a netip.Addr) bool {
	if a == b.subnet.Gateway {
		return true
	}
	for _, aux := range b.subnet.Aux {
		if a == aux {
			return true
		}
	}
	p := b.subnet.Prefix
	if p.Addr().BitLen()-p.Bits() < 2 {
		return false // point to point (RFC 3021): both addresses are hosts
	}
	return a == p.Addr() || p.Addr().Is4() && a == last(p)
}

func (b *block) contains(a netip.Addr) bool {
	return b.rng.Contains(a) && b.offset(a) < b.size
}

// offset is the place of an address in the range. The range begins at a
// multiple of its size, so that the low 32 bits are all that differs; in a
// larger range than that, addresses beyond the bound come out as too large.
func (b *block) offset(a netip.Addr) uint32 {
	lo, start := a.As16(), b.rng.Addr().As16()
	for i := range 12 {
		if lo[i] != start[i] {
			return b.size
		}
	}
	return binary.BigEndian.Uint32(lo[12:]) - binary.BigEndian.Uint32(start[12:])
}

func (b *block) at(off uint32) netip.Addr {
	raw := b.rng.Addr().As16()
	binary.BigEndian.PutUint32(raw[12:], binary.BigEndian.Uint32(raw[12:])+off)
	a := netip.AddrFrom16(raw)
	if b.rng.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// search finds the first free address from an offset on. It looks a word at a
// time: a /16 costs a thousand steps at most.
func (b *block) search(from uint32) (uint32, bool) {
	if b.free == 0 {
		return 0, false
	}
	for w := from / 64; w < uint32(len(b.used)); w++ {
		vacant := ^b.used[w]
		if w == from/64 {
			vacant &= ^uint64(0) << (from % 64)
		}
		if vacant == 0 {
			continue
		}
		off := w*64 + uint32(bits.TrailingZeros64(vacant))
		return off, off < b.size
	}
	return 0, false
}

func (b *block) take(off uint32) bool {
	w, bit := off/64, uint64(1)<<(off%64)
	if b.used[w]&bit != 0 {
		return false
	}
	b.used[w] |= bit
	b.free--
	return true
}

func (b *block) release(off uint32) {
	w, bit := off/64, uint64(1)<<(off%64)
	if b.used[w]&bit != 0 {
		b.used[w] &^= bit
		b.free++
	}
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
