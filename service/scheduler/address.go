package scheduler

import "net/netip"

// sameAddress compares a node's address with an address or a CIDR.
func sameAddress(want, have string) bool {
	a, err := netip.ParseAddr(have)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return p.Contains(a)
	}
	w, err := netip.ParseAddr(want)
	return err == nil && w == a
}
