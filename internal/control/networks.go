package control

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
)

// CreateNetwork makes a network of the whole cluster and returns its ID. A subnet
// that the request leaves open is cut from the cluster's pools.
func (c *Control) CreateNetwork(ctx context.Context, req network.CreateRequest) (string, error) {
	spec, err := networkSpec(req)
	if err != nil {
		return "", err
	}
	wanted, err := wantedSubnets(req.IPAM)
	if err != nil {
		return "", err
	}
	id := api.NewID()
	err = c.update(ctx, func(tx *store.Tx) error {
		if _, taken := tx.Networks.One(store.ByName, spec.Name); taken {
			return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("network with name %s already exists", spec.Name))
		}
		if n := tx.Ingress(); n != nil && spec.Ingress {
			return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("ingress network (%s) is already present", n.ID))
		}
		n := &api.Network{Meta: api.Meta{ID: id}, Spec: spec, VNI: freeVNI(&tx.View)}
		if spec.Ingress {
			n.VNI = ingressVNI
		}
		if n.Subnets, err = subnets(tx, wanted); err != nil {
			return err
		}
		return tx.Put(n)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// subnets checks those that were asked for against what others have, or cuts one.
func subnets(tx *store.Tx, wanted []api.Subnet) ([]api.Subnet, error) {
	if len(wanted) == 0 {
		c := tx.Cluster()
		if c == nil {
			return nil, errdefs.ErrUnavailable.WithMessage("the cluster has no state yet")
		}
		s, err := service.CutSubnet(&tx.View, c.Pools())
		if err != nil {
			return nil, errdefs.ErrFailedPrecondition.WithMessage(err.Error())
		}
		return []api.Subnet{s}, service.NoteSubnets(tx, s.Prefix)
	}
	for _, w := range wanted {
		if host, addr := hostIn(&tx.View, w.Prefix); host != "" {
			return nil, invalid("subnet %s has the address of node %s (%s), which the others would not reach any more: choose addresses that no host has",
				w.Prefix, host, addr)
		}
		for _, o := range service.TakenSubnets(&tx.View) {
			if o.Prefix.Overlaps(w.Prefix) {
				return nil, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf(
					"invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps %s of %s", w.Prefix, o.Prefix, o.Owner))
			}
		}
	}
	return wanted, service.NoteSubnets(tx, netip.Prefix{})
}

// hostIn names a node whose address lies in a subnet, if there is one.
func hostIn(v *store.View, p netip.Prefix) (host string, addr netip.Addr) {
	for n := range v.Nodes.All() {
		at, _ := netip.ParseAddrPort(n.Addr)
		way, _ := netip.ParseAddr(n.DataPath)
		for _, a := range []netip.Addr{at.Addr(), way} {
			if a.IsValid() && p.Contains(a.Unmap()) {
				return n.Description.Hostname, a.Unmap()
			}
		}
	}
	return "", netip.Addr{}
}

// freeVNI gives the first number that no network shows. It is for people alone:
// one tunnel carries all networks.
func freeVNI(v *store.View) uint32 {
	taken := map[uint32]bool{}
	for n := range v.Networks.All() {
		taken[n.VNI] = true
	}
	vni := uint32(ingressVNI + 1)
	for taken[vni] {
		vni++
	}
	return vni
}

// RemoveNetwork forgets a network that nothing uses.
func (c *Control) RemoveNetwork(ctx context.Context, ref string) error {
	return c.update(ctx, func(tx *store.Tx) error {
		n, err := findNetwork(&tx.View, ref)
		if err != nil {
			return err
		}
		if user := networkUser(&tx.View, n); user != "" {
			if n.Spec.Ingress {
				return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("ingress network cannot be removed because %s depends on it", user))
			}
			return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("network %s is in use by %s", n.Spec.Name, user))
		}
		return tx.Delete(api.KindNetwork, n.ID)
	})
}

// networkUser names who still needs a network; "" if nobody does. Tasks that are
// stopping, or whose service is gone, keep their addresses but nothing else.
func networkUser(v *store.View, n *api.Network) string {
	for s := range v.Services.All() {
		if n.Spec.Ingress && publishesIngress(&s.Spec) ||
			slices.ContainsFunc(s.Spec.TaskTemplate.Networks, func(a swarm.NetworkAttachmentConfig) bool { return a.Target == n.ID }) {
			return "service " + s.Spec.Name
		}
	}
	for t := range v.Tasks.By(store.ByNetwork, n.ID) {
		if _, ok := v.Services.Get(t.ServiceID); ok && !api.Terminal(t.Status.State) && !api.Before(swarm.TaskStateRunning, t.DesiredState) {
			return "task " + taskName(v, t)
		}
	}
	for g := range v.Guests.By(store.ByNetwork, n.ID) {
		if node, ok := v.Nodes.Get(g.NodeID); ok {
			return "a container on node " + node.Description.Hostname
		}
	}
	return ""
}

func publishesIngress(s *swarm.ServiceSpec) bool {
	return s.EndpointSpec != nil && slices.ContainsFunc(s.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode != swarm.PortConfigPublishModeHost
	})
}
