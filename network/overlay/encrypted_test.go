//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
	"shoal/network/wireguard"
)

// closedState has a network a that is encrypted and a network b that is not,
// with a task of each behind every peer.
func closedState(peers ...string) *api.NodeState {
	s := many("192.0.2.1", peers...)
	s.Networks["a"].Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.OptionEncrypted: ""}}
	for id, r := range s.Remotes {
		p := s.Peers[id]
		p.WireGuard.Key = wireguard.Key{byte(p.DataPath.As4()[3])}.String()
		s.Peers[id] = p
		r.Networks[1] = api.Attachment{NetworkID: "b", Addr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, 0, p.DataPath.As4()[3]}), 16)}
	}
	return s
}

func withKeys(s State) State {
	s.Keys = Keys{Private: wireguard.Key{1}, Own: []wireguard.Key{{2}}}
	return s
}

func TestCompileEncrypted(t *testing.T) {
	s := withKeys(Compile(closedState("192.0.2.2", "192.0.2.3")))
	if !s.encrypts() || s.clientsEncrypted() {
		t.Errorf("encrypts: %t, clients: %t", s.encrypts(), s.clientsEncrypted())
	}
	for _, tc := range []struct {
		encrypted bool
		subnet    string
		answers   int
	}{{true, "10.1.0.0/16", 0}, {false, "10.2.0.0/16", 2}} {
		got := s.traffic(tc.encrypted)
		if len(got.remotes) != 2 || len(got.answers) != tc.answers {
			t.Errorf("encrypted %t: %+v", tc.encrypted, got)
		}
		for _, r := range got.remotes {
			if !netip.MustParsePrefix(tc.subnet).Contains(r.Addr) {
				t.Errorf("encrypted %t: %s", tc.encrypted, r.Addr)
			}
		}
	}
	if got := s.subnets(encrypted); !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}) {
		t.Errorf("encrypted subnets: %v", got)
	}
	c := s.wireConfig(1440)
	if c.Port != 4791 || len(c.Peers) != 2 || c.Peers[0].Endpoint != netip.MustParseAddrPort("192.0.2.2:4791") {
		t.Errorf("WireGuard: %+v", c)
	}
	e := s.encryptedEnd(7, 1440)
	if e.device.MTU != 1370 || e.device.VtepDevIndex != 7 || len(e.others) != 2 || e.others[0].addr != wireguard.Address(wireguard.Key{2}) {
		t.Errorf("tunnel: %+v, %+v", e.device, e.others)
	}
}

// TestOthersWithoutKeys leaves them out of the encrypted tunnel, and out of that
// alone.
func TestOthersWithoutKeys(t *testing.T) {
	state := closedState("192.0.2.2", "192.0.2.3")
	for _, key := range []string{"", "no key", "AAAA"} {
		p := state.Peers["peer0"]
		p.WireGuard.Key = key
		state.Peers["peer0"] = p
		s := withKeys(Compile(state))
		if e := s.encryptedEnd(7, 1440); len(e.others) != 1 || e.others[0].hop != netip.MustParseAddr("192.0.2.3") {
			t.Errorf("key %q: the tunnel has %+v", key, e.others)
		}
		if r := s.traffic(true).remotes; len(r) != 1 || r[0].Via != netip.MustParseAddr("192.0.2.3") {
			t.Errorf("key %q: routes to %+v", key, r)
		}
		if len(s.wireConfig(1440).Peers) != 1 || len(s.Tunnel.Peers) != 2 {
			t.Errorf("key %q: %+v", key, s.Tunnel.Peers)
		}
	}
}

// TestTwoRecordsOfANode takes the key of the one that is there, whichever of the
// keys is the larger.
func TestTwoRecordsOfANode(t *testing.T) {
	small, large := wireguard.Key{5}, wireguard.Key{6}
	for name, tc := range map[string]struct {
		first, second api.Peer
		want          wireguard.Key
	}{
		"the larger is down":       {api.Peer{WireGuard: api.WireGuard{Key: large.String()}, Down: true}, api.Peer{WireGuard: api.WireGuard{Key: small.String()}}, small},
		"the smaller is down":      {api.Peer{WireGuard: api.WireGuard{Key: small.String()}, Down: true}, api.Peer{WireGuard: api.WireGuard{Key: large.String()}}, large},
		"one has none, both there": {api.Peer{}, api.Peer{WireGuard: api.WireGuard{Key: small.String()}}, small},
		"one has none, both down":  {api.Peer{Down: true}, api.Peer{WireGuard: api.WireGuard{Key: small.String()}, Down: true}, small},
		"the one there has none":   {api.Peer{WireGuard: api.WireGuard{Key: large.String()}, Down: true}, api.Peer{}, wireguard.Key{}},
	} {
		for _, order := range [][2]api.Peer{{tc.first, tc.second}, {tc.second, tc.first}} {
			state := closedState("192.0.2.2", "192.0.2.2")
			for i, p := range order {
				p.DataPath = netip.MustParseAddr("192.0.2.2")
				state.Peers[fmt.Sprint("peer", i)] = p
			}
			for range 10 { // records come in any order
				if got := Compile(state).Tunnel.Peers; len(got) != 1 || got[0].Key != tc.want {
					t.Fatalf("%s: %+v, want key %s", name, got, tc.want)
				}
			}
		}
	}
}

// TestKeysOfAChange are all accepted, and the one that is used is sent to.
func TestKeysOfAChange(t *testing.T) {
	state := closedState("192.0.2.2")
	used, next, last := wireguard.Key{5}, wireguard.Key{6}, wireguard.Key{7}
	p := state.Peers["peer0"]
	p.WireGuard = api.WireGuard{Key: used.String(), Next: next.String(), Last: last.String()}
	state.Peers["peer0"] = p
	s := withKeys(Compile(state))
	var keys []wireguard.Key
	for _, p := range s.wireConfig(1440).Peers {
		keys = append(keys, p.Key)
	}
	if !slices.Equal(keys, []wireguard.Key{used, next, last}) {
		t.Errorf("accepted: %v", keys)
	}
	if e := s.encryptedEnd(7, 1440); len(e.others) != 1 || e.others[0].addr != wireguard.Address(used) {
		t.Errorf("sends to %+v", e.others)
	}
	later := withKeys(Compile(state))
	later.Keys.Private = wireguard.Key{9}
	if equal(s, later) {
		t.Error("another key of the node's own is no change")
	}
}

// TestNothingToEncrypt has no device: without such a network, without a key and
// without anybody to speak to.
func TestNothingToEncrypt(t *testing.T) {
	if s := withKeys(Compile(many("192.0.2.1", "192.0.2.2"))); s.encrypts() {
		t.Error("without a network")
	}
	if s := Compile(closedState("192.0.2.2")); s.encrypts() {
		t.Error("without a key")
	}
	if s := withKeys(Compile(closedState())); s.encrypts() {
		t.Error("without others")
	}
}

// brokenWire is an encrypted tunnel that can not be made.
type brokenWire struct{}

var errWire = errors.New("no way")

func (brokenWire) Set(wireguard.Config) (int, error) { return 0, errWire }
func (brokenWire) Remove() error                     { return nil }

type someKeys struct{}

func (someKeys) Keys() (wireguard.Key, []wireguard.Key) {
	return wireguard.Key{1}, []wireguard.Key{{2}}
}

// emptyHost has nothing but one interface, and lets nothing be forwarded.
func emptyHost(t *testing.T) {
	run(t, "ip link add lan type veth peer name lanp; ip link set lan up; ip link set lanp up; ip addr add 192.0.2.1/24 dev lan")
	run(t, "nft flush ruleset; iptables -P FORWARD DROP")
	t.Cleanup(func() { run(t, "ip link del lan; nft flush ruleset") })
}

// TestBrokenEncryption leaves plain networks alone, also on a host that was never
// set up.
func TestBrokenEncryption(t *testing.T) {
	emptyHost(t)
	o := New(zaptest.NewLogger(t))
	o.Encrypt(brokenWire{}, someKeys{})
	t.Cleanup(func() { _ = o.Clear(ctx) })
	if err := o.Set(ctx, closedState("192.0.2.2")); !errors.Is(err, errWire) || !errors.Is(o.Broken(), errWire) {
		t.Errorf("got %v, broken: %v", err, o.Broken())
	}
	wantPlain(t)
}

// wantPlain wants what plain networks need.
func wantPlain(t *testing.T) {
	t.Helper()
	got := run(t, "iptables -S; ip route")
	for _, want := range []string{"-A FORWARD -i shl+ ", "-A FORWARD -o shl+ ", "-A FORWARD -i shoal0 ", "-A INPUT -d 169.254.1.1/32 -i shl+ -p udp", "10.2.0.2 via 192.0.2.2 dev shoal0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

// TestNoIPv6Firewall is a host whose ip6tables does nothing but fail: that is an
// error where encrypted networks need it, and keeps nothing else from working.
func TestNoIPv6Firewall(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ip6tables"), []byte("#!/bin/sh\necho no IPv6 here >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	emptyHost(t)
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	if err := o.Set(ctx, closedState("192.0.2.2")); err != nil { // it has no keys
		t.Error(err)
	}
	wantPlain(t)
	if err := o.Clear(ctx); err != nil {
		t.Error(err)
	}
	if got := run(t, "iptables -S"); strings.Contains(got, "shoal") {
		t.Errorf("left behind: %s", got)
	}
	o.Encrypt(brokenWire{}, someKeys{})
	if err := o.Set(ctx, closedState("192.0.2.2")); !errors.Is(err, errNoListing) || !strings.Contains(err.Error(), "no IPv6 here") {
		t.Errorf("with an encrypted network: %v", err)
	}
	wantPlain(t)
}

// TestBar keeps containers in until the first state, and no longer.
func TestBar(t *testing.T) {
	outside, container := nettest.NewNS(t), nettest.NewNS(t)
	outside.Connect("out", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.9/24"))
	container.Connect(netkit.IfacePrefix+"bar", netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.1.0.9/24"))
	run(t, "nft flush ruleset; echo 1 > /proc/sys/net/ipv4/ip_forward")
	heard := outside.ListenUDP("192.0.2.9:7777")
	t.Cleanup(func() { _ = heard.Close() })
	says := func(word string, out bool) {
		t.Helper()
		speaks(t, container, heard, "192.0.2.9:7777", word, out)
	}
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	says("not barred yet", true)
	if err := o.Bar(); err != nil {
		t.Fatal(err)
	}
	says("barred", false)
	if err := o.Set(ctx, many("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	says("open", true)
	open := kernel(t)
	if err := New(zaptest.NewLogger(t)).Bar(); err != nil {
		t.Fatal(err)
	}
	if now := kernel(t); now != open {
		t.Errorf("a daemon that starts takes away what is there: from\n%s\nto\n%s", open, now)
	}
	says("still open", true)
}

// speaks wants a word of a container's to get out, or not to.
func speaks(t *testing.T, container *nettest.NS, heard net.PacketConn, to, word string, out bool) {
	t.Helper()
	container.Must(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		_, err = c.Write([]byte(word))
		return errors.Join(err, c.Close())
	})
	wait := 300 * time.Millisecond
	if out {
		wait = 20 * time.Second
	}
	_ = heard.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 100)
	n, _, err := heard.ReadFrom(buf)
	if (err == nil) != out || out && string(buf[:n]) != word {
		t.Errorf("%s: heard %q, %v", word, buf[:n], err)
	}
}

// TestUnheardOfSubnet keeps in what may be meant for a subnet that an encrypted
// network got lately: nothing but a node's own ignorance makes it look like
// somebody outside.
func TestUnheardOfSubnet(t *testing.T) {
	outside, container := nettest.NewNS(t), nettest.NewNS(t)
	outside.Connect("out", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.9/24"))
	container.Connect(netkit.IfacePrefix+"grown", netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.1.0.9/24"))
	run(t, "nft flush ruleset; echo 1 > /proc/sys/net/ipv4/ip_forward; ip route add 10.0.0.0/8 via 192.0.2.9")
	for _, a := range []string{"10.1.7.9/32", "10.1.8.9/32", "10.77.7.9/32"} {
		outside.Must(func() error { return exec.Command("ip", "addr", "add", a, "dev", "lo").Run() })
	}
	heard := outside.ListenUDP("0.0.0.0:7777")
	t.Cleanup(func() { _ = heard.Close() })
	says := func(to, word string, out bool) {
		t.Helper()
		speaks(t, container, heard, to+":7777", word, out)
	}
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	for _, tc := range []struct {
		name  string
		state *api.NodeState
		near  bool
	}{
		{"a plain network", many("192.0.2.1"), true},
		{"an encrypted one", closedState("10.1.8.9"), false},
		{"one whose user chose its subnet", closedState("10.1.8.9"), true},
	} {
		tc.state.Node.DataPath = "192.0.2.1"
		tc.state.AddrPools = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		if tc.near && tc.state.Networks["a"].Encrypted() {
			tc.state.Networks["a"].Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: "10.1.0.0/24"}}}
		}
		if err := o.Set(ctx, tc.state); err != nil {
			t.Fatal(err)
		}
		says("10.1.7.9", tc.name+": in its grounds", tc.near)
		says("10.77.7.9", tc.name+": elsewhere in the pools", true)
		says("10.1.8.9", tc.name+": another node", true)
	}
}

// TestZonesOfBothTunnels takes a node for the same one by whichever tunnel it
// sends.
func TestZonesOfBothTunnels(t *testing.T) {
	s := Compile(closedState("192.0.2.2", "192.0.2.3"))
	elements := zones(s.Tunnel.Peers).Sets[0].Elements
	for _, p := range s.Tunnel.Peers {
		plain, known := elements[netkit.ElementID{Key: string(netkit.TunnelMAC(p.Addr))}]
		closed, also := elements[netkit.ElementID{Key: string(netkit.EncryptedMAC(p.Addr))}]
		if !known || !also || plain.Data != closed.Data {
			t.Errorf("%s: %x (%t) and %x (%t)", p.Addr, plain.Data, known, closed.Data, also)
		}
	}
	if len(elements) != 4 {
		t.Errorf("%d elements", len(elements))
	}
}
