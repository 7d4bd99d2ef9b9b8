//go:build linux

package overlay

import (
	"context"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/netkit/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

var ctx = context.Background()

func network(id string, internal bool, subnets ...string) *api.Network {
	n := &api.Network{Meta: api.Meta{ID: id}}
	n.Spec.Internal = internal
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, api.Subnet{Prefix: netip.MustParsePrefix(s)})
	}
	return n
}

func state(nets ...*api.Network) *api.NodeState {
	s := &api.NodeState{Networks: map[string]*api.Network{}}
	for _, n := range nets {
		s.Networks[n.ID] = n
	}
	return s
}

func TestCompile(t *testing.T) {
	got := Compile(state(
		network("b", true, "10.2.0.0/24"),
		network("a", false, "10.1.1.9/24", "10.1.0.0/24", "fd00::/64", "10.1.0.0/24"),
		network("six", false, "fd01::/64"),
	))
	want := State{Networks: []Network{
		{ID: "a", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.1.1.0/24")}},
		{ID: "b", Internal: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}},
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if got := Compile(&api.NodeState{}); len(got.Networks) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func run(t testing.TB, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// kernel is everything that the overlay might touch, without order.
func kernel(t testing.TB) string {
	t.Helper()
	out := run(t, "nft list ruleset; ip route show table all; iptables -S; cat /proc/sys/net/ipv4/ip_forward")
	lines := strings.FieldsFunc(out, func(r rune) bool { return r == '\n' || r == ',' })
	for i := range lines {
		lines[i] = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[i]), "elements = "))
		lines[i] = strings.TrimSpace(strings.Trim(lines[i], "{}"))
	}
	// Interfaces' own link-local addresses come when the kernel has probed them.
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "local fe80:") })
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var two = state(network("a", false, "10.1.0.0/24", "10.1.1.0/24"), network("b", true, "10.2.0.0/16"))

// TestConverge starts from what other tools and dying daemons leave behind.
func TestConverge(t *testing.T) {
	run(t, "iptables -P INPUT ACCEPT; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP")
	run(t, "echo 0 > /proc/sys/net/ipv4/ip_forward")
	before := kernel(t)
	o := New(zaptest.NewLogger(t))
	if err := o.Set(ctx, two); err != nil {
		t.Fatal(err)
	}
	want := kernel(t)
	for _, must := range []string{"-A DOCKER-USER -i shl+", "local 10.2.0.0/16 dev lo proto 83", "local 169.254.1.1 dev lo"} {
		if !strings.Contains(want, must) {
			t.Errorf("no %q in:\n%s", must, want)
		}
	}
	damage := map[string]string{
		"table gone":          "nft delete table ip shoal_overlay",
		"ruleset flushed":     "nft flush ruleset; iptables -P INPUT ACCEPT; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP",
		"a chain flushed":     "nft flush chain ip shoal_overlay begin_task",
		"a subnet gone":       "nft delete element ip shoal_overlay subnets { 10.2.0.0/16 }",
		"a reach more":        "nft add element ip shoal_overlay reach { 10.1.0.0/24 . 10.2.0.0/16 }",
		"user chain flushed":  "iptables -F DOCKER-USER",
		"user chain reversed": "iptables -D DOCKER-USER 1",
		"names closed":        "iptables -F INPUT",
		"rules in FORWARD":    "iptables -I FORWARD -i shl+ -m comment --comment '" + comment + "' -j ACCEPT",
		"routes gone":         "ip route flush proto 83 table main",
		"gateway gone":        "ip route del local 169.254.1.1 table local",
		"a stale route":       "ip route replace local 10.9.0.0/24 dev lo proto 83 table main",
		"forwarding off":      "echo 0 > /proc/sys/net/ipv4/ip_forward",
	}
	for name, command := range damage {
		t.Run(name, func(t *testing.T) {
			run(t, command)
			o.reconcile(ctx)
			if diff := cmp.Diff(want, kernel(t)); diff != "" {
				t.Errorf("after reconciling:\n%s", diff)
			}
			run(t, command)
			if err := New(zaptest.NewLogger(t)).Set(ctx, two); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, kernel(t)); diff != "" {
				t.Errorf("after a new daemon's start:\n%s", diff)
			}
		})
	}
	if err := o.Set(ctx, state(network("a", false, "10.1.0.0/24"))); err != nil {
		t.Fatal(err)
	}
	if err := o.Set(ctx, two); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, kernel(t)); diff != "" {
		t.Errorf("there and back:\n%s", diff)
	}
	for range 2 {
		if err := o.Clear(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Forwarding is the one thing that stays.
	run(t, "echo 0 > /proc/sys/net/ipv4/ip_forward")
	if diff := cmp.Diff(before, kernel(t)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	run(t, "nft flush ruleset")
}

// TestOwnSubnet keeps the route of a host that lives in a network's subnet.
func TestOwnSubnet(t *testing.T) {
	run(t, "ip link add lan type veth peer name lanp; ip link set lan up; ip link set lanp up; ip addr add 10.2.0.1/16 dev lan")
	t.Cleanup(func() { run(t, "ip link del lan") })
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	if err := o.Set(ctx, two); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "ip route get 10.2.0.77"); !strings.Contains(got, "dev lan") {
		t.Errorf("the host lost its neighbours: %s", got)
	}
}

// TestRun restores the firewall soon after it was flushed.
func TestRun(t *testing.T) {
	o := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = o.Clear(ctx) })
	if err := o.Set(ctx, two); err != nil {
		t.Fatal(err)
	}
	want := kernel(t)
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- o.Run(running) }()
	defer func() { cancel(); <-done }()
	run(t, "nft flush ruleset")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for kernel(t) != want {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not restored:\n%s", cmp.Diff(want, kernel(t)))
		}
	}
}
