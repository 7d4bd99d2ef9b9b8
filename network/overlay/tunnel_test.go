//go:build linux

package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/netkit"
)

// many is a node among peers, by their addresses, each with one task.
func many(self string, peers ...string) *api.NodeState {
	s := state(network("a", false, "10.1.0.0/24"), network("b", true, "10.2.0.0/16"))
	s.Node = &api.Node{Meta: api.Meta{ID: "self"}, DataPath: self}
	s.DataPathPort = 4790
	s.Peers, s.Remotes = map[string]api.Peer{}, map[string]*api.Remote{}
	for i, p := range peers {
		id := fmt.Sprint("peer", i)
		addr, _ := netip.ParseAddr(p)
		s.Peers[id] = api.Peer{NodeID: id, DataPath: addr}
		s.Remotes[id] = &api.Remote{TaskID: id, NodeID: id, Networks: []api.Attachment{
			{NetworkID: "a", Addr: netip.MustParsePrefix(fmt.Sprintf("10.1.%d.%d/24", i/200, 10+i%200))},
			{NetworkID: "elsewhere", Addr: netip.MustParsePrefix(fmt.Sprintf("10.9.%d.%d/24", i/200, 10+i%200))},
		}}
	}
	return s
}

func TestCompileTunnel(t *testing.T) {
	for name, tc := range map[string]struct {
		state          *api.NodeState
		peers, remotes int
	}{
		"two":                      {many("192.0.2.1", "192.0.2.2", "192.0.2.3"), 2, 2},
		"alone":                    {many("192.0.2.1"), 0, 0},
		"own address unknown":      {many("", "192.0.2.2"), 0, 0},
		"peer's address unknown":   {many("192.0.2.1", "", "192.0.2.3"), 1, 1},
		"peer with our address":    {many("192.0.2.1", "192.0.2.1"), 0, 0},
		"one that left and anew":   {many("192.0.2.1", "192.0.2.2", "192.0.2.2"), 1, 2},
		"address of no tunnel":     {many("192.0.2.1", "127.0.0.1", "0.0.0.0", "fd00::1"), 0, 0},
		"our address is no tunnel": {many("127.0.0.1", "192.0.2.2"), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := Compile(tc.state).Tunnel
			if len(got.Peers) != tc.peers || len(got.Remotes) != tc.remotes {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestMarks gives each of many peers a mark of its own, within the bits that
// are ours, and the same one whoever else there is.
func TestMarks(t *testing.T) {
	var addrs []string
	for i := range 2000 {
		addrs = append(addrs, fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250))
	}
	seen, moved := map[uint32]bool{}, 0
	for _, p := range Compile(many("192.0.2.1", addrs...)).Tunnel.Peers {
		if seen[p.Mark] || p.Mark&^netkit.MarkMask != 0 || p.Mark>>24 == 0 {
			t.Fatalf("%s: mark %#x", p.Addr, p.Mark)
		}
		seen[p.Mark] = true
		if Compile(many("192.0.2.1", p.Addr.String())).Tunnel.Peers[0].Mark != p.Mark {
			moved++
		}
	}
	if moved > 5 {
		t.Errorf("%d marks depend on who else there is", moved)
	}
}

// ways is everything that the tunnel is made of, without order and counters.
func ways(t testing.TB) string {
	t.Helper()
	return kernel(t) + run(t, `ip rule | sort; ip -d -o link show type vxlan | sed 's/^[0-9]*: //'
		bridge fdb show | grep -v 33:33: | grep -v 01:00:5e | sort; ip neigh show nud permanent | sort
		for k in route_localnet src_valid_mark forwarding; do cat /proc/sys/net/ipv4/conf/shoal0/$k 2>/dev/null || true; done`)
}

// TestTunnelConverges starts from what tools and dying daemons leave behind.
func TestTunnelConverges(t *testing.T) {
	run(t, "ip link add lan type veth peer name lanp; for i in lan lanp; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done; ip link set lan up; ip link set lanp up; ip addr add 192.0.2.1/24 dev lan")
	t.Cleanup(func() { run(t, "ip link del lan") })
	o := New(zaptest.NewLogger(t))
	if err := o.Set(ctx, many("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	alone := ways(t)
	if strings.Contains(alone, netkit.Tunnel+" ") || strings.Contains(alone, "fwmark") {
		t.Errorf("a node without peers has a tunnel:\n%s", alone)
	}
	s := many("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
	if err := o.Set(ctx, s); err != nil {
		t.Fatal(err)
	}
	want := ways(t)
	for _, must := range []string{
		"10.1.0.11 via 192.0.2.3 dev shoal0 proto 83 metric 1 onlink", "default via 192.0.2.2 dev shoal0", "id 4096 local 192.0.2.1",
		"dstport 4790", "nolearning", "mtu 1450", "192.0.2.4 dev shoal0 lladdr 02:73:c0:00:02:04 PERMANENT", "-A FORWARD -i shoal0",
		"02:73:c0:00:02:04 dev shoal0 dst 192.0.2.4 self permanent",
	} {
		if !strings.Contains(want, must) {
			t.Errorf("no %q in:\n%s", must, want)
		}
	}
	mark := fmt.Sprintf("%#x", Compile(s).Tunnel.Peers[0].Mark)
	// Differences looks for what is missing, and not for what is too much.
	unseen := map[string]bool{
		"forwarded twice": true, "forwarded by default": true, "neighbour more": true, "route of a dead task": true,
		"a rule twice": true, "sysctls": true, "closed to the tunnel": true,
	}
	for name, command := range map[string]string{
		"device gone":              "ip link del shoal0",
		"device down":              "ip link set shoal0 down",
		"another's device":         "ip link del shoal0; ip link add shoal0 type veth peer name other",
		"device of another number": "ip link del shoal0; ip link add shoal0 type vxlan id 7 dstport 4790 local 192.0.2.1 nolearning",
		"learning":                 "ip link del shoal0; ip link add shoal0 type vxlan id 4096 dstport 4790 local 192.0.2.1",
		"MTU":                      "ip link set shoal0 mtu 1000",
		"MAC":                      "ip link set shoal0 address 02:00:00:00:00:09",
		"forwarding entry gone":    "bridge fdb del 02:73:c0:00:02:04 dev shoal0 dst 192.0.2.4 self",
		"forwarded elsewhere":      "bridge fdb replace 02:73:c0:00:02:04 dev shoal0 dst 192.0.2.66 self",
		"forwarded twice":          "bridge fdb append 02:73:c0:00:02:04 dev shoal0 dst 192.0.2.66 self",
		"forwarded by default":     "bridge fdb append 00:00:00:00:00:00 dev shoal0 dst 192.0.2.66 self",
		"neighbour gone":           "ip neigh del 192.0.2.3 dev shoal0",
		"neighbour of another MAC": "ip neigh replace 192.0.2.3 lladdr 02:00:00:00:00:09 dev shoal0 nud permanent",
		"neighbour more":           "ip neigh replace 192.0.2.77 lladdr 02:00:00:00:00:09 dev shoal0 nud permanent",
		"route gone":               "ip route del 10.1.0.11",
		"route to another node":    "ip route replace 10.1.0.11 via 192.0.2.4 dev shoal0 onlink proto 83 metric 1",
		"route of a dead task":     "ip route replace 10.1.0.99 via 192.0.2.4 dev shoal0 onlink proto 83 metric 1",
		"way back gone":            "ip route flush table $((" + mark + "))",
		"way back to another":      "ip route replace default via 192.0.2.4 dev shoal0 onlink proto 83 table $((" + mark + "))",
		"rules gone":               "while ip rule del protocol 83; do :; done",
		"a rule twice":             "ip rule add pref 8302 fwmark 1/1 table 77 protocol 83",
		"rule to another table":    "ip rule del fwmark " + mark + "/0x7f003fff; ip rule add pref 8302 fwmark " + mark + "/0x7f003fff table 77 protocol 83",
		"sysctls":                  "for k in route_localnet src_valid_mark; do echo 0 > /proc/sys/net/ipv4/conf/shoal0/$k; done",
		"firewall gone":            "nft delete table ip shoal_overlay",
		"a peer's mark gone":       "nft flush map ip shoal_overlay entries",
		"a stranger let in":        "nft add element ip shoal_overlay ends { 192.0.2.66 }",
		"closed to the tunnel":     "iptables -D FORWARD -i shoal0 -m comment --comment '" + comment + "' -j ACCEPT",
	} {
		t.Run(name, func(t *testing.T) {
			if found, err := o.Differences(); err != nil || len(found) > 0 {
				t.Errorf("differences where there are none: %v, %v", found, err)
			}
			run(t, command)
			if found, err := o.Differences(); err != nil || (len(found) > 0) == unseen[name] {
				t.Errorf("found %v, %v", found, err)
			}
			o.reconcile(ctx)
			if diff := cmp.Diff(want, ways(t)); diff != "" {
				t.Errorf("after reconciling:\n%s", diff)
			}
			run(t, command)
			if err := New(zaptest.NewLogger(t)).Set(ctx, s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ways(t)); diff != "" {
				t.Errorf("after a new daemon's start:\n%s", diff)
			}
		})
	}
	for name, between := range map[string]*api.NodeState{
		"peers": many("192.0.2.1", "192.0.2.3"), "addresses": many("192.0.2.1", "192.0.2.9", "192.0.2.3", "192.0.2.2"),
		"self": many("192.0.2.99", "192.0.2.1", "192.0.2.2"), "nobody": many("192.0.2.1"),
	} {
		for _, next := range []*api.NodeState{between, s} {
			if err := o.Set(ctx, next); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, ways(t)); diff != "" {
			t.Errorf("%s changed, there and back:\n%s", name, diff)
		}
	}
	if err := o.Set(ctx, many("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(alone, ways(t)); diff != "" {
		t.Errorf("alone again:\n%s", diff)
	}
	if err := o.Set(ctx, s); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := o.Clear(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if left := ways(t); strings.Contains(left, "shoal") || strings.Contains(left, "proto 83") || strings.Contains(left, "8302") {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestPathMTU follows the way to the peers.
func TestPathMTU(t *testing.T) {
	run(t, "ip link add lan mtu 9000 type veth peer name lanp mtu 9000; for i in lan lanp; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done; ip link set lan up; ip link set lanp up; ip addr add 192.0.2.1/24 dev lan")
	t.Cleanup(func() { run(t, "ip link del lan") })
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	for _, tc := range []struct {
		change string
		mtu    int
	}{
		{"true", 8950},
		{"ip route add 192.0.2.3 dev lan mtu 1400", 1350},
		{"ip route del 192.0.2.3; ip link set lan mtu 1500", 1450},
	} {
		run(t, tc.change)
		if err := o.Set(ctx, many("192.0.2.1", "192.0.2.2", "192.0.2.3")); err != nil {
			t.Fatal(err)
		}
		o.reconcile(ctx)
		if got, err := netkit.ContainerMTU(false); err != nil || got != tc.mtu {
			t.Errorf("%s: MTU %d, %v; want %d", tc.change, got, err, tc.mtu)
		}
	}
}

// TestTunnelComesBack is about the time between a loss and the clock.
func TestTunnelComesBack(t *testing.T) {
	run(t, "ip link add lan type veth peer name lanp; for i in lan lanp; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done; ip link set lan up; ip link set lanp up; ip addr add 192.0.2.1/24 dev lan")
	t.Cleanup(func() { run(t, "ip link del lan") })
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	if err := o.Set(ctx, many("192.0.2.1", "192.0.2.2", "192.0.2.3")); err != nil {
		t.Fatal(err)
	}
	want := ways(t)
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- o.Run(running) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, loss := range []string{"ip link del shoal0", "ip link set shoal0 down", "while ip rule del protocol 83; do :; done"} {
		run(t, loss)
		deadline := time.Now().Add(verifyEvery * 2 / 3)
		for ways(t) != want {
			if time.Now().After(deadline) {
				t.Fatalf("after %s:\n%s", loss, cmp.Diff(want, ways(t)))
			}
		}
	}
}
