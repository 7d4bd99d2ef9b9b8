package scheduler

import (
	"cmp"

	"shoal/internal/api"
)

// Tasks is how many tasks a node has.
func (s *State) Tasks(nodeID string) int {
	if n, ok := s.nodes[nodeID]; ok {
		return n.tasks
	}
	return 0
}

// Better looks for a node where a task would be truly better off than where it
// is, and if there is one counts it there from now on. r is the task's revision.
func (s *State) Better(q Request, t *api.Task, r *api.Revision) (nodeID string, better bool) {
	from, known := s.nodes[t.NodeID]
	if !known || !s.RemoveTask(t.ID) {
		return "", false
	}
	before := s.standing(&q, from)
	nodeID, got, err := s.Pass(q).Place(t)
	if err == nil && nodeID != from.ID {
		to := s.nodes[nodeID]
		s.RemoveTask(t.ID) // to compare both without it
		if s.standing(&q, to).betterThan(before) {
			moved := api.Clone(t)
			moved.NodeID, moved.Generic = nodeID, got
			s.SetTask(moved, r)
			return nodeID, true
		}
	}
	s.SetTask(t, r)
	return "", false
}

// standing is how a node looks to one more task: how many tasks of the service
// its groups have, outermost first, then how many the node itself has, and how
// many of all.
type standing struct {
	groups        []int
	values        []string
	mine, overall int
}

func (s *State) standing(q *Request, n *node) standing {
	st := standing{mine: n.services[q.ServiceID], overall: n.tasks}
	for _, descriptor := range q.Spread {
		st.values = append(st.values, property(n.Node, descriptor))
	}
	for depth := range q.Spread {
		size := 0
		for _, other := range s.services[q.ServiceID] {
			if sameGroup(q.Spread[:depth+1], n, other) {
				size += other.services[q.ServiceID]
			}
		}
		st.groups = append(st.groups, size)
	}
	return st
}

func sameGroup(labels []string, a, b *node) bool {
	for _, l := range labels {
		if property(a.Node, l) != property(b.Node, l) {
			return false
		}
	}
	return true
}

// betterThan is strict, so that nothing is moved for a draw. In another group
// only the groups count.
func (a standing) betterThan(b standing) bool {
	for i := range a.groups {
		if a.values[i] != b.values[i] {
			return a.groups[i] < b.groups[i]
		}
	}
	return cmp.Or(cmp.Compare(a.mine, b.mine), cmp.Compare(a.overall, b.overall)) < 0
}
