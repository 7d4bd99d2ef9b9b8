//go:build linux

package daemon

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"shoal/internal/api"
	"shoal/internal/doctor"
	"shoal/network/wireguard"
)

func TestChangeOfKeys(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	keys := api.WireGuard{Key: "used", Next: "next"}
	for name, tc := range map[string]struct {
		peers map[string]api.Peer
		want  func(*wireguard.Facts)
	}{
		"alone":                {nil, func(*wireguard.Facts) {}},
		"others":               {map[string]api.Peer{"a": {}, "z": {WireGuard: api.WireGuard{Key: "k", Last: "l"}}}, func(*wireguard.Facts) {}},
		"one is down":          {map[string]api.Peer{"a": {}, "z": {Down: true}}, func(f *wireguard.Facts) { f.AllUp = false }},
		"an earlier changes":   {map[string]api.Peer{"a": {WireGuard: keys}}, func(f *wireguard.Facts) { f.Wait = true }},
		"a later changes, too": {map[string]api.Peer{"z": {WireGuard: keys}}, func(*wireguard.Facts) {}},
	} {
		s := &api.NodeState{
			Node:  &api.Node{Meta: api.Meta{ID: "m"}, WireGuard: api.WireGuard{Key: "used", Error: "for people"}, WireGuardSince: now.Add(-time.Hour)},
			Peers: tc.peers, WireGuardFrom: now.Add(-time.Minute),
		}
		want := wireguard.Facts{Now: now, Known: api.WireGuard{Key: "used"}, Since: now.Add(-time.Hour), Older: now.Add(-time.Minute), AllUp: true}
		tc.want(&want)
		if got := changeOfKeys(s, now); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestWhatTheDoctorSeesOfOthers(t *testing.T) {
	then := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	key := func(n byte) wgtypes.Key { return wgtypes.Key{n} }
	at := netip.MustParseAddr("192.0.2.9")
	s := &api.NodeState{Peers: map[string]api.Peer{
		"a": {Hostname: "spoke", DataPath: at, WireGuard: api.WireGuard{Key: key(1).String()}},
		"b": {Hostname: "deaf", DataPath: at, WireGuard: api.WireGuard{Key: key(2).String()}},
		"c": {Hostname: "new", DataPath: at, WireGuard: api.WireGuard{Key: key(3).String()}},
		"d": {Hostname: "unable", DataPath: at, WireGuard: api.WireGuard{Error: "no IPv6"}},
		"e": {Hostname: "down", DataPath: at, Down: true},
	}}
	got := encryptedPeers(s, &wgtypes.Device{Peers: []wgtypes.Peer{
		{PublicKey: key(1), TransmitBytes: 9, LastHandshakeTime: then}, {PublicKey: key(2), TransmitBytes: 9}, {PublicKey: key(3)},
	}})
	want := []doctor.Encrypted{{Name: "deaf", Unsaid: true}, {Name: "new"}, {Name: "spoke", Last: then}, {Name: "unable", NoKey: "no IPv6"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
