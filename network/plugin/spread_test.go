//go:build linux

package plugin

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
)

// having is a state in which network n1 has subnets, and another network its own.
func having(subnets ...string) *api.NodeState {
	n := &api.Network{Meta: api.Meta{ID: "n1"}}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, api.Subnet{Prefix: netip.MustParsePrefix(s)})
	}
	other := &api.Network{Meta: api.Meta{ID: "n2"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.2.0.0/24")}}}
	return &api.NodeState{Networks: map[string]*api.Network{"n1": n, "n2": other}}
}

// TestSubnetsOfANetwork: a container has its own on-link by its address and the
// others by routes, those that come later, too, and after a restart of the daemon
// before any manager is heard.
func TestSubnetsOfANetwork(t *testing.T) {
	dir := t.TempDir()
	p := newPlugin(t, dir)
	set := func(s *api.NodeState) {
		t.Helper()
		if err := p.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	set(having("10.0.0.0/29"))
	call(t, p, "NetworkDriver.CreateNetwork", `{"NetworkID":"e1","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1","com.docker.network.driver.mtu":"1400"}},"IPv4Data":[{"Pool":"10.0.0.0/8"}]}`)
	joined := func(id, addr string, ns *nettest.NS, want string) {
		t.Helper()
		where := fmt.Sprintf(`"NetworkID":"e1","EndpointID":"%s"`, id)
		call(t, p, "NetworkDriver.CreateEndpoint", `{`+where+`,"Interface":{"Address":"`+addr+`"}}`)
		t.Cleanup(func() { call(t, p, "NetworkDriver.DeleteEndpoint", `{`+where+`}`) })
		out := call(t, p, "NetworkDriver.Join", `{`+where+`,"SandboxKey":"`+ns.Path()+`"}`)
		if got := fmt.Sprint(out["StaticRoutes"]); strings.Count(got, "Destination") != strings.Count(want, "/") || !strings.Contains(got, "169.254.1.1/32") || out["Err"] != nil {
			t.Errorf("on joining with %s: %v, want routes to %s", addr, out, want)
		}
		ns.Take(netkit.PeerIface(id), "eth7", netip.MustParsePrefix(addr))
	}
	routes := func(ns *nettest.NS, want ...string) {
		t.Helper()
		var out []byte
		ns.Must(func() (err error) {
			out, err = exec.Command("ip", "route").Output()
			return err
		})
		for _, w := range want {
			if !strings.Contains(string(out), w+" dev eth7 ") {
				t.Errorf("no route to %s in:\n%s", w, out)
			}
		}
		if n := strings.Count(string(out), "\n"); n != len(want) {
			t.Errorf("%d routes, want %d:\n%s", n, len(want), out)
		}
	}
	first, second := nettest.NewNS(t), nettest.NewNS(t)
	joined("1"+endpointID[1:], "10.0.0.2/29", first, "169.254.1.1/32")
	routes(first, "10.0.0.0/29")
	for range 2 {
		set(having("10.0.0.0/29", "10.0.7.0/29"))
		routes(first, "10.0.0.0/29", "10.0.7.0/29")
	}
	joined("2"+endpointID[1:], "10.0.7.2/29", second, "169.254.1.1/32 10.0.0.0/29")
	set(having("10.0.0.0/29", "10.0.7.0/29", "10.0.9.0/29"))

	p = newPlugin(t, dir)
	first.Must(func() error { return exec.Command("ip", "route", "flush", "root", "10.0.6.0/23").Run() })
	routes(first, "10.0.0.0/29", "10.0.9.0/29")
	p.repair()
	routes(first, "10.0.0.0/29", "10.0.7.0/29", "10.0.9.0/29")
	routes(second, "10.0.7.0/29", "10.0.0.0/29", "10.0.9.0/29")
	p.addrs = generous{} // it does not know subnets, as when no manager was heard
	for asked, want := range map[string]string{
		`"PoolID":"n1@10.0.0.0/8","Address":"10.0.9.3"`:  "10.0.9.3/29",
		`"PoolID":"n1@10.0.0.0/29","Address":"10.0.0.3"`: "10.0.0.3/29",
		`"PoolID":"n9@10.0.0.0/8","Address":"10.99.0.3"`: "10.99.0.3/8",
	} {
		if out := call(t, p, "IpamDriver.RequestAddress", `{`+asked+`}`); out["Address"] != want {
			t.Errorf("%s: %v, want %s", asked, out, want)
		}
	}
}

// giving gives out one address.
type giving struct {
	first
	addr netip.Prefix
}

// TestAddressOfANewSubnet: an engine that knows a network by its pools takes it,
// whichever of them it asked for; one that made the network before it grew would
// not know its container again.
func TestAddressOfANewSubnet(t *testing.T) {
	for pools, says := range map[string]string{
		`{"Pool":"10.0.0.0/24"},{"Pool":"10.7.0.0/16"}`: "10.7.3.4/24",
		`{"Pool":"10.0.0.0/24"}`:                        "it was made here before it grew",
	} {
		p := newPlugin(t, t.TempDir())
		p.addrs = giving{addr: netip.MustParsePrefix("10.7.3.4/24")}
		call(t, p, "NetworkDriver.CreateNetwork", `{"NetworkID":"e1","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1"}},"IPv4Data":[`+pools+`]}`)
		if out := call(t, p, "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24"}`); !strings.Contains(fmt.Sprint(out), says) {
			t.Errorf("with %s: %v, want %q", pools, out, says)
		}
	}
}

func (g giving) Ask(context.Context, string, netip.Addr) (netip.Prefix, error) { return g.addr, nil }
