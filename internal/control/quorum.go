package control

import "fmt"

// Rest is what is left of the managers without one of them.
type Rest struct {
	Managers, Reachable int
	Present             bool // the one that goes can be reached, too
}

// Quorum is how many of them it takes to agree on anything.
func (r Rest) Quorum() int { return r.Managers/2 + 1 }

// Works tells whether they can agree.
func (r Rest) Works() bool { return r.Reachable >= r.Quorum() }

// Says describes the rest, and what to do while it does not work.
func (r Rest) Says() string {
	says := fmt.Sprintf("of the %d other managers %d can be reached and %d are needed", r.Managers, r.Reachable, r.Quorum())
	if r.Managers == 1 {
		says = "the one other manager can not be reached"
	}
	// Managers can be demoted while all of them together have a quorum.
	all := Rest{Managers: r.Managers + 1, Reachable: r.Reachable}
	if r.Present {
		all.Reachable++
	}
	if all.Works() {
		return says + ". Bring managers back, promote others, or demote those that are lost, first"
	}
	return says + `. Bring managers back first; if they are lost for good, go on without them with "shoal swarm init --force-new-cluster"`
}
