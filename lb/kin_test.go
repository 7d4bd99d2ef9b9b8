package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"shoal/internal/api"
)

func TestKin(t *testing.T) {
	got := func(s *api.NodeState) (all []string) {
		for _, k := range Compile(s, nil).Kin {
			all = append(all, fmt.Sprint(k.From, " ", k.To))
		}
		return all
	}
	s := small() // front is on ing and web, and publishes a UDP port
	if all := got(s); !slices.Equal(all, []string{"10.0.1.0/24 10.0.0.8", "10.0.1.0/24 10.0.0.9"}) {
		t.Errorf("through the mesh: %v", all)
	}
	s.Endpoints["front"].Ports = s.Endpoints["front"].Ports[:1]
	if all := got(s); len(all) != 0 {
		t.Errorf("without UDP: %v", all)
	}
	s.Networks["data"] = &api.Network{Meta: api.Meta{ID: "data"}}
	ownTask(s, 7000, attach("web", "10.0.1.20/24"), attach("data", "10.0.7.20/24"))
	if all := got(s); len(all) != 0 {
		t.Errorf("TCP in host mode: %v", all)
	}
	s.Endpoints["own"].Backends[1].Ports[0].Protocol = "udp"
	if all := got(s); !slices.Equal(all, []string{"10.0.7.0/24 10.0.1.20"}) {
		t.Errorf("UDP in host mode: %v", all)
	}
	for _, subnet := range []string{"10.0.7.0/24", "10.0.9.0/24"} {
		s.Networks["data"].Subnets = append(s.Networks["data"].Subnets, api.Subnet{Prefix: netip.MustParsePrefix(subnet)})
	}
	if all := got(s); !slices.Equal(all, []string{"10.0.7.0/24 10.0.1.20", "10.0.9.0/24 10.0.1.20"}) {
		t.Errorf("clients in another subnet of the network: %v", all)
	}
}
