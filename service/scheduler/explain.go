package scheduler

// Verdict is what one node says to one more task.
type Verdict struct {
	NodeID string
	Why    string // "" if it would take it
}

// Explain asks every node, the least busy first. Nothing is placed.
func (s *State) Explain(q Request) []Verdict {
	out := make([]Verdict, 0, len(s.nodes))
	s.order.Scan(func(r rank) bool {
		n := s.nodes[r.id]
		v := Verdict{NodeID: n.ID}
		if why := q.refuses(n); why != accepted {
			var one refusals
			one.add(why, n, &q)
			v.Why = one.phrase(why, &q, "")
			switch said := n.Status.Message; {
			case said == "":
			case why == notReady:
				v.Why += ": " + said
			case why == noEngine:
				v.Why = said
			}
		}
		out = append(out, v)
		return true
	})
	return out
}
