package wireguard

import (
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Config is how the device should be.
type Config struct {
	Private Key
	Own     []Key  // public keys that this node answers to, Private's first
	Port    uint16 // UDP, the same on every node
	MTU     int
	Peers   []Peer // by key
}

// Peer is another node under one of its keys.
type Peer struct {
	Key      Key
	Endpoint netip.AddrPort
}

// plan gives what has to change at a device. Sessions of what stays as it is go
// on. told are the endpoints that the device was given last: one that it knows
// otherwise since, it has from the node itself, which may be behind a router.
func plan(have *wgtypes.Device, want Config, told map[Key]netip.AddrPort) (wgtypes.Config, bool) {
	var c wgtypes.Config
	changed := false
	if have.PrivateKey != want.Private {
		c.PrivateKey, changed = &want.Private, true
	}
	if port := int(want.Port); have.ListenPort != port {
		c.ListenPort, changed = &port, true
	}
	known := make(map[Key]wgtypes.Peer, len(have.Peers))
	for _, p := range have.Peers {
		known[p.PublicKey] = p
	}
	for _, p := range want.Peers {
		h, ok := known[p.Key]
		delete(known, p.Key)
		allowed := []net.IPNet{host(Address(p.Key))}
		next := wgtypes.PeerConfig{PublicKey: p.Key}
		if !ok || !sameNets(h.AllowedIPs, allowed) {
			next.ReplaceAllowedIPs, next.AllowedIPs = true, allowed
		}
		if !ok || told[p.Key] != p.Endpoint && endpoint(h) != p.Endpoint {
			next.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
		}
		if next.AllowedIPs != nil || next.Endpoint != nil {
			c.Peers = append(c.Peers, next)
		}
	}
	for _, p := range have.Peers {
		if _, left := known[p.PublicKey]; left {
			c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
		}
	}
	return c, changed || len(c.Peers) > 0
}

func endpoint(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	at := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

func host(a netip.Addr) net.IPNet {
	return net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func sameNets(a, b []net.IPNet) bool {
	return slices.EqualFunc(a, b, func(x, y net.IPNet) bool { return x.String() == y.String() })
}
