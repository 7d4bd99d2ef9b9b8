package control

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Nodes lists the nodes that fit the filters.
func (c *Control) Nodes(f filters.Args) ([]swarm.Node, error) {
	if err := accept(f, "name", "id", "label", "role", "membership", "node.label"); err != nil {
		return nil, err
	}
	for _, r := range f.Get("role") {
		if r != "" && !oneOf(strings.ToLower(r), "worker", "manager") {
			return nil, invalid("Invalid role filter: '%s': must be worker or manager", r)
		}
	}
	for _, m := range f.Get("membership") {
		if m != "" && !oneOf(strings.ToLower(m), "accepted", "pending") {
			return nil, invalid("Invalid membership filter: '%s': must be accepted or pending", m)
		}
	}
	nodes := []swarm.Node{}
	for n := range c.View().Nodes.All() {
		if prefix(f, "name", n.Description.Hostname) && prefix(f, "id", n.ID) &&
			labelled(f, "label", n.Description.Engine.Labels) && labelled(f, "node.label", n.Spec.Labels) &&
			anyOf(f, "role", func(r string) bool { return strings.EqualFold(r, string(n.Spec.Role)) }) &&
			// A node gets its certificate when it joins: none is ever pending.
			anyOf(f, "membership", func(m string) bool { return strings.EqualFold(m, "accepted") }) {
			nodes = append(nodes, c.dockerNode(n))
		}
	}
	return nodes, nil
}

// Node returns one node by ID, hostname or beginning of the ID.
func (c *Control) Node(ref string) (swarm.Node, error) {
	n, err := findNode(c.View(), ref)
	if err != nil {
		return swarm.Node{}, err
	}
	return c.dockerNode(n), nil
}

// UpdateNode replaces a node's spec: labels, availability and role.
func (c *Control) UpdateNode(ctx context.Context, ref string, version uint64, spec swarm.NodeSpec) error {
	if spec.Role == "" {
		spec.Role = swarm.NodeRoleWorker
	}
	if !oneOf(spec.Role, swarm.NodeRoleWorker, swarm.NodeRoleManager) {
		return invalid("invalid Role: %q: --role must be worker or manager", spec.Role)
	}
	if err := normalizeAvailability(&spec.Availability); err != nil {
		return err
	}
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	return c.update(ctx, func(tx *store.Tx) error {
		n, err := findNode(&tx.View, ref)
		if err != nil {
			return err
		}
		if n.Version != version {
			return ErrOutOfSequence
		}
		if n.Spec.Role == swarm.NodeRoleManager && spec.Role == swarm.NodeRoleWorker {
			if err := c.checkDemote(tx, n); err != nil {
				return err
			}
		}
		n = api.Clone(n)
		n.Spec = spec
		return tx.Put(n)
	})
}

// checkDemote refuses what would leave no manager, or managers that can not
// agree any more. It depends on the others staying what they are: two demoted
// at once must not leave none.
func (c *Control) checkDemote(tx *store.Tx, n *api.Node) error {
	rest := Rest{Present: c.members == nil || c.members.Reachable(n.ID)}
	for o := range tx.Nodes.All() {
		if o.ID == n.ID || o.Spec.Role != swarm.NodeRoleManager {
			continue
		}
		tx.Check(o)
		rest.Managers++
		if c.members == nil || c.members.Reachable(o.ID) {
			rest.Reachable++
		}
	}
	if rest.Managers == 0 {
		return invalid("attempting to demote the last manager of the swarm: node %s; promote another node first: shoal node promote NODE", cmp.Or(n.Description.Hostname, n.ID))
	}
	if !rest.Works() {
		return errdefs.ErrFailedPrecondition.WithMessage("can't remove member from the raft: this would result in a loss of quorum: " + rest.Says())
	}
	return nil
}

// RemoveNode forgets a node that has left or is lost. What it ran is replaced by
// those who watch the store.
func (c *Control) RemoveNode(ctx context.Context, ref string, force bool) error {
	c.awaitDemotion(ctx, ref)
	return c.update(ctx, func(tx *store.Tx) error {
		n, err := findNode(&tx.View, ref)
		if err != nil {
			return err
		}
		if n.Spec.Role == swarm.NodeRoleManager || n.Role == swarm.NodeRoleManager {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
				"node %s is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal: shoal node demote %s", n.ID, cmp.Or(n.Description.Hostname, n.ID)))
		}
		if !force && n.Status.State != swarm.NodeStateDown {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
				"node %s is not down and can't be removed: run 'shoal swarm leave' on %s, or stop its daemon, and try again once it is DOWN; --force removes it as it is, and replaces its tasks", n.ID, cmp.Or(n.Description.Hostname, n.ID)))
		}
		return tx.Delete(api.KindNode, n.ID)
	})
}

// demotionTime is how long a removal waits for a demotion that is under way.
const demotionTime = 10 * time.Second

// awaitDemotion waits while raft has yet to let go of a node that is to be a
// worker. Whoever demotes and then removes need not know that this takes a
// moment.
func (c *Control) awaitDemotion(ctx context.Context, ref string) {
	ctx, cancel := context.WithTimeout(ctx, demotionTime)
	defer cancel()
	feed := c.store.Watch(api.KindNode)
	defer feed.Close()
	for {
		n, err := findNode(c.View(), ref)
		if err != nil || n.Spec.Role != swarm.NodeRoleWorker || n.Role != swarm.NodeRoleManager {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-feed.Ready():
			feed.Take()
		}
	}
}

func normalizeAvailability(a *swarm.NodeAvailability) error {
	if *a == "" {
		*a = swarm.NodeAvailabilityActive
	}
	if !oneOf(*a, swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain) {
		return invalid("invalid Availability: %q: --availability must be active, pause or drain", *a)
	}
	return nil
}

func oneOf[T comparable](v T, allowed ...T) bool {
	for _, a := range allowed {
		if v == a {
			return true
		}
	}
	return false
}
