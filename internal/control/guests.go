package control

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Attach asks for a place on a network for a container of a node that is no task,
// and returns its address once it is committed. Whoever gives out all other
// addresses gives out this one: see service.
func (c *Control) Attach(ctx context.Context, nodeID, networkID string, wanted netip.Addr) (netip.Prefix, error) {
	feed := c.store.Watch(api.KindGuest)
	defer feed.Close()
	id := api.NewID()
	err := c.update(ctx, func(tx *store.Tx) error {
		n, ok := tx.Networks.Get(networkID)
		if !ok {
			return notFound(api.KindNetwork, networkID)
		}
		if !n.Spec.Attachable {
			return NotAttachable(n.Spec.Name)
		}
		node, ok := tx.Nodes.Get(nodeID)
		if ok && node.Networkless != "" {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
				"node %s can attach nothing to network %s: %s", node.Description.Hostname, n.Spec.Name, node.Networkless))
		}
		if n.Encrypted() && ok && !node.WireGuard.Works() {
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
				"network %s is encrypted, and node %s can not encrypt: %s", n.Spec.Name, node.Description.Hostname, node.WireGuard.WhyNot()))
		}
		tx.Check(n)
		return tx.Put(&api.Guest{Meta: api.Meta{ID: id}, NodeID: nodeID, NetworkID: networkID, Wanted: wanted})
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	for {
		switch g, ok := c.View().Guests.Get(id); {
		case !ok:
			return netip.Prefix{}, notFound(api.KindNetwork, networkID) // taken away meanwhile
		case g.Addr.IsValid():
			return g.Addr, nil
		case g.Err != "":
			c.forget(ctx, id)
			return netip.Prefix{}, errdefs.ErrFailedPrecondition.WithMessage(g.Err)
		}
		select {
		case <-feed.Ready():
			feed.Take()
		case <-ctx.Done():
			c.forget(ctx, id)
			return netip.Prefix{}, fmt.Errorf("allocate an address on network %s: %w", networkID, ctx.Err())
		}
	}
}

// forget gives up on a guest. What is not written now its node gives back later.
func (c *Control) forget(ctx context.Context, id string) {
	_ = c.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.Delete(api.KindGuest, id) })
}

// Detach gives an address of a node's guest back. One that nobody holds is no error.
func (c *Control) Detach(ctx context.Context, nodeID, networkID string, addr netip.Addr) error {
	return c.update(ctx, func(tx *store.Tx) error {
		for g := range tx.Guests.By(store.ByNode, nodeID) {
			if g.NetworkID == networkID && g.Addr.Addr() == addr {
				return tx.Delete(api.KindGuest, g.ID)
			}
		}
		return nil
	})
}

const (
	maxGuestNames = 32
	maxGuestName  = 255 // DNS's
)

// NameGuest notes what a node's guest is called on its network. One that is not
// there, or not any more, has no name.
func (c *Control) NameGuest(ctx context.Context, nodeID, networkID string, addr netip.Addr, names []string) error {
	if len(names) > maxGuestNames {
		return invalid("a container has %d names, at most %d are known", len(names), maxGuestNames)
	}
	for _, n := range names {
		if n == "" || len(n) > maxGuestName {
			return invalid("name %q of a container: must have between 1 and %d characters", n, maxGuestName)
		}
	}
	return c.update(ctx, func(tx *store.Tx) error {
		for g := range tx.Guests.By(store.ByNode, nodeID) {
			if g.NetworkID == networkID && g.Addr.Addr() == addr && !slices.Equal(g.Names, names) {
				g = api.Clone(g)
				g.Names = names
				return tx.Put(g)
			}
		}
		return nil
	})
}

// NotAttachable refuses a container in Docker's words.
func NotAttachable(name string) error {
	return errdefs.ErrPermissionDenied.WithMessage(
		fmt.Sprintf("Could not attach to network %s: rpc error: code = PermissionDenied desc = network %[1]s not manually attachable", name))
}
