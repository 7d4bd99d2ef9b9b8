package nft

import (
	"fmt"
	"maps"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb"
)

// patchMax is the largest part of the services that is worth a patch; beyond,
// comparing whole tables is as good.
const patchMax = 8

// difference reduces two states to the services that differ. States share what
// did not change, so that comparing pointers is enough; ok is false when
// anything but services differs, or too many do.
func difference(old, now *api.NodeState) (before, after *api.NodeState, ok bool) {
	if !maps.Equal(old.Networks, now.Networks) || !maps.EqualFunc(old.Peers, now.Peers, sameTunnel) || !sameNode(old.Node, now.Node) {
		return nil, nil, false
	}
	b, a := *old, *now
	b.Endpoints, a.Endpoints = map[string]*api.Endpoint{}, map[string]*api.Endpoint{}
	kept := 0
	for id, e := range now.Endpoints {
		was, had := old.Endpoints[id]
		if had {
			kept++
		}
		if was == e {
			continue
		}
		a.Endpoints[id] = e
		if had {
			b.Endpoints[id] = was
		}
	}
	if kept < len(old.Endpoints) {
		for id, e := range old.Endpoints {
			if _, has := now.Endpoints[id]; !has {
				b.Endpoints[id] = e
			}
		}
	}
	return &b, &a, (len(a.Endpoints)+len(b.Endpoints))*patchMax <= len(now.Endpoints)
}

func sameTunnel(a, b api.Peer) bool { return a.DataPath == b.DataPath }

func sameNode(a, b *api.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID && a.DataPath == b.DataPath && a.Status.Addr == b.Status.Addr
}

// patch replaces what some services have in the kernel. Where one takes what
// another holds it changes nothing and gives netkit.ErrTaken.
func (p *Plane) patch(old, now lb.Table) error {
	if now.Contested {
		return netkit.ErrTaken
	}
	del, add := contentOf(old), contentOf(now)
	fresh := content{portSizes: missing(add.portSizes, p.sizes.portSizes), vipSizes: missing(add.vipSizes, p.sizes.vipSizes)}
	if err := p.table.Patch(netkit.Patch{Del: del.elements, Add: add.elements, Chains: fresh.chains(p.remember)}); err != nil {
		return fmt.Errorf("change routing mesh: %w", err)
	}
	maps.Copy(p.sizes.portSizes, fresh.portSizes)
	maps.Copy(p.sizes.vipSizes, fresh.vipSizes)
	return nil
}

func missing(want, have map[int]bool) map[int]bool {
	out := map[int]bool{}
	for n := range want {
		if !have[n] {
			out[n] = true
		}
	}
	return out
}
