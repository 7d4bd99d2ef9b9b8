package nft

import (
	"maps"
	"slices"
	"strconv"

	"github.com/google/nftables/expr"

	"shoal/internal/netkit"
	"shoal/lb"
)

// content is what services put into the kernel: elements, by the name of their
// set, and the numbers of backends that occur, which need a chain each.
type content struct {
	elements  map[string]netkit.Elements
	portSizes map[int]bool
	vipSizes  map[int]bool
}

func contentOf(t lb.Table) content {
	c := content{
		elements: map[string]netkit.Elements{
			mapPorts: {}, mapVIPs: {}, mapPortTo: {}, mapVIPTo: {}, setLoops: {}, setClosed: {},
		},
		portSizes: map[int]bool{}, vipSizes: map[int]bool{},
	}
	for _, p := range t.Ports {
		proto, ok := protocols[p.Protocol]
		if !ok {
			continue
		}
		key := netkit.ProtoKey(proto) + netkit.PortKey(p.Published)
		n := len(p.Backends)
		if n == 0 {
			c.elements[mapPorts].Add(netkit.Element{Key: key, Goto: chainNone})
			c.elements[setClosed].Add(netkit.Element{Key: key})
			continue
		}
		c.portSizes[n] = true
		c.elements[mapPorts].Add(netkit.Element{Key: key, Goto: portChain(n)})
		for i, b := range p.Backends {
			c.elements[mapPortTo].Add(netkit.Element{
				Key: key + netkit.IndexKey(uint32(i)), Data: netkit.AddrKey(b) + netkit.PortKey(p.Target),
			})
		}
	}
	for _, v := range t.VIPs {
		key, n := netkit.AddrKey(v.Addr), len(v.Backends)
		if n == 0 {
			c.elements[mapVIPs].Add(netkit.Element{Key: key, Goto: chainNone})
			continue
		}
		c.vipSizes[n] = true
		c.elements[mapVIPs].Add(netkit.Element{Key: key, Goto: vipChain(n)})
		for i, b := range v.Backends {
			c.elements[mapVIPTo].Add(netkit.Element{Key: key + netkit.IndexKey(uint32(i)), Data: netkit.AddrKey(b)})
		}
	}
	for _, l := range t.Loops {
		c.elements[setLoops].Add(netkit.Element{Key: netkit.AddrKey(l.From) + netkit.AddrKey(l.To)})
	}
	return c
}

func portChain(n int) string { return "port" + strconv.Itoa(n) }
func vipChain(n int) string  { return "vip" + strconv.Itoa(n) }

// chains choose one of n backends, for each n there is.
func (c content) chains(remember []netkit.Timeouts) []netkit.Chain {
	var out []netkit.Chain
	var first []expr.Any
	for _, t := range remember {
		first = append(first, t.Use()...)
	}
	for _, n := range slices.Sorted(maps.Keys(c.portSizes)) {
		out = append(out, netkit.Chain{Name: portChain(n), Rules: []netkit.Rule{{Why: "one of " + strconv.Itoa(n), Exprs: pickForPort(n, first)}}})
	}
	for _, n := range slices.Sorted(maps.Keys(c.vipSizes)) {
		out = append(out, netkit.Chain{Name: vipChain(n), Rules: []netkit.Rule{{Why: "one of " + strconv.Itoa(n), Exprs: pickForVIP(n, first)}}})
	}
	return out
}
