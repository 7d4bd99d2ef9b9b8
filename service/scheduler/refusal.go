package scheduler

import "shoal/internal/api"

// Refusal tells why no node would take one more task; "" if one would. Nothing is
// placed.
func (s *State) Refusal(q Request) string {
	var why refusals
	found := false
	s.order.Scan(func(r rank) bool {
		n := s.nodes[r.id]
		no := q.refuses(n)
		if found = no == accepted; !found {
			why.add(no, n, &q)
		}
		return !found
	})
	if found {
		return ""
	}
	return why.explain(&q)
}

// RefusalInstead tells why the node of a task would not take another in its place;
// "" if it would.
func (s *State) RefusalInstead(q Request, gone *api.Task) string {
	n, ok := s.nodes[gone.NodeID]
	if !ok {
		var none refusals
		return none.explain(&q)
	}
	if l, counted := s.loads[gone.ID]; counted && l.nodeID == n.ID {
		s.shift(l, -1)
		defer s.shift(l, 1)
	}
	why := q.refuses(n)
	if why == accepted {
		return ""
	}
	var one refusals
	one.add(why, n, &q)
	return one.explain(&q)
}
