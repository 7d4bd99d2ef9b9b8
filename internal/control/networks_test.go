package control

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/service"
)

func overlay(name string, changes ...func(*network.CreateRequest)) network.CreateRequest {
	r := network.CreateRequest{Name: name, CreateOptions: network.CreateOptions{Driver: "overlay"}}
	for _, c := range changes {
		c(&r)
	}
	return r
}

func inSubnet(configs ...network.IPAMConfig) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) { r.IPAM = &network.IPAM{Config: configs} }
}

func (w *world) network(req network.CreateRequest) *api.Network {
	w.t.Helper()
	id, err := w.CreateNetwork(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	n, _ := w.View().Networks.Get(id)
	return n
}

func TestNetworkSubnets(t *testing.T) {
	w := newWorld(t)
	first := w.network(overlay("a"))
	if s := first.Subnets[0]; s.Prefix.String() != "10.0.1.0/24" || s.Gateway.String() != "10.0.1.1" || first.VNI != 4097 {
		t.Errorf("%+v", first)
	}
	chosen := w.network(overlay("b", inSubnet(network.IPAMConfig{
		Subnet: "10.0.2.0/24", IPRange: "10.0.2.128/25", Gateway: "10.0.2.254", AuxAddress: map[string]string{"router": "10.0.2.200"},
	}, network.IPAMConfig{Subnet: "192.168.7.0/24"})))
	if s := chosen.Subnets; len(s) != 2 || s[0].Range.String() != "10.0.2.128/25" || s[0].Gateway.String() != "10.0.2.254" ||
		s[0].Aux["router"].String() != "10.0.2.200" || s[1].Gateway.String() != "192.168.7.1" {
		t.Errorf("%+v", s)
	}
	if s := w.network(overlay("c")).Subnets[0]; s.Prefix.String() != "10.0.3.0/24" {
		t.Errorf("cut beside what a user chose: %s", s.Prefix)
	}
	if err := w.RemoveNetwork(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if s := w.network(overlay("d")).Subnets[0]; s.Prefix.String() != "10.0.4.0/24" {
		t.Errorf("the subnet of a removed network must rest: %s", s.Prefix)
	}
	if c := w.View().Cluster(); c.Since == 0 {
		t.Error("a network put updates of the cluster out of sequence")
	}
}

// TestNetworksComeAndGo: ten thousand times, and nothing is left of it.
func TestNetworksComeAndGo(t *testing.T) {
	w := newWorld(t)
	rounds := 10_000
	if testing.Short() {
		rounds = 500
	}
	for i := range rounds {
		n := w.network(overlay("n"))
		if err := w.RemoveNetwork(t.Context(), n.ID); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if n := w.View().Networks.Len(); n != 1 {
		t.Errorf("%d networks are left", n)
	}
	if taken := service.TakenSubnets(w.View()); len(taken) != 1 {
		t.Errorf("%v are taken", taken)
	}
}

func TestPoolsRunOut(t *testing.T) {
	w := newWorld(t)
	c := api.Clone(w.View().Cluster())
	c.DefaultAddrPool, c.SubnetSize = []string{"10.9.0.0/23"}, 24
	w.put(c)
	w.network(overlay("a"))
	w.network(overlay("b"))
	_, err := w.CreateNetwork(t.Context(), overlay("c"))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "10.9.0.0/23") || !strings.Contains(err.Error(), "no free subnet of size 24") {
		t.Errorf("%v", err)
	}
}

// TestRemovedNetworkKeepsItsSubnet: a network may go before its last task has
// stopped. Nobody gets its addresses before that.
func TestRemovedNetworkKeepsItsSubnet(t *testing.T) {
	w := newWorld(t)
	n := w.network(overlay("a"))
	stopping := &api.Task{
		Meta: api.Meta{ID: "t1"}, ServiceID: "gone", NodeID: "node1", DesiredState: swarm.TaskStateRemove,
		Networks: []api.Attachment{{NetworkID: n.ID, Addr: netip.MustParsePrefix("10.0.1.5/24")}},
	}
	stopping.Status.State = swarm.TaskStateRunning
	w.put(stopping)
	if err := w.RemoveNetwork(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateNetwork(t.Context(), overlay("b", inSubnet(network.IPAMConfig{Subnet: "10.0.0.0/16"}))); err == nil {
		t.Error("two networks in one subnet")
	}
	_, err := w.CreateNetwork(t.Context(), overlay("b", inSubnet(network.IPAMConfig{Subnet: "10.0.1.0/25"})))
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "a removed network, on which a task is still stopping") {
		t.Errorf("%v", err)
	}
	stopping = api.Clone(stopping)
	stopping.Status.State = swarm.TaskStateShutdown
	w.put(stopping)
	w.network(overlay("b", inSubnet(network.IPAMConfig{Subnet: "10.0.1.0/25"})))
}

func TestRefusedNetworks(t *testing.T) {
	w := newWorld(t)
	w.network(overlay("there"))
	yes, no := true, false
	for says, req := range map[string]network.CreateRequest{
		"network with name there already exists":                   overlay("there"),
		"none is a pre-defined network":                            overlay("none"),
		"network name cannot be empty":                             overlay(""),
		`name must be valid as a DNS name component: "a b" is not`: overlay("a b"),
		"name must be 63 characters or fewer":                      overlay(strings.Repeat("a", 64)),
		"driver bridge":                                            overlay("x", func(r *network.CreateRequest) { r.Driver, r.Scope = "bridge", "swarm" }),
		"configuration only":                                       overlay("x", func(r *network.CreateRequest) { r.ConfigOnly = true }),
		"configuration of another network":                         overlay("x", func(r *network.CreateRequest) { r.ConfigFrom = &network.ConfigReference{Network: "y"} }),
		"IPv4 cannot be disabled":                                  overlay("x", func(r *network.CreateRequest) { r.EnableIPv4 = &no }),
		"overlay networks with IPv6 are":                           overlay("x", func(r *network.CreateRequest) { r.EnableIPv6 = &yes }),
		"ingress network (ingress1) is already":                    overlay("x", func(r *network.CreateRequest) { r.Ingress = true }),
		"ingress network cannot be attachable":                     overlay("x", func(r *network.CreateRequest) { r.Ingress, r.Attachable = true, true }),
		"IPAM driver foo":                                          overlay("x", func(r *network.CreateRequest) { r.IPAM = &network.IPAM{Driver: "foo"} }),
		"IPAM option bar is":                                       overlay("x", func(r *network.CreateRequest) { r.IPAM = &network.IPAM{Options: map[string]string{"bar": "1"}} }),
		"option com.docker.network.driver.mtu: \"9\"":              overlay("x", func(r *network.CreateRequest) { r.Options = map[string]string{optionMTU: "9"} }),
		"option foo of overlay networks is":                        overlay("x", func(r *network.CreateRequest) { r.Options = map[string]string{"foo": "1"} }),
		"invalid subnet 10.5.0.1/24":                               overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.1/24"})),
		"invalid gateway 10.6.0.1":                                 overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.0/24", Gateway: "10.6.0.1"})),
		"invalid ip-range 10.6.0.0/25":                             overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.0/24", IPRange: "10.6.0.0/25"})),
		"subnet fd00::/64":                                         overlay("x", inSubnet(network.IPAMConfig{Subnet: "fd00::/64"})),
		"127.0.0.0/8 is each host's own loopback":                  overlay("x", inSubnet(network.IPAMConfig{Subnet: "127.0.0.0/24"})),
		"0.0.0.0/8 says":                                           overlay("x", inSubnet(network.IPAMConfig{Subnet: "0.0.0.0/8"})),
		"169.254.0.0/16 is link-local":                             overlay("x", inSubnet(network.IPAMConfig{Subnet: "169.254.1.0/24"})),
		"subnet 224.0.0.0/24: 224.0.0.0/4 is for multicast":        overlay("x", inSubnet(network.IPAMConfig{Subnet: "224.0.0.0/24"})),
		"gateway 10.5.0.0 is the address":                          overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.0/24", Gateway: "10.5.0.0"})),
		"subnet 10.5.0.0/31 is too small":                          overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.0/31"})),
		"subnets 10.5.0.0/16 and 10.5.1.0/24 overlap":              overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.5.0.0/16"}, network.IPAMConfig{Subnet: "10.5.1.0/24"})),
		"subnet 10.0.1.0/26 overlaps 10.0.1.0/24 of network there": overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.0.1.0/26"})),
	} {
		if _, err := w.CreateNetwork(t.Context(), req); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
}

func TestNetworkInUse(t *testing.T) {
	w := newWorld(t)
	n := w.network(overlay("net"))
	on := func(s *swarm.ServiceSpec) { s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "net"}} }
	s := w.create(spec("web", on, publish(ingress(80, 8080))))
	for ref, says := range map[string]string{
		"net": "network net is in use by service web", "ingress": "ingress network cannot be removed because service web depends on it",
	} {
		if err := w.RemoveNetwork(t.Context(), ref); !errdefs.IsFailedPrecondition(err) || err.Error() != says {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if list, err := w.Networks(filters.NewArgs(filters.Arg("dangling", "true"))); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if out, err := w.PruneNetworks(t.Context(), filters.NewArgs()); err != nil || len(out) != 0 {
		t.Errorf("pruned %v, %v", out, err)
	}
	if err := w.RemoveService(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := w.PruneNetworks(t.Context(), filters.NewArgs()); err != nil || len(out) != 1 || out[0] != n.Spec.Name {
		t.Errorf("pruned %v, %v", out, err)
	}
	if err := w.RemoveNetwork(t.Context(), "ingress"); err != nil {
		t.Error(err)
	}
	if _, err := w.CreateService(t.Context(), spec("web", publish(ingress(80, 8080))), ""); err == nil || !strings.Contains(err.Error(), "no ingress network is present") {
		t.Errorf("published without an ingress network: %v", err)
	}
	w.network(overlay("mine", func(r *network.CreateRequest) { r.Ingress = true }))
	w.create(spec("web", publish(ingress(80, 8080))))
}

func TestEncrypted(t *testing.T) {
	for value, want := range map[string]bool{"": true, "true": true, "1": true, "yes": true, "false": false, "0": false} {
		n := &api.Network{}
		n.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.OptionEncrypted: value}}
		if n.Encrypted() != want {
			t.Errorf("%q: %t", value, n.Encrypted())
		}
	}
	if (&api.Network{}).Encrypted() {
		t.Error("nobody asked for it")
	}
}

func TestEncryptedIsSaid(t *testing.T) {
	w := newWorld(t)
	n := w.network(overlay("closed", func(r *network.CreateRequest) { r.Options = map[string]string{api.OptionEncrypted: ""} }))
	if _, told := NetworkResource(n).Options[api.OptionEncrypted]; !n.Encrypted() || !told {
		t.Errorf("%+v", n.Spec)
	}
}

// TestGuestOfAnEncryptedNetwork is refused where its node can not encrypt.
func TestGuestOfAnEncryptedNetwork(t *testing.T) {
	w := newWorld(t)
	n := w.network(overlay("closed", func(r *network.CreateRequest) {
		r.Attachable, r.Options = true, map[string]string{api.OptionEncrypted: ""}
	}))
	var node *api.Node
	for o := range w.View().Nodes.All() {
		node = o
	}
	w.put(func() api.Object { c := api.Clone(node); c.WireGuard = api.WireGuard{Error: "no IPv6"}; return c }())
	if _, err := w.Attach(t.Context(), node.ID, n.ID, netip.Addr{}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no IPv6") {
		t.Errorf("got %v", err)
	}
}

// TestGuestWithoutNetworks is refused where its node can have none.
func TestGuestWithoutNetworks(t *testing.T) {
	w := newWorld(t)
	n := w.network(overlay("open", func(r *network.CreateRequest) { r.Attachable = true }))
	for node := range w.View().Nodes.All() {
		w.put(func() api.Object { c := api.Clone(node); c.Networkless = "no CAP_NET_ADMIN"; return c }())
		if _, err := w.Attach(t.Context(), node.ID, n.ID, netip.Addr{}); !errdefs.IsFailedPrecondition(err) ||
			!strings.Contains(err.Error(), "can attach nothing to network open: no CAP_NET_ADMIN") {
			t.Errorf("got %v", err)
		}
	}
}

// TestSubnetOfAHost: the rules of a network would cut its host off.
func TestSubnetOfAHost(t *testing.T) {
	w := newWorld(t)
	for node := range w.View().Nodes.All() {
		w.put(func() api.Object {
			c := api.Clone(node)
			c.Addr, c.DataPath, c.Description.Hostname = "10.77.0.5:2377", "10.78.0.5", "h1"
			return c
		}())
	}
	for subnet, host := range map[string]string{"10.77.0.0/24": "10.77.0.5", "10.78.0.0/24": "10.78.0.5"} {
		_, err := w.CreateNetwork(t.Context(), overlay("x", inSubnet(network.IPAMConfig{Subnet: subnet})))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "subnet "+subnet+" has the address of node h1 ("+host+")") {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	w.network(overlay("x", inSubnet(network.IPAMConfig{Subnet: "10.79.0.0/24"})))
}

func TestRotateKeys(t *testing.T) {
	w := newWorld(t)
	before := w.View().Cluster()
	if err := w.RotateKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := w.View().Cluster()
	if !after.WireGuardFrom.After(before.WireGuardFrom) || after.Since == 0 {
		t.Errorf("asked for at %s, an update of before is good: %t", after.WireGuardFrom, after.Since != 0)
	}
}

// TestAddressPools: what no container can have an address of is no pool either.
func TestAddressPools(t *testing.T) {
	for _, c := range []struct{ pool, why string }{
		{"10.0.0.0/8", ""},
		{"127.0.0.0/16", "address pool 127.0.0.0/16: 127.0.0.0/8 is each host's own loopback"},
		{"192.0.0.0/2", "224.0.0.0/4 is for multicast"},
		{"10.0.0.0/25", "is smaller than a subnet of size 24"},
		{"fd00::/8", "only IPv4 pools"},
	} {
		switch _, _, err := addressPools([]string{c.pool}, 0); {
		case c.why == "" && err != nil, c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v, want %q", c.pool, err, c.why)
		}
	}
}
