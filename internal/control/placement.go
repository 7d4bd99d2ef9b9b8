package control

import (
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/service/scheduler"
)

// Warnings says what of a service is accepted, as in Swarm, and can not be done by
// the nodes that there are: one that can may still come, or have its label.
func (c *Control) Warnings(ref string) []string {
	v := c.View()
	s, err := findService(v, ref)
	if err != nil || s.Spec.TaskTemplate.Placement == nil {
		return nil // somebody has removed it meanwhile
	}
	constraints, err := scheduler.ParseConstraints(s.Spec.TaskTemplate.Placement.Constraints)
	if err != nil || len(constraints) == 0 {
		return nil
	}
	unmet := scheduler.Unmet(constraints, v.Nodes.All())
	if len(unmet) == 0 {
		return nil
	}
	what := "the constraint"
	if len(unmet) > 1 {
		what = "all of the constraints"
		if len(unmet) < len(constraints) {
			what = "any of the constraints"
		}
	}
	var names []string
	for _, c := range unmet {
		names = append(names, c.String())
	}
	return []string{fmt.Sprintf("no node meets %s %s now: service %s gets no new task until one does; see 'shoal node ls' and 'shoal explain %s'",
		what, strings.Join(names, ", "), s.Spec.Name, s.Spec.Name)}
}

// validatePlacement refuses what no node can ever meet: Swarm takes a field that
// does not exist and leaves the tasks pending without a word.
func validatePlacement(p *swarm.Placement) error {
	if p == nil {
		return nil
	}
	if _, err := scheduler.ParseConstraints(p.Constraints); err != nil {
		return err
	}
	for _, pref := range p.Preferences {
		if pref.Spread == nil {
			return invalid("placement preference: only spread is known")
		}
		if d := pref.Spread.SpreadDescriptor; !scheduler.IsProperty(d) {
			return invalid("placement preference: spread over %q: no node has that; it is node.labels.<name>, engine.labels.<name>, node.id, node.hostname, node.ip, node.role, node.platform.os or node.platform.arch", d)
		}
	}
	return nil
}
