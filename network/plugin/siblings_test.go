//go:build linux

package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"shoal/internal/netkit"
)

// first leaves the networks by the one it names.
type first string

func (first) Ask(context.Context, string, netip.Addr) (netip.Prefix, error) {
	return netip.Prefix{}, errors.New("not asked for")
}
func (first) Release(string, netip.Addr)                    {}
func (first) Joined(string, netip.Addr)                     {}
func (f first) WayOut(id string, _ netip.Addr) (bool, bool) { return id == string(f), f != "" }

func (f first) Stranger(id string, _ netip.Addr) bool { return id != string(f) }

// TestPublish refuses ports of who is no task, which nobody would publish.
func TestPublish(t *testing.T) {
	p := New(Config{Socket: filepath.Join(t.TempDir(), "s"), Spec: filepath.Join(t.TempDir(), "j"), StateDir: t.TempDir(), Addresses: first("n1"), Log: zaptest.NewLogger(t)})
	for i := 1; i <= 2; i++ {
		call(t, p, "NetworkDriver.CreateNetwork", fmt.Sprintf(`{"NetworkID":"e%d","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n%d","com.docker.network.driver.mtu":"1400"}}}`, i, i))
		call(t, p, "NetworkDriver.CreateEndpoint", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"p%d","Interface":{"Address":"10.0.%d.7/24"}}`, i, i, i))
		for ports, refused := range map[string]bool{`[{"Proto":6,"Port":80,"HostPort":9000}]`: i == 2, `[]`: false, `null`: false} {
			out := call(t, p, "NetworkDriver.ProgramExternalConnectivity", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"p%d","Options":{"com.docker.network.portmap":%s}}`, i, i, ports))
			if said := fmt.Sprint(out["Err"]); strings.Contains(said, "service create --publish") != refused {
				t.Errorf("network %d, ports %s: %s", i, ports, said)
			}
		}
	}
	if out := call(t, p, "NetworkDriver.ProgramExternalConnectivity", `{"NetworkID":"zz","EndpointID":"zz","Options":{"com.docker.network.portmap":[{"Port":80}]}}`); out["Err"] != nil {
		t.Errorf("an endpoint that is not known: %v", out)
	}
}

// TestWayOut: whichever network is joined first, the default route is on the one
// that it has to be; where nobody says, on the first that has a way out.
func TestWayOut(t *testing.T) {
	for addrs, want := range map[first]string{"n2": "n2", "n3": "n3", "": "n1"} {
		p := New(Config{Socket: filepath.Join(t.TempDir(), "s"), Spec: filepath.Join(t.TempDir(), "j"), StateDir: t.TempDir(), Addresses: addrs, Log: zaptest.NewLogger(t)})
		for i := 1; i <= 3; i++ {
			id, network := fmt.Sprintf("%d%s", i, endpointID[1:]), fmt.Sprintf("n%d", i)
			call(t, p, "NetworkDriver.CreateNetwork", fmt.Sprintf(`{"NetworkID":"e%d","Options":{"com.docker.network.generic":{"com.shoal.network.id":"%s","com.docker.network.driver.mtu":"1400"}}}`, i, network))
			call(t, p, "NetworkDriver.CreateEndpoint", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"%s","Interface":{"Address":"10.0.%d.7/24"}}`, i, id, i))
			out := call(t, p, "NetworkDriver.Join", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"%s","SandboxKey":"/s/out"}`, i, id))
			if out["Gateway"] != nil != (network == want) || out["StaticRoutes"] != nil != (network == want) {
				t.Errorf("to leave by %q, on joining %s: %v", addrs, network, out)
			}
			defer call(t, p, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+id+`"}`)
		}
	}
}

// TestSeveralNetworks: a container on three networks may send from each of its
// addresses by each of its interfaces, for as long as it has them.
func TestSeveralNetworks(t *testing.T) {
	p := newPlugin(t, t.TempDir())
	id := func(i int) string { return fmt.Sprintf("%d%s", i, endpointID[1:]) }
	addr := func(i int) string { return fmt.Sprintf("10.0.%d.7", i) }
	for i := 1; i <= 3; i++ {
		call(t, p, "NetworkDriver.CreateNetwork", fmt.Sprintf(`{"NetworkID":"e%d","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n%d","com.docker.network.driver.mtu":"1400"}}}`, i, i))
		call(t, p, "NetworkDriver.CreateEndpoint", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"%s","Interface":{"Address":"%s/24"}}`, i, id(i), addr(i)))
		out := call(t, p, "NetworkDriver.Join", fmt.Sprintf(`{"NetworkID":"e%d","EndpointID":"%s","SandboxKey":"/s/several"}`, i, id(i)))
		if has := out["StaticRoutes"] != nil; has != (i == 1) {
			t.Errorf("endpoint %d: %v", i, out)
		}
	}
	permitted := func(i, by int) bool {
		return strings.Contains(run(t, "ip route show "+addr(i)), "dev "+netkit.HostIface(id(by))+" ")
	}
	check := func(there ...int) {
		t.Helper()
		for i := 1; i <= 3; i++ {
			for _, by := range there {
				want := false
				for _, k := range there {
					want = want || k == i
				}
				if permitted(i, by) != want {
					t.Errorf("%s by interface %d: %v", addr(i), by, !want)
				}
			}
			if !permitted(i, i) {
				continue
			}
			if got := run(t, "ip route show "+addr(i)); len(there) > 1 && !strings.Contains(got, "dev "+netkit.HostIface(id(i))+" weight 256") {
				t.Errorf("the way to %s: %s", addr(i), got)
			}
		}
	}
	check(1, 2, 3)
	run(t, "ip route flush proto 83 table main")
	p.repair()
	check(1, 2, 3)
	call(t, p, "NetworkDriver.Leave", `{"NetworkID":"e2","EndpointID":"`+id(2)+`"}`)
	check(1, 3)
	p.repair()
	check(1, 3)
	for i := 1; i <= 3; i++ {
		call(t, p, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+id(i)+`"}`)
	}
	if got := run(t, "ip route show proto 83"); strings.Contains(got, "10.0.") {
		t.Errorf("left behind: %s", got)
	}
}
