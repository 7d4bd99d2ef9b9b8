//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
	"shoal/lb"
)

func TestMain(m *testing.M) { nettest.Main(m) }

var ctx = context.Background()

// addr is the nth address of the test network.
func addr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// cluster makes a state of many services with some backends each.
func cluster(services, backends int) *api.NodeState {
	s := &api.NodeState{
		Node: &api.Node{Meta: api.Meta{ID: "n1"}},
		Networks: map[string]*api.Network{"ing": {
			Meta: api.Meta{ID: "ing"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}},
		}},
		Endpoints: map[string]*api.Endpoint{},
	}
	s.Networks["ing"].Spec.Ingress = true
	for i := range services {
		id := fmt.Sprintf("service%05d", i)
		s.Endpoints[id] = endpoint(id, i, backends)
	}
	return s
}

func endpoint(id string, i, backends int) *api.Endpoint {
	e := &api.Endpoint{
		ServiceID: id, VIPs: []api.VIP{{NetworkID: "ing", Addr: addr(1<<20 + i)}},
		Ports: []api.Port{{Protocol: "tcp", Target: 80, Published: uint16(i + 1)}},
	}
	for b := range backends {
		e.Backends = append(e.Backends, api.Backend{
			TaskID: fmt.Sprint(id, b), NodeID: "n2",
			Networks: []api.Attachment{{NetworkID: "ing", Addr: netip.PrefixFrom(addr(1<<21+i*64+b), 8)}},
		})
	}
	return e
}

// with gives a copy of a state in which one service has another number of
// backends.
func with(s *api.NodeState, i, backends int) *api.NodeState {
	c := *s
	c.Endpoints = make(map[string]*api.Endpoint, len(s.Endpoints))
	for id, e := range s.Endpoints {
		c.Endpoints[id] = e
	}
	id := fmt.Sprintf("service%05d", i)
	c.Endpoints[id] = endpoint(id, i, backends)
	return &c
}

func BenchmarkColdLoad(b *testing.B) {
	s := cluster(10_000, 3)
	for b.Loop() {
		p := New(zap.NewNop())
		if err := p.Set(ctx, s); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Clear(ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkAdopt(b *testing.B) {
	s := cluster(10_000, 3)
	first := New(zap.NewNop())
	if err := first.Set(ctx, s); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = first.Clear(ctx) })
	for b.Loop() {
		if err := New(zap.NewNop()).Set(ctx, s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChangeOne adds and removes a backend of one service among 10,000.
func BenchmarkChangeOne(b *testing.B) {
	p := New(zap.NewNop())
	s := cluster(10_000, 3)
	if err := p.Set(ctx, s); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Clear(ctx) })
	states := make([]*api.NodeState, 64)
	for i := range states {
		states[i] = with(s, 5000, 3+i%2)
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if err := p.Set(ctx, states[i%len(states)]); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func list(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "-n", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return string(out)
}

func nft(t testing.TB, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, script, out)
	}
}

// TestSetTwice changes nothing the second time, nor after a restart.
func TestSetTwice(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	s := cluster(50, 3)
	if err := p.Set(ctx, s); err != nil {
		t.Fatal(err)
	}
	before := generationOf(t)
	for name, again := range map[string]*Plane{"the same": p, "a new daemon's": New(zaptest.NewLogger(t))} {
		if err := again.Set(ctx, s); err != nil {
			t.Fatal(err)
		}
		if repaired, err := again.table.Verify(); err != nil || repaired {
			t.Errorf("%s: verify: repaired %t, %v", name, repaired, err)
		}
		if after := generationOf(t); after != before {
			t.Errorf("%s plane wrote although nothing changed: generation %d, then %d", name, before, after)
		}
	}
}

func generationOf(t testing.TB) uint32 {
	t.Helper()
	n, err := netkit.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestConverge starts from anything that tools and dying daemons leave behind.
func TestConverge(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	if err := p.Set(ctx, cluster(20, 3)); err != nil {
		t.Fatal(err)
	}
	want := normal(list(t))
	damage := map[string]string{
		"table gone":         "delete table ip shoal_lb",
		"ruleset flushed":    "flush ruleset",
		"rules gone":         "flush table ip shoal_lb",
		"one chain flushed":  "flush chain ip shoal_lb prerouting",
		"elements gone":      "flush map ip shoal_lb port_backends",
		"one element gone":   "delete element ip shoal_lb ports { tcp . 5 }",
		"one element more":   "add element ip shoal_lb closed { udp . 99 }",
		"one rule more":      "add rule ip shoal_lb prerouting drop",
		"rule first":         "insert rule ip shoal_lb prerouting accept",
		"chain more":         "add chain ip shoal_lb stranger",
		"base chain more":    "add chain ip shoal_lb stranger { type filter hook input priority 5; }",
		"set more":           "add set ip shoal_lb stranger { type ipv4_addr; }",
		"policy changed":     "add chain ip shoal_lb input { policy drop; }",
		"another's in place": "delete table ip shoal_lb; table ip shoal_lb { set ports { type ipv4_addr; }; chain x { accept; }; }",
	}
	for name, script := range damage {
		t.Run(name, func(t *testing.T) {
			nft(t, script)
			if repaired, err := p.table.Verify(); err != nil || !repaired {
				t.Errorf("verify: repaired %t, %v", repaired, err)
			}
			if got := normal(list(t)); got != want {
				t.Errorf("after repair:\n%s\nwant:\n%s", got, want)
			}
			nft(t, script)
			if err := New(zaptest.NewLogger(t)).Set(ctx, cluster(20, 3)); err != nil {
				t.Fatal(err)
			}
			if got := normal(list(t)); got != want {
				t.Errorf("after a new daemon's start:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// normal sorts the lines of a listing: sets have no order.
func normal(listing string) string {
	lines := strings.FieldsFunc(listing, func(r rune) bool { return r == '\n' || r == ',' })
	for i := range lines {
		lines[i] = strings.TrimSpace(strings.Trim(strings.TrimSpace(lines[i]), "{}"))
		lines[i] = strings.TrimPrefix(lines[i], "elements = { ")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestRun repairs what somebody flushed well before it would by the clock.
func TestRun(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	if err := p.Set(ctx, cluster(20, 3)); err != nil {
		t.Fatal(err)
	}
	want := normal(list(t))
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(run) }()
	defer func() { cancel(); <-done }()
	for range 3 {
		nft(t, "flush ruleset")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(verifyEvery / 2)
		for normal(list(t)) != want {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("not restored:\n%s", list(t))
			}
		}
	}
}

// TestWalk goes through random tables, and after each the kernel has exactly
// what a fresh load of it would give.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := New(zap.NewNop())
		defer func() { _ = p.Clear(ctx) }()
		table := rapid.Custom(func(r *rapid.T) lb.Table {
			t := lb.Table{Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
			backends := rapid.SliceOfNDistinct(rapid.Custom(func(r *rapid.T) netip.Addr { return addr(rapid.IntRange(1, 9).Draw(r, "a")) }), 0, 6, rapid.ID)
			for i := range rapid.IntRange(0, 5).Draw(r, "ports") {
				t.Ports = append(t.Ports, lb.Port{
					Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(r, "proto"), Published: uint16(80 + i), Target: 80,
					Backends: backends.Draw(r, "backends"),
				})
			}
			for i := range rapid.IntRange(0, 5).Draw(r, "vips") {
				t.VIPs = append(t.VIPs, lb.VIP{Addr: addr(100 + i), Backends: backends.Draw(r, "backends")})
			}
			return t
		})
		var old lb.Table
		for range 6 {
			want := table.Draw(r, "table")
			if err := errors.Join(p.table.Set(ruleset(want, p.remember)), p.forget(staleness(old, want))); err != nil {
				r.Fatal(err)
			}
			old = want
			if repaired, err := p.table.Verify(); err != nil || repaired {
				r.Fatalf("verify: repaired %t, %v", repaired, err)
			}
		}
	})
}

// TestLarge has more elements than fit a message, many times over.
func TestLarge(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	if err := p.Set(ctx, cluster(2000, 4)); err != nil {
		t.Fatal(err)
	}
	out := list(t)
	if n := strings.Count(out, "goto port4"); n != 2000 {
		t.Errorf("%d of 2000 ports are in the kernel", n)
	}
	if n := strings.Count(out, " . 80"); n < 8000 {
		t.Errorf("%d of 8000 targets are in the kernel", n)
	}
	if err := p.Set(ctx, cluster(10, 1)); err != nil {
		t.Fatal(err)
	}
	if repaired, err := p.table.Verify(); err != nil || repaired {
		t.Errorf("verify: repaired %t, %v", repaired, err)
	}
	if err := p.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if out := list(t); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestPatch changes single services at random. What that leaves in the kernel
// is what a new daemon would load.
func TestPatch(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := New(zap.NewNop())
		defer func() { _ = p.Clear(ctx) }()
		s := cluster(40, 2)
		if err := p.Set(ctx, s); err != nil {
			r.Fatal(err)
		}
		for range 5 {
			i := rapid.IntRange(0, 44).Draw(r, "service")
			s = with(s, i, rapid.IntRange(0, 5).Draw(r, "backends"))
			if rapid.Bool().Draw(r, "remove") {
				delete(s.Endpoints, fmt.Sprintf("service%05d", rapid.IntRange(0, 44).Draw(r, "removed")))
			}
			if rapid.IntRange(0, 4).Draw(r, "contest") == 0 {
				s.Endpoints["thief"] = endpoint("thief", 7, 1) // takes another's port and address
			}
			delete(s.Endpoints, "own")
			if port := rapid.SampledFrom([]uint32{0, 9, 7000, 7001}).Draw(r, "host port"); port != 0 { // 9 is a service's, perhaps
				publishing(s, port)
			}
			if err := p.Set(ctx, s); err != nil {
				r.Fatal(err)
			}
			if repaired, err := p.table.Verify(); err != nil || repaired {
				r.Fatalf("verify: repaired %t, %v", repaired, err)
			}
			got := elements(list(t))
			fresh := New(zap.NewNop())
			if err := fresh.Set(ctx, s); err != nil {
				r.Fatal(err)
			}
			if want := elements(list(t)); got != want {
				r.Fatalf("patched, then as loaded:\n%s", cmp.Diff(got, want))
			}
			if _, err := p.table.Verify(); err != nil { // fresh removed the chains that p keeps
				r.Fatal(err)
			}
		}
	})
}

// publishing adds a task of the node that publishes a port on it alone.
func publishing(s *api.NodeState, port uint32) {
	at := []api.Attachment{{NetworkID: "ing", Addr: netip.PrefixFrom(addr(77), 8)}}
	id := fmt.Sprint("own", port) // a task never changes its ports
	a := &api.Assignment{Task: &api.Task{Meta: api.Meta{ID: id}, NodeID: "n1", Networks: at}, Revision: &api.Revision{}}
	a.Revision.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
		{Protocol: "tcp", TargetPort: 80, PublishedPort: port, PublishMode: swarm.PortConfigPublishModeHost},
	}}
	s.Tasks = maps.Clone(s.Tasks)
	if s.Tasks == nil {
		s.Tasks = map[string]*api.Assignment{}
	}
	s.Tasks[id] = a
	s.Endpoints["own"] = &api.Endpoint{ServiceID: "own", Backends: []api.Backend{{TaskID: id, NodeID: "n1", Networks: at}}}
}

// elements is a listing without the chains that a patch does not remove.
func elements(listing string) string {
	var out []string
	for line := range strings.Lines(normal(listing)) {
		if !strings.Contains(line, "one of") && !strings.HasPrefix(line, "chain ") && strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
