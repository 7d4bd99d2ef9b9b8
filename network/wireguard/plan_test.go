package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"
)

// apply is what a device makes of a configuration.
func apply(have wgtypes.Device, c wgtypes.Config) wgtypes.Device {
	if c.PrivateKey != nil {
		have.PrivateKey = *c.PrivateKey
	}
	if c.ListenPort != nil {
		have.ListenPort = *c.ListenPort
	}
	peers := slices.Clone(have.Peers)
	for _, p := range c.Peers {
		i := slices.IndexFunc(peers, func(h wgtypes.Peer) bool { return h.PublicKey == p.PublicKey })
		if p.Remove {
			if i >= 0 {
				peers = slices.Delete(peers, i, i+1)
			}
			continue
		}
		if i < 0 {
			peers, i = append(peers, wgtypes.Peer{PublicKey: p.PublicKey}), len(peers)
		}
		if p.Endpoint != nil {
			peers[i].Endpoint = p.Endpoint
		}
		if p.ReplaceAllowedIPs {
			peers[i].AllowedIPs = nil
		}
		peers[i].AllowedIPs = append(slices.Clone(peers[i].AllowedIPs), p.AllowedIPs...)
	}
	have.Peers = peers
	return have
}

// TestPlan brings a device from any state to any other, and then has nothing
// left to do.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have := wgtypes.Device{}
		told := map[Key]netip.AddrPort{}
		for range rapid.IntRange(1, 4).Draw(t, "states") {
			want := Config{Private: Key{rapid.Byte().Draw(t, "private")}, Port: rapid.Uint16().Draw(t, "port")}
			for i := range 4 {
				if rapid.Bool().Draw(t, "peer") {
					at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.ByteRange(1, 3).Draw(t, "at")}), 4790)
					want.Peers = append(want.Peers, Peer{Key: Key{byte(i)}, Endpoint: at})
				}
			}
			c, _ := plan(&have, want, told)
			have = apply(have, c)
			clear(told)
			for _, p := range want.Peers {
				told[p.Key] = p.Endpoint
			}
			if c, again := plan(&have, want, told); again {
				t.Fatalf("there is always something left to do: %+v", c)
			}
			if have.PrivateKey != want.Private || have.ListenPort != int(want.Port) || len(have.Peers) != len(want.Peers) {
				t.Fatalf("wanted %+v, have %+v", want, have)
			}
			for _, w := range want.Peers {
				i := slices.IndexFunc(have.Peers, func(h wgtypes.Peer) bool { return h.PublicKey == w.Key })
				if i < 0 || endpoint(have.Peers[i]) != w.Endpoint || fmt.Sprint(have.Peers[i].AllowedIPs) != fmt.Sprint([]net.IPNet{host(Address(w.Key))}) {
					t.Fatalf("wanted %+v, have %+v", w, have.Peers)
				}
			}
		}
	})
}

// TestRoamingIsLeftAlone is about a node behind a router: where its packets
// come from is where it is, until managers say that it is elsewhere.
func TestRoamingIsLeftAlone(t *testing.T) {
	said, seen := netip.MustParseAddrPort("10.0.0.1:4790"), netip.MustParseAddrPort("10.0.0.9:1234")
	k := Key{1}
	have := &wgtypes.Device{Peers: []wgtypes.Peer{{PublicKey: k, Endpoint: net.UDPAddrFromAddrPort(seen), AllowedIPs: []net.IPNet{host(Address(k))}}}}
	want := Config{Peers: []Peer{{k, said}}}
	if c, any := plan(have, want, map[Key]netip.AddrPort{k: said}); any {
		t.Errorf("it is moved: %+v", c)
	}
	if c, _ := plan(have, want, map[Key]netip.AddrPort{k: netip.MustParseAddrPort("10.0.0.2:4790")}); len(c.Peers) != 1 || c.Peers[0].Endpoint.AddrPort() != said {
		t.Errorf("managers moved it: %+v", c)
	}
}
