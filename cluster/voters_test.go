package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNextStep(t *testing.T) {
	voter := func(id string) Server { return Server{NodeID: id, Voter: true} }
	learner := func(id string) Server { return Server{NodeID: id} }
	manager := func(id string) Member { return Member{NodeID: id, Manager: true} }
	ready := func(id string) Member { return Member{NodeID: id, Manager: true, CaughtUp: true} }
	worker := func(id string) Member { return Member{NodeID: id} }
	tests := map[string]struct {
		servers []Server
		members []Member
		want    Step
	}{
		"alone":                                {[]Server{voter("a")}, []Member{ready("a"), worker("w")}, Step{}},
		"a new manager":                        {[]Server{voter("a")}, []Member{ready("a"), manager("b")}, Step{Add: "b"}},
		"still behind":                         {[]Server{voter("a"), learner("b")}, []Member{ready("a"), manager("b")}, Step{}},
		"caught up":                            {[]Server{voter("a"), learner("b")}, []Member{ready("a"), ready("b")}, Step{Promote: "b"}},
		"demoted":                              {[]Server{voter("a"), voter("b")}, []Member{ready("a"), worker("b")}, Step{Remove: "b"}},
		"its node is gone":                     {[]Server{voter("a"), voter("b")}, []Member{ready("a")}, Step{Remove: "b"}},
		"the leader is demoted":                {[]Server{voter("a"), voter("b")}, []Member{worker("a"), ready("b")}, Step{HandOver: true}},
		"the only voter is demoted":            {[]Server{voter("a"), learner("b")}, []Member{worker("a"), manager("b")}, Step{}},
		"the dead go before the new":           {[]Server{voter("a"), voter("b")}, []Member{ready("a"), manager("c")}, Step{Remove: "b"}},
		"the new stand before the leader goes": {[]Server{voter("a"), learner("b")}, []Member{worker("a"), ready("b")}, Step{Promote: "b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := NextStep("a", tt.servers, tt.members); got != tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestStepsArrive carries steps out from random beginnings: there is always a
// voter, and in the end the servers are the managers.
func TestStepsArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		self := "n0"
		servers := []Server{{NodeID: self, Voter: true}}
		members := []Member{}
		managers := 0
		for i := range 6 {
			id := fmt.Sprintf("n%d", i)
			if i > 0 && rapid.Bool().Draw(t, "server") {
				servers = append(servers, Server{NodeID: id, Voter: rapid.Bool().Draw(t, "voter")})
			}
			if rapid.Bool().Draw(t, "member") {
				m := Member{NodeID: id, Manager: rapid.Bool().Draw(t, "manager"), CaughtUp: true}
				members = append(members, m)
				if m.Manager {
					managers++
				}
			}
		}
		if managers == 0 {
			return // refused before it comes here
		}
		for range 40 {
			s := NextStep(self, servers, members)
			switch {
			case s == Step{}:
				if len(servers) != managers {
					t.Fatalf("stopped at %+v with members %+v", servers, members)
				}
				return
			case s.Add != "":
				servers = append(servers, Server{NodeID: s.Add})
			case s.Promote != "":
				i := slices.IndexFunc(servers, func(x Server) bool { return x.NodeID == s.Promote })
				servers[i].Voter = true
			case s.Remove != "":
				servers = slices.DeleteFunc(servers, func(x Server) bool { return x.NodeID == s.Remove })
			case s.HandOver:
				i := slices.IndexFunc(servers, func(x Server) bool { return x.Voter && x.NodeID != self })
				self = servers[i].NodeID
			}
			if !slices.ContainsFunc(servers, func(x Server) bool { return x.Voter }) {
				t.Fatalf("%+v left no voter", s)
			}
		}
		t.Fatalf("does not end: %+v, members %+v", servers, members)
	})
}
