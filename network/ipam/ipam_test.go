package ipam

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"shoal/internal/api"
)

func subnet(prefix, rng, gateway string) api.Subnet {
	s := api.Subnet{Prefix: netip.MustParsePrefix(prefix)}
	if rng != "" {
		s.Range = netip.MustParsePrefix(rng)
	}
	if gateway != "" {
		s.Gateway = netip.MustParseAddr(gateway)
	}
	return s
}

func mustPool(t *testing.T, subnets ...api.Subnet) *Pool {
	t.Helper()
	p, err := New("net", subnets)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// drain takes all addresses of a pool.
func drain(p *Pool) (all []netip.Prefix, err error) {
	for {
		a, err := p.Next()
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
}

func TestPool(t *testing.T) {
	tests := []struct {
		name        string
		subnets     []api.Subnet
		n           int
		first, last string
	}{
		{"small", []api.Subnet{subnet("10.0.0.0/29", "", "10.0.0.1")}, 5, "10.0.0.2/29", "10.0.0.6/29"},
		{"without gateway", []api.Subnet{subnet("10.0.0.0/29", "", "")}, 6, "10.0.0.1/29", "10.0.0.6/29"},
		{"not masked", []api.Subnet{subnet("10.0.0.77/29", "", "")}, 6, "10.0.0.73/29", "10.0.0.78/29"},
		{"range", []api.Subnet{subnet("10.0.0.0/16", "10.0.4.0/30", "10.0.0.1")}, 4, "10.0.4.0/16", "10.0.4.3/16"},
		{"range at the end", []api.Subnet{subnet("10.0.0.0/24", "10.0.0.252/30", "10.0.0.1")}, 3, "10.0.0.252/24", "10.0.0.254/24"},
		{"two hosts", []api.Subnet{subnet("10.0.0.0/31", "", "")}, 2, "10.0.0.0/31", "10.0.0.1/31"},
		{"second subnet", []api.Subnet{subnet("10.0.0.0/30", "", "10.0.0.1"), subnet("10.9.0.0/30", "", "10.9.0.1")}, 2, "10.0.0.2/30", "10.9.0.2/30"},
		{"whole /16", []api.Subnet{subnet("172.16.0.0/16", "", "172.16.0.1")}, 65533, "172.16.0.2/16", "172.16.255.254/16"},
		{"IPv6", []api.Subnet{subnet("fd00::/120", "", "fd00::1")}, 254, "fd00::2/120", "fd00::ff/120"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPool(t, tt.subnets...)
			if p.Free() != tt.n {
				t.Errorf("%d free, want %d", p.Free(), tt.n)
			}
			all, err := drain(p)
			if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), `network "net" has no free address`) {
				t.Errorf("at the end: %v", err)
			}
			if len(all) != tt.n || all[0].String() != tt.first || all[len(all)-1].String() != tt.last {
				t.Errorf("%d addresses from %s to %s", len(all), all[0], all[len(all)-1])
			}
			for _, s := range tt.subnets {
				p.Release(s.Gateway)
				p.Release(s.Prefix.Masked().Addr())
			}
			if s := tt.subnets[0]; s.Gateway.IsValid() && p.Free() != 0 {
				t.Error("a reserved address was released")
			}
		})
	}
}

func TestInvalidSubnets(t *testing.T) {
	for name, s := range map[string]api.Subnet{
		"none":                {},
		"range outside":       subnet("10.0.0.0/24", "10.0.1.0/28", ""),
		"range larger":        subnet("10.0.0.0/24", "10.0.0.0/16", ""),
		"range of other kind": subnet("10.0.0.0/24", "fd00::/120", ""),
	} {
		if _, err := New("net", []api.Subnet{s}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFreedAddressRests(t *testing.T) {
	p := mustPool(t, subnet("10.0.0.0/29", "", "10.0.0.1"))
	first, err := p.Next()
	if err != nil {
		t.Fatal(err)
	}
	p.Release(first.Addr())
	for range 4 {
		a, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if a == first {
			t.Fatal("a freed address came back while others were free")
		}
	}
	if a, err := p.Next(); err != nil || a != first {
		t.Fatalf("with only the freed address left: %v, %v", a, err)
	}
}

// TestFreedAddressRestsWhileOtherSubnetsHaveSome: a pool that grew is one row of
// addresses, not one subnet before the other.
func TestFreedAddressRestsWhileOtherSubnetsHaveSome(t *testing.T) {
	p := mustPool(t, subnet("10.0.0.0/29", "", "10.0.0.1"))
	all, _ := drain(p)
	if err := p.Add(subnet("10.0.9.0/29", "", "10.0.9.1")); err != nil {
		t.Fatal(err)
	}
	p.Release(all[1].Addr())
	more, err := drain(p)
	if len(more) != 6 || more[0].String() != "10.0.9.2/29" || more[5] != all[1] {
		t.Errorf("got %v", more)
	}
	if err == nil || !strings.Contains(err.Error(), "all 10 of 10.0.0.0/29, 10.0.9.0/29 are in use") {
		t.Errorf("%v", err)
	}
	p.Release(all[0].Addr())
	p.Release(more[0].Addr())
	p.Resume(more[1].Addr()) // half of both is in the other one
	if a, err := p.Next(); err != nil || a != more[0] {
		t.Errorf("%v, %v", a, err)
	}
}

func TestHugeIPv6(t *testing.T) {
	p := mustPool(t, subnet("fd00:1::/64", "", "fd00:1::1"))
	a, err := p.Next()
	if err != nil || a.String() != "fd00:1::2/64" {
		t.Fatalf("%v, %v", a, err)
	}
	if far := netip.MustParseAddr("fd00:1::1:0:0:1"); !p.Take(far) {
		t.Error("an address beyond the bound is taken")
	}
}

// TestNeverTwice takes, releases and rebuilds in any order: no address is out
// twice, and the count of free ones is right.
func TestNeverTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nets := []api.Subnet{subnet("10.0.0.0/28", "", "10.0.0.1"), subnet("10.1.0.0/30", "", "10.1.0.1")}
		build := func() *Pool {
			p, err := New("net", nets)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := build()
		total := p.Free()
		var out []netip.Prefix
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 9).Draw(t, "op"); {
			case op < 6:
				a, err := p.Next()
				if err != nil {
					if len(out) != total {
						t.Fatalf("exhausted with %d of %d out", len(out), total)
					}
					continue
				}
				for _, o := range out {
					if o.Addr() == a.Addr() {
						t.Fatalf("%s given twice", a)
					}
				}
				out = append(out, a)
			case op < 9 && len(out) > 0:
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				p.Release(out[i].Addr())
				p.Release(out[i].Addr())
				out = append(out[:i], out[i+1:]...)
			default: // a new leader
				p = build()
				for _, a := range out {
					if !p.Take(a.Addr()) {
						t.Fatalf("%s was not free in a new pool", a)
					}
				}
				if len(out) > 0 {
					p.Resume(out[len(out)-1].Addr())
				}
			}
			if p.Free() != total-len(out) {
				t.Fatalf("%d free, with %d of %d out", p.Free(), len(out), total)
			}
		}
	})
}
