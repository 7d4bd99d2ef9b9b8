package control

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/service/scheduler"
)

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
