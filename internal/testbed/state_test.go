package testbed

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFreeSubnet(t *testing.T) {
	first, err := freeSubnet("dev", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Bits() != 24 || !netip.MustParsePrefix("10.192.0.0/10").Contains(first.Addr()) {
		t.Errorf("subnet %s", first)
	}
	if again, _ := freeSubnet("dev", nil); again != first {
		t.Errorf("the same name gives %s, then %s", first, again)
	}
	// A wider route covers it as well.
	second, err := freeSubnet("dev", []netip.Prefix{netip.PrefixFrom(first.Addr(), 20).Masked()})
	if err != nil {
		t.Fatal(err)
	}
	if netip.PrefixFrom(first.Addr(), 20).Masked().Overlaps(second) {
		t.Errorf("%s is taken", second)
	}
	if _, err := freeSubnet("dev", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Error("found a subnet where all are taken")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{Name: "", Hosts: 1},
		{Name: "../etc", Hosts: 1},
		{Name: "UPPER", Hosts: 1},
		{Name: strings.Repeat("x", 32), Hosts: 1},
		{Name: "dev", Hosts: 0},
		{Name: "dev", Hosts: maxHosts + 1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
}

// The longest names a bed can have still give sockets and links that the
// kernel accepts.
func TestNamesFit(t *testing.T) {
	bed, err := New(Config{Name: strings.Repeat("x", 31), Hosts: maxHosts})
	if err != nil {
		t.Fatal(err)
	}
	bed.state.Subnet = netip.MustParsePrefix("10.254.255.0/24")
	last := bed.Host(maxHosts - 1)
	if plugin := last.Dir() + "/run/docker/plugins/shoal.sock"; len(plugin) > 107 {
		t.Errorf("%d bytes: %s", len(plugin), plugin)
	}
	for _, link := range []string{last.Name, bed.state.link()} {
		if len(link) > 15 {
			t.Errorf("link name %s is too long", link)
		}
	}
}
