package ipam

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestCut(t *testing.T) {
	tests := []struct {
		name   string
		pools  []netip.Prefix
		length int
		used   []netip.Prefix
		last   string
		want   string // "" for none
	}{
		{"first", prefixes("10.0.0.0/8"), 24, nil, "", "10.0.0.0/24"},
		{"second", prefixes("10.0.0.0/8"), 24, prefixes("10.0.0.0/24"), "", "10.0.1.0/24"},
		{"behind the last", prefixes("10.0.0.0/8"), 24, prefixes("10.0.0.0/24"), "10.0.7.0/24", "10.0.8.0/24"},
		{"skips what the user chose", prefixes("10.0.0.0/8"), 24, prefixes("10.0.0.0/20", "10.0.16.128/25"), "", "10.0.17.0/24"},
		{"from the start again", prefixes("10.0.0.0/22"), 24, prefixes("10.0.0.0/24", "10.0.3.0/24"), "10.0.3.0/24", "10.0.1.0/24"},
		{"next pool", prefixes("10.0.0.0/24", "10.9.0.0/23"), 24, prefixes("10.0.0.0/24", "10.9.0.0/24"), "", "10.9.1.0/24"},
		{"back to the first pool", prefixes("10.0.0.0/23", "10.9.0.0/24"), 24, prefixes("10.9.0.0/24"), "10.9.0.0/24", "10.0.0.0/24"},
		{"the last of other pools", prefixes("10.0.0.0/8"), 24, nil, "172.16.0.0/24", "10.0.0.0/24"},
		{"a pool of one", prefixes("10.0.0.0/24"), 24, nil, "10.0.0.0/24", "10.0.0.0/24"},
		{"all taken", prefixes("10.0.0.0/23"), 24, prefixes("10.0.0.0/24", "10.0.1.5/32"), "", ""},
		{"taken as a whole", prefixes("10.0.0.0/16"), 24, prefixes("10.0.0.0/8"), "10.0.4.0/24", ""},
		{"the end of all addresses", prefixes("255.255.255.0/24"), 25, prefixes("255.255.255.0/25"), "", "255.255.255.128/25"},
		{"no pools", nil, 24, nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var last netip.Prefix
			if tt.last != "" {
				last = netip.MustParsePrefix(tt.last)
			}
			got, err := Cut(tt.pools, tt.length, tt.used, last)
			if tt.want == "" {
				if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "no free subnet") {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("%v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// TestCutNeverOverlaps cuts until nothing is left, with ranges of any size in the
// way: no two overlap, and what is left holds no subnet.
func TestCutNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := netip.MustParsePrefix("10.0.0.0/20")
		var used []netip.Prefix
		for range rapid.IntRange(0, 5).Draw(t, "chosen by users") {
			bits := rapid.IntRange(22, 30).Draw(t, "length")
			used = append(used, netip.PrefixFrom(address(number(pool.Addr())+uint64(rapid.IntRange(0, 4095).Draw(t, "offset"))), bits).Masked())
		}
		chosen := len(used)
		last := netip.Prefix{}
		for {
			p, err := Cut([]netip.Prefix{pool}, 24, used, last)
			if err != nil {
				break
			}
			for _, u := range used {
				if u.Overlaps(p) {
					t.Fatalf("%s overlaps %s", p, u)
				}
			}
			used, last = append(used, p), p
		}
		for i := range 16 {
			p := netip.PrefixFrom(address(number(pool.Addr())+uint64(i)*256), 24)
			free := true
			for _, u := range used {
				free = free && !u.Overlaps(p)
			}
			if free {
				t.Fatalf("%s was left, with %v chosen by users", p, used[:chosen])
			}
		}
	})
}
