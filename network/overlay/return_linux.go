package overlay

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// Preferences of our routing rules: behind the host's own addresses, before
// anything else, since an answer that takes another way is lost.
const (
	prefPast  = 8301 // packets that no rule of ours concerns skip them all
	prefPeers = 8302
	prefEnd   = 8303
)

// actionNop is FR_ACT_NOP.
const actionNop = 3

// rule is a routing rule in a form that compares.
type rule struct {
	pref        int
	iif         string
	masked      bool // by our bits of the mark
	mark        uint32
	table, jump int
}

// returnRules send what carries a peer's mark to that peer. There is one per
// peer, tried in turn, so everything else passes them by in one step.
func returnRules(s State) map[rule]bool {
	rules := map[rule]bool{}
	peers := s.Tunnel.Peers
	if len(peers) == 0 {
		return rules
	}
	// What came by a tunnel is where it should be. It is marked only for the
	// kernel's check of its sender.
	rules[rule{pref: prefPast, iif: netkit.Tunnel, jump: prefEnd}] = true
	if s.encrypts() {
		rules[rule{pref: prefPast, iif: netkit.EncryptedTunnel, jump: prefEnd}] = true
	}
	rules[rule{pref: prefPast, masked: true, jump: prefEnd}] = true
	for _, p := range peers {
		rules[rule{pref: prefPeers, masked: true, mark: p.Mark, table: int(p.Mark)}] = true
	}
	rules[rule{pref: prefEnd}] = true
	return rules
}

// setRules makes the host's routing rules of ours equal to want.
func setRules(want map[rule]bool) error {
	have, err := netkit.Dump(func() ([]netlink.Rule, error) { return netlink.RuleList(unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list routing rules: %w", err)
	}
	seen := map[rule]bool{}
	for _, h := range have {
		if h.Protocol != uint8(netkit.RouteProtocol) {
			continue
		}
		r, ok := observedRule(h)
		if ok && want[r] && !seen[r] {
			seen[r] = true
			continue
		}
		h.Family = unix.AF_INET
		if err := netlink.RuleDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove routing rule %s: %w", h, err)
		}
	}
	for r := range want {
		if seen[r] {
			continue
		}
		if err := netlink.RuleAdd(r.kernel()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule %d: %w", r.pref, err)
		}
	}
	return nil
}

func (r rule) kernel() *netlink.Rule {
	k := netlink.NewRule()
	k.Family, k.Protocol, k.Priority, k.IifName = unix.AF_INET, uint8(netkit.RouteProtocol), r.pref, r.iif
	if r.masked {
		mask := netkit.MarkMask
		k.Mark, k.Mask = r.mark, &mask
	}
	switch {
	case r.table != 0:
		k.Table = r.table
	case r.jump != 0:
		k.Goto = r.jump
	default:
		k.Type = actionNop
	}
	return k
}

// observedRule is false for what no rule of ours looks like.
func observedRule(h netlink.Rule) (rule, bool) {
	r := rule{pref: h.Priority, iif: h.IifName, mark: h.Mark, table: h.Table, jump: max(h.Goto, 0)}
	if h.Mask != nil {
		if r.masked = true; *h.Mask != netkit.MarkMask {
			return r, false
		}
	}
	return r, h.Src == nil && h.Dst == nil && h.OifName == "" && !h.Invert && h.Tos == 0
}
