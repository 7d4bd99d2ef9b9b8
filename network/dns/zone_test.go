package dns

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/miekg/dns"

	"shoal/internal/api"
)

func at(network, addr string, aliases ...string) api.Attachment {
	return api.Attachment{NetworkID: network, Addr: netip.MustParsePrefix(addr + "/24"), Aliases: aliases}
}

func backend(task, node string, slot int, hosts []string, on ...api.Attachment) api.Backend {
	return api.Backend{TaskID: task, NodeID: node, Slot: slot, Networks: on, Hosts: hosts}
}

// world has a service with a virtual address, one without, one without tasks of
// each kind, and one that nobody here may know.
func world() *api.NodeState {
	s := &api.NodeState{
		Tasks: map[string]*api.Assignment{}, Networks: map[string]*api.Network{}, Endpoints: map[string]*api.Endpoint{},
	}
	for id, subnet := range map[string]string{"in": "10.0.0.0/24", "front": "10.0.1.0/24", "back": "10.0.2.0/24", "other": "10.0.3.0/24"} {
		n := &api.Network{Meta: api.Meta{ID: id}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(subnet)}}}
		n.Spec.Name, n.Spec.Ingress = "My_"+id, id == "in"
		s.Networks[id] = n
	}
	task := func(id string, servers []string, on ...api.Attachment) {
		a := &api.Assignment{Task: &api.Task{Meta: api.Meta{ID: id}, Networks: on}, Revision: &api.Revision{}}
		a.Revision.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{DNSConfig: &swarm.DNSConfig{Nameservers: servers}}
		s.Tasks[id] = a
	}
	task("both", nil, at("in", "10.0.0.9"), at("front", "10.0.1.9"), at("back", "10.0.2.9"))
	task("back", []string{"192.0.2.53"}, at("back", "10.0.2.8"))
	task("published", nil, at("in", "10.0.0.8"))
	endpoint := func(e api.Endpoint) { s.Endpoints[e.ServiceID] = &e }
	vip := func(network, addr string) api.VIP {
		return api.VIP{NetworkID: network, Addr: netip.MustParseAddr(addr)}
	}
	endpoint(api.Endpoint{
		ServiceID: "s1", ServiceName: "Web",
		VIPs:  []api.VIP{vip("in", "10.0.0.2"), vip("front", "10.0.1.2")},
		Names: []api.ServiceNames{{NetworkID: "front", Aliases: []string{"www", "shared"}}},
		Backends: []api.Backend{
			backend("t1", "n1", 1, []string{"0123456789ab", "web"}, at("in", "10.0.0.3"), at("front", "10.0.1.3", "old")),
			backend("t2", "n2", 2, []string{"ba9876543210", "second"}, at("in", "10.0.0.4"), at("front", "10.0.1.4")),
		},
	})
	endpoint(api.Endpoint{
		ServiceID: "s2", ServiceName: "db", Names: []api.ServiceNames{{NetworkID: "back", Aliases: []string{"shared"}}, {NetworkID: "front"}},
		Backends: []api.Backend{
			backend("t3", "n1", 1, nil, at("front", "10.0.1.5"), at("back", "10.0.2.5")),
			backend("t4", "n2", 2, nil, at("front", "10.0.1.6"), at("back", "10.0.2.6")),
		},
	})
	endpoint(api.Endpoint{ServiceID: "s3", ServiceName: "idle", VIPs: []api.VIP{vip("front", "10.0.1.20")}, Names: []api.ServiceNames{{NetworkID: "front", Aliases: []string{"lazy"}}}})
	endpoint(api.Endpoint{ServiceID: "s4", ServiceName: "none", Names: []api.ServiceNames{{NetworkID: "back"}}})
	endpoint(api.Endpoint{ServiceID: "s5", ServiceName: "secret", VIPs: []api.VIP{vip("other", "10.0.3.2")}, Backends: []api.Backend{
		backend("t5", "n1", 0, nil, at("other", "10.0.3.3", "hidden")),
	}})
	return s
}

const unknown = "not ours"

// TestNames asks for every kind of name from containers on different networks.
func TestNames(t *testing.T) {
	both, back, published := "10.0.1.9", "10.0.2.8", "10.0.0.8"
	muted := map[string]bool{"n2": true}
	for _, c := range []struct {
		from, name string
		muted      map[string]bool
		want       []string // unknown, or addresses
	}{
		{both, "web", nil, []string{"10.0.1.2"}},
		{"10.0.0.9", "web", nil, []string{"10.0.1.2"}}, // whichever of its addresses asks
		{both, "WEB.", nil, []string{"10.0.1.2"}},
		{both, "web.my_front", nil, []string{"10.0.1.2"}},
		{both, "web.MY_front", nil, []string{"10.0.1.2"}},
		{both, "web.my_back", nil, []string{unknown}},
		{both, "web.my_in", nil, []string{unknown}},
		{both, "www", nil, []string{"10.0.1.2"}},
		{both, "old", nil, []string{"10.0.1.2"}},
		{both, "tasks.web", nil, []string{"10.0.1.3", "10.0.1.4"}},
		{both, "tasks.www.my_front", nil, []string{"10.0.1.3", "10.0.1.4"}},
		{both, "tasks.web", muted, []string{"10.0.1.3"}},
		{both, "web", muted, []string{"10.0.1.2"}},
		{both, "web.1.t1", nil, []string{"10.0.1.3"}},
		{both, "web.2.t2", muted, []string{unknown}},
		{both, "web.1.t1.my_front", nil, []string{"10.0.1.3"}},
		{both, "0123456789ab", nil, []string{"10.0.1.3"}},
		{both, "second", nil, []string{"10.0.1.4"}},
		{both, "second", muted, []string{unknown}},
		{both, "db", nil, []string{"10.0.1.5", "10.0.1.6"}}, // its first network has it
		{both, "db.my_back", nil, []string{"10.0.2.5", "10.0.2.6"}},
		{back, "db", nil, []string{"10.0.2.5", "10.0.2.6"}},
		{back, "tasks.db", nil, []string{"10.0.2.5", "10.0.2.6"}},
		{back, "shared", nil, []string{"10.0.2.5", "10.0.2.6"}},
		{both, "shared", nil, []string{"10.0.1.2"}},
		{both, "idle", nil, []string{"10.0.1.20"}}, // refused there at once, and by the same name later
		{both, "lazy", nil, []string{"10.0.1.20"}},
		{both, "tasks.idle", nil, nil},
		{back, "none", nil, nil},
		{back, "web", nil, []string{unknown}},
		{back, "web.1.t1", nil, []string{unknown}},
		{both, "secret", nil, []string{unknown}},
		{both, "hidden", nil, []string{unknown}},
		{published, "web", nil, []string{unknown}},
		{both, "example.com", nil, []string{unknown}},
		{both, "web.example.com", nil, []string{unknown}},
	} {
		z := Compile(world(), c.muted)
		addrs, known := z.Lookup(z.Askers[netip.MustParseAddr(c.from)], c.name)
		var got []string
		if !known {
			got = []string{unknown}
		}
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s asks for %s (muted %v): %q, want %q", c.from, c.name, c.muted, got, c.want)
		}
	}
	z := Compile(world(), nil)
	if !z.Askers[netip.MustParseAddr(back)].OwnServers || z.Askers[netip.MustParseAddr(both)].OwnServers {
		t.Error("who has name servers of its own is wrong")
	}
	if _, ok := z.Askers[netip.MustParseAddr("10.0.1.3")]; ok {
		t.Error("a task of another node may ask")
	}
}

// TestGuests: containers that are no tasks have names, of which services' go
// before.
func TestGuests(t *testing.T) {
	s := world()
	s.Remotes = map[string]*api.Remote{
		"g1": {TaskID: "g1", NodeID: "n2", Networks: []api.Attachment{at("front", "10.0.1.50")}, Names: []string{"Lodger", "www", "shared-alias"}},
		"g2": {TaskID: "g2", NodeID: "n3", Networks: []api.Attachment{at("front", "10.0.1.51")}, Names: []string{"second-lodger", "shared-alias"}},
		"g3": {TaskID: "g3", NodeID: "n2", Networks: []api.Attachment{at("other", "10.0.3.50")}, Names: []string{"elsewhere"}},
		"g4": {TaskID: "g4", NodeID: "n2", Networks: []api.Attachment{at("front", "10.0.1.52")}},
	}
	for _, c := range []struct {
		name  string
		muted map[string]bool
		want  []string
	}{
		{"lodger", nil, []string{"10.0.1.50"}},
		{"lodger.my_front", nil, []string{"10.0.1.50"}},
		{"www", nil, []string{"10.0.1.2"}},
		{"shared-alias", nil, []string{"10.0.1.50", "10.0.1.51"}},
		{"shared-alias", map[string]bool{"n2": true}, []string{"10.0.1.51"}},
		{"elsewhere", nil, nil},
	} {
		z := Compile(s, c.muted)
		addrs, _ := z.Lookup(z.Askers[netip.MustParseAddr("10.0.1.9")], c.name)
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s (muted %v): %v, want %v", c.name, c.muted, got, c.want)
		}
	}
	z := Compile(s, nil)
	if name, _ := z.Reverse(z.Askers[netip.MustParseAddr("10.0.1.9")], netip.MustParseAddr("10.0.1.50")); name != "Lodger.my_front" {
		t.Errorf("the way back: %q", name)
	}
}

// TestGuestOnTwoNetworks: a container that was connected to a second network finds
// the names of both, from either address; one of another name or node does not.
func TestGuestOnTwoNetworks(t *testing.T) {
	s := world()
	s.Node = &api.Node{Meta: api.Meta{ID: "n1"}}
	s.Remotes = map[string]*api.Remote{
		"g1": {TaskID: "g1", NodeID: s.Node.ID, Networks: []api.Attachment{at("front", "10.0.1.50")}, Names: []string{"c1", "web"}},
		"g2": {TaskID: "g2", NodeID: s.Node.ID, Networks: []api.Attachment{at("other", "10.0.3.50")}, Names: []string{"c1"}},
		"g3": {TaskID: "g3", NodeID: s.Node.ID, Networks: []api.Attachment{at("other", "10.0.3.51")}, Names: []string{"c3", "c1"}},
		"g4": {TaskID: "g4", NodeID: s.Node.ID, Networks: []api.Attachment{at("front", "10.0.1.52")}},
		"g5": {TaskID: "g5", NodeID: "elsewhere", Networks: []api.Attachment{at("front", "10.0.1.53")}, Names: []string{"c3"}},
	}
	s.Networks["other"] = &api.Network{Meta: api.Meta{ID: "other"}}
	z := Compile(s, nil)
	for addr, want := range map[string][]string{
		"10.0.1.50": {"front", "other"}, "10.0.3.50": {"front", "other"}, "10.0.3.51": {"other"}, "10.0.1.52": {"front"}, "10.0.1.53": nil,
	} {
		got := slices.Sorted(slices.Values(z.Askers[netip.MustParseAddr(addr)].Networks))
		if !slices.Equal(got, want) {
			t.Errorf("%s may ask for names of %v, want %v", addr, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	z := Compile(world(), nil)
	both := z.Askers[netip.MustParseAddr("10.0.1.9")]
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int // -1: passed on
		want  []string
	}{
		{"web.", dns.TypeA, dns.RcodeSuccess, []string{"web.\t1\tIN\tA\t10.0.1.2"}},
		{"wEb.", dns.TypeA, dns.RcodeSuccess, []string{"wEb.\t1\tIN\tA\t10.0.1.2"}},
		{"web.", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"web.", dns.TypeMX, dns.RcodeSuccess, nil},
		{"web.", dns.TypeHTTPS, dns.RcodeSuccess, nil},
		{"tasks.idle.", dns.TypeA, dns.RcodeSuccess, nil},
		{"web.", dns.TypeANY, dns.RcodeSuccess, []string{"web.\t1\tIN\tA\t10.0.1.2"}},
		{"nobody.", dns.TypeA, -1, nil},
		{"3.1.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"3.1.0.10.in-addr.arpa.\t1\tIN\tPTR\tWeb.1.t1.my_front."}},
		{"2.1.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"2.1.0.10.in-addr.arpa.\t1\tIN\tPTR\tWeb.my_front."}},
		{"99.1.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, nil},
		{"3.3.0.10.in-addr.arpa.", dns.TypePTR, -1, nil},
		{"1.1.1.in-addr.arpa.", dns.TypePTR, -1, nil},
		{"b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa.", dns.TypePTR, -1, nil},
	} {
		query := new(dns.Msg).SetQuestion(c.name, c.qtype)
		got := z.answer(both, query)
		if c.rcode == -1 || got == nil {
			if c.rcode != -1 || got != nil {
				t.Errorf("%s %s: %v", c.name, dns.TypeToString[c.qtype], got)
			}
			continue
		}
		var rrs []string
		for _, rr := range got.Answer {
			rrs = append(rrs, rr.String())
		}
		if got.Rcode != c.rcode || !slices.Equal(rrs, c.want) || !got.Authoritative || got.Id != query.Id {
			t.Errorf("%s %s: %v", c.name, dns.TypeToString[c.qtype], got)
		}
	}
	if a, ok := reversed("b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa."); !ok || a != netip.MustParseAddr("4321:0:1:2:3:4:567:89ab") {
		t.Errorf("reversed: %v %v", a, ok)
	}
}

// TestShuffle: each address comes first now and then.
func TestShuffle(t *testing.T) {
	z := Compile(world(), nil)
	first := map[string]bool{}
	for range 200 {
		got := z.answer(z.Askers[netip.MustParseAddr("10.0.1.9")], new(dns.Msg).SetQuestion("tasks.web.", dns.TypeA))
		first[got.Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 2 {
		t.Errorf("first were only %v", first)
	}
}
