package lb

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/api"
)

// TestRelayed leads to each node with tasks once, and never to one that would pass
// a connection on.
func TestRelayed(t *testing.T) {
	node := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	s := &api.NodeState{
		Node: &api.Node{Meta: api.Meta{ID: "n1"}, DataPath: node(1).String()},
		Peers: map[string]api.Peer{
			"n2": {DataPath: node(2)}, "n3": {DataPath: node(3)}, "n4": {DataPath: node(4), Networkless: true}, "n5": {},
		},
		Endpoints: map[string]*api.Endpoint{},
	}
	serve := func(id string, port uint16, on ...string) {
		e := &api.Endpoint{ServiceID: id, ProxyProtocol: true, Ports: []api.Port{
			{Protocol: "tcp", Target: 80, Published: port}, {Protocol: "udp", Target: 53, Published: port}, {Protocol: "tcp", Target: 81},
		}}
		for i, n := range on {
			e.Backends = append(e.Backends, api.Backend{TaskID: fmt.Sprint(id, i), NodeID: n})
		}
		s.Endpoints[id] = e
	}
	serve("a", 8080, "n3", "n2", "n3")
	serve("b", 8081, "n1", "n4", "n5", "unknown")
	serve("c", 8080, "n2") // the first has it
	port := func(protocol string, number uint16, to ...netip.Addr) Port {
		return Port{Protocol: protocol, Published: number, Target: number, Backends: to}
	}
	for name, c := range map[string]struct {
		muted map[string]bool
		want  []Port
	}{
		"all": {nil, []Port{port("tcp", 8080, node(2), node(3)), port("udp", 8080, node(2), node(3)), port("tcp", 8081), port("udp", 8081)}},
		"one is muted": {
			map[string]bool{"n3": true},
			[]Port{port("tcp", 8080, node(2)), port("udp", 8080, node(2)), port("tcp", 8081), port("udp", 8081)},
		},
	} {
		if diff := cmp.Diff(Table{NodeAddr: node(1), Ports: c.want}, Relayed(s, c.muted), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
