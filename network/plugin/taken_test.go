//go:build linux

package plugin

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
)

// generous gives everybody what they name.
type generous struct{ first }

func (generous) Ask(_ context.Context, _ string, want netip.Addr) (netip.Prefix, error) {
	return netip.PrefixFrom(want, want.BitLen()), nil
}

// TestTakenAddress: nobody gets the address of a container that runs, whoever
// they say they are, and also when the driver lost its record. What is half made
// or gone is in nobody's way.
func TestTakenAddress(t *testing.T) {
	dir := t.TempDir()
	begin := func() *Plugin {
		return New(Config{Socket: filepath.Join(dir, "s"), Spec: filepath.Join(dir, "j"), StateDir: dir, Addresses: generous{}, Log: zap.NewNop()})
	}
	p := begin()
	where := `"NetworkID":"e1","EndpointID":"` + endpointID + `"`
	addr := netip.MustParseAddr("10.0.0.7")
	refused := func(want bool, when string) {
		t.Helper()
		out := call(t, p, "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24","Address":"10.0.0.7"}`)
		text, _ := out["Err"].(string)
		if got := strings.Contains(text, "10.0.0.7: Address already in use"); got != want || !want && text != "" {
			t.Errorf("%s: %v, want it refused: %v", when, out, want)
		}
	}
	used := func(want bool, when string) {
		t.Helper()
		in, err := p.InUse()
		if err != nil || in[addr] != want {
			t.Errorf("%s: in use: %v, %v; want %v", when, in, err, want)
		}
	}
	refused(false, "at first")
	call(t, p, "NetworkDriver.CreateNetwork", `{"NetworkID":"e1","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1","com.docker.network.driver.mtu":"1400"}}}`)
	call(t, p, "NetworkDriver.CreateEndpoint", `{`+where+`,"Interface":{"Address":"10.0.0.7/24"}}`)
	refused(false, "before it joined")
	join(t, p)
	refused(false, "before the engine took the interface")
	nettest.NewNS(t).Take(netkit.PeerIface(endpointID), "eth0", netip.PrefixFrom(addr, 24))
	refused(true, "while it runs")
	used(true, "while it runs")

	run(t, "ip route flush 10.0.0.7/32")
	refused(true, "with its route flushed")
	p.repair()
	for name, lose := range map[string]func(path string) error{
		"deleted": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte(`{"Endpoints":{"0`), 0o600) },
	} {
		if err := lose(filepath.Join(dir, "plugin.json")); err != nil {
			t.Fatal(err)
		}
		p = begin()
		if n := len(p.records.endpoints()); n != 0 {
			t.Fatalf("%d endpoints are known from a record that is %s", n, name)
		}
		used(true, name)
		refused(true, name)
	}
	call(t, p, "NetworkDriver.Leave", `{`+where+`}`)
	used(false, "when it left")
	refused(false, "when it left")
}
