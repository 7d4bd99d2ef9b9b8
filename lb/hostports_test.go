package lb

import (
	"fmt"
	"slices"
	"testing"

	"shoal/internal/api"
)

// ownTask gives a node a task that publishes a port in host mode, and serves.
func ownTask(s *api.NodeState, published uint16, at ...api.Attachment) {
	ports := []api.Port{{Protocol: "tcp", Target: 80, Published: published}}
	s.Tasks = map[string]*api.Assignment{"own": {Task: &api.Task{Meta: api.Meta{ID: "own"}, NodeID: "n1", Networks: at}, Revision: &api.Revision{}}}
	s.Endpoints["own"] = &api.Endpoint{ServiceID: "own", Backends: []api.Backend{
		{TaskID: "another", NodeID: "n2", Networks: []api.Attachment{attach("web", "10.0.1.99/24")}, Ports: ports},
		{TaskID: "own", NodeID: "n1", Networks: at, Ports: ports},
	}}
}

func TestHostPorts(t *testing.T) {
	web, shut := attach("web", "10.0.1.8/24"), attach("shut", "10.0.2.8/24")
	for name, c := range map[string]struct {
		published uint16
		at        []api.Attachment
		change    func(*api.NodeState)
		want      []string
	}{
		"served":        {7000, []api.Attachment{web}, nil, []string{"tcp 7000 -> [10.0.1.8] 80"}},
		"not serving":   {7000, []api.Attachment{web}, func(s *api.NodeState) { s.Endpoints["own"].Backends = s.Endpoints["own"].Backends[:1] }, nil},
		"not said yet":  {0, []api.Attachment{web}, nil, nil},
		"internal":      {7000, []api.Attachment{shut}, nil, nil},
		"past internal": {7000, []api.Attachment{shut, web}, nil, []string{"tcp 7000 -> [10.0.1.8] 80"}},
		"told of clients": {
			7000,
			[]api.Attachment{web},
			func(s *api.NodeState) { s.Endpoints["own"].ProxyProtocol = true },
			[]string{"tcp 7000 -> [10.0.1.8] 80 proxy"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &api.NodeState{
				Networks:  map[string]*api.Network{"web": {Meta: api.Meta{ID: "web"}}, "shut": {Meta: api.Meta{ID: "shut"}}},
				Endpoints: map[string]*api.Endpoint{},
			}
			s.Networks["shut"].Spec.Internal = true
			ownTask(s, c.published, c.at...)
			if c.change != nil {
				c.change(s)
			}
			var got []string
			for _, p := range Compile(s, nil).Ports {
				line := fmt.Sprintf("%s %d -> %v %d", p.Protocol, p.Published, p.Backends, p.Target)
				if p.ProxyProtocol {
					line += " proxy"
				}
				got = append(got, line)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestHostPortGivesWay: the mesh holds its ports on every node. Managers keep
// them apart; should they not, all nodes agree.
func TestHostPortGivesWay(t *testing.T) {
	s := small()
	ownTask(s, 9090, attach("web", "10.0.1.9/24")) // the port of service idle, which sorts before own
	table := Compile(s, nil)
	for _, p := range table.Ports {
		if p.Published == 9090 && len(p.Backends) != 0 {
			t.Errorf("the task has the port of a service: %+v", p)
		}
	}
	if !table.Contested {
		t.Error("nobody notices")
	}
}
