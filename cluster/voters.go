package cluster

import "slices"

// Member is a node as the leader wants raft to see it.
type Member struct {
	NodeID   string
	Manager  bool // it should be one of raft's servers
	CaughtUp bool // it has what this leader has committed, or nearly
}

// Step is one change of raft's membership. One field is set; all empty means
// that there is nothing to do.
type Step struct {
	Add      string // as a non-voter: it receives the log, and counts in no quorum
	Promote  string // to a voter
	Remove   string
	HandOver bool // this leader is to go, and lets another lead first
}

// NextStep compares raft's servers with the members. It goes one step at a
// time, each seen through before the next is planned, so that a quorum of the
// old membership and one of the new always share a server. Servers that are to
// go go first: one that is dead would count in the quorum of every later step.
func NextStep(self string, servers []Server, members []Member) Step {
	wanted := map[string]Member{}
	for _, m := range members {
		if m.Manager {
			wanted[m.NodeID] = m
		}
	}
	for _, s := range servers {
		if _, ok := wanted[s.NodeID]; !ok && s.NodeID != self {
			return Step{Remove: s.NodeID}
		}
	}
	for _, s := range servers {
		if m := wanted[s.NodeID]; !s.Voter && m.CaughtUp {
			return Step{Promote: s.NodeID}
		}
	}
	for _, m := range members {
		known := slices.ContainsFunc(servers, func(s Server) bool { return s.NodeID == m.NodeID })
		if m.Manager && !known {
			return Step{Add: m.NodeID}
		}
	}
	// Last of all this leader itself: only to somebody who can take over.
	if _, ok := wanted[self]; !ok && slices.ContainsFunc(servers, func(s Server) bool { return s.Voter && s.NodeID != self }) {
		return Step{HandOver: true}
	}
	return Step{}
}
