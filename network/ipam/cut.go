package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Cut finds a subnet of a length that lies in one of the pools and overlaps
// nothing of used. It takes up behind last, the subnet that was cut last, so
// that a freed one rests for as long as the pools have others.
func Cut(pools []netip.Prefix, length int, used []netip.Prefix, last netip.Prefix) (netip.Prefix, error) {
	slots := make([]slot, 0, len(pools))
	for _, p := range pools {
		if p = p.Masked(); p.Addr().Is4() && p.Bits() <= length && length <= 32 {
			slots = append(slots, slot{number(p.Addr()), 1 << (length - p.Bits())})
		}
	}
	size := uint64(1) << (32 - length)
	busy := spans(used)
	first, from := 0, uint64(0)
	for i, s := range slots {
		if a := last.Addr(); last.IsValid() && a.Is4() && number(a) >= s.start && number(a) < s.start+s.count*size {
			first, from = i, (number(a)-s.start)/size+1
		}
	}
	// The pool that it begins in comes twice: its beginning is looked at last.
	for i := 0; len(slots) > 0 && i <= len(slots); i++ {
		if start, ok := slots[(first+i)%len(slots)].free(from, size, busy); ok {
			return netip.PrefixFrom(address(start), length), nil
		}
		from = 0
	}
	var names []string
	for _, p := range pools {
		names = append(names, p.String())
	}
	return netip.Prefix{}, fmt.Errorf("the cluster's address pools (%s) have no free subnet of size %d left: %w",
		strings.Join(names, ", "), length, errdefs.ErrResourceExhausted)
}

// slot is a pool as a row of count subnets.
type slot struct{ start, count uint64 }

// span is a range of addresses, the end not in it.
type span struct{ start, end uint64 }

// spans gives ranges in order, those that touch as one.
func spans(prefixes []netip.Prefix) (out []span) {
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is4() {
			start := number(p.Masked().Addr())
			out = append(out, span{start, start + 1<<(32-p.Bits())})
		}
	}
	slices.SortFunc(out, func(a, b span) int { return int(int64(a.start) - int64(b.start)) })
	joined := out[:0]
	for _, s := range out {
		if n := len(joined); n > 0 && s.start <= joined[n-1].end {
			joined[n-1].end = max(joined[n-1].end, s.end)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

// free finds the first free subnet from the given one on.
func (s slot) free(from, size uint64, busy []span) (uint64, bool) {
	for n := from; n < s.count; {
		start := s.start + n*size
		// The first range that ends behind the start is the only one that may
		// be in the way.
		i, _ := slices.BinarySearchFunc(busy, start, func(b span, at uint64) int {
			if b.end <= at {
				return -1
			}
			return 1
		})
		if i == len(busy) || busy[i].start >= start+size {
			return start, true
		}
		n = max(n+1, (busy[i].end-s.start+size-1)/size)
	}
	return 0, false
}

func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func address(n uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}
