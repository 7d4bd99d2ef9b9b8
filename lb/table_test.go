package lb

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/api"
)

var update = flag.Bool("update", false, "write the golden files")

func attach(network, addr string) api.Attachment {
	return api.Attachment{NetworkID: network, Addr: netip.MustParsePrefix(addr)}
}

// small is a node n1 of a cluster with a few services.
func small() *api.NodeState {
	network := func(id, subnet string, ingress bool) *api.Network {
		n := &api.Network{Meta: api.Meta{ID: id}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(subnet)}}}
		n.Spec.Ingress = ingress
		return n
	}
	return &api.NodeState{
		Node: &api.Node{Meta: api.Meta{ID: "n1"}, DataPath: "192.0.2.1"},
		Networks: map[string]*api.Network{
			"ing": network("ing", "10.0.0.0/24", true), "web": network("web", "10.0.1.0/24", false), "six": network("six", "fd00::/64", false),
		},
		Endpoints: map[string]*api.Endpoint{
			"front": {
				ServiceID: "front", ServiceName: "front",
				VIPs:  []api.VIP{{NetworkID: "ing", Addr: netip.MustParseAddr("10.0.0.2")}, {NetworkID: "web", Addr: netip.MustParseAddr("10.0.1.2")}},
				Ports: []api.Port{{Protocol: "tcp", Target: 80, Published: 8080}, {Protocol: "udp", Target: 53, Published: 53}},
				Backends: []api.Backend{
					{TaskID: "t2", NodeID: "n2", Slot: 2, Networks: []api.Attachment{attach("ing", "10.0.0.9/24"), attach("web", "10.0.1.9/24")}},
					{TaskID: "t1", NodeID: "n1", Slot: 1, Networks: []api.Attachment{attach("ing", "10.0.0.8/24"), attach("web", "10.0.1.8/24"), attach("six", "fd00::8/64")}},
				},
			},
			"back": {
				ServiceID: "back", VIPs: []api.VIP{
					{NetworkID: "web", Addr: netip.MustParseAddr("10.0.1.3")},
					{NetworkID: "elsewhere", Addr: netip.MustParseAddr("10.0.9.3")},
					{NetworkID: "six", Addr: netip.MustParseAddr("fd00::3")},
				},
				Backends: []api.Backend{{TaskID: "t3", NodeID: "n2", Networks: []api.Attachment{attach("web", "10.0.1.10/24")}}},
			},
			"idle": {ServiceID: "idle", Ports: []api.Port{{Protocol: "tcp", Target: 80, Published: 9090}}},
			"zz":   {ServiceID: "zz", Ports: []api.Port{{Protocol: "tcp", Target: 1, Published: 8080}}},
		},
	}
}

func render(t Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s\nsubnets %v\ncontested %t\n", t.NodeAddr, t.Subnets, t.Contested)
	for _, p := range t.Ports {
		fmt.Fprintf(&b, "port %s/%d -> %d on %v\n", p.Protocol, p.Published, p.Target, p.Backends)
	}
	for _, v := range t.VIPs {
		fmt.Fprintf(&b, "vip %s -> %v\n", v.Addr, v.Backends)
	}
	for _, l := range t.Loops {
		fmt.Fprintf(&b, "loop %s -> %s\n", l.From, l.To)
	}
	return b.String()
}

func TestCompile(t *testing.T) {
	for name, tc := range map[string]struct {
		state *api.NodeState
		muted map[string]bool
	}{
		"empty": {state: &api.NodeState{}},
		"small": {state: small()},
		"muted": {state: small(), muted: map[string]bool{"n2": true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := render(Compile(tc.state, tc.muted))
			for range 10 { // maps have no order, tables do
				if again := render(Compile(tc.state, tc.muted)); again != got {
					t.Fatalf("differs from one time to the next:\n%s\n%s", got, again)
				}
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestNodeAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "127.0.0.1": "invalid IP", "0.0.0.0": "invalid IP", "": "invalid IP", "fd00::1": "invalid IP", "host": "invalid IP",
	} {
		if got := nodeAddr(&api.Node{DataPath: addr}).String(); got != want {
			t.Errorf("%q: got %s, want %s", addr, got, want)
		}
	}
}
