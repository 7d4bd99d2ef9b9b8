package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/store"
)

// Renew gives a node a new certificate, in the role that it has now: a node
// that was promoted becomes a manager by it. A demoted one has lost its place
// in raft before it comes here. keyID is of the key that the node has proven to
// have, by its TLS connection.
func (c *Control) Renew(ctx context.Context, nodeID, keyID string, request []byte) (*Admission, error) {
	return c.renew(ctx, nodeID, keyID, request, func(*api.Node) error { return nil })
}

// RenewExpired gives a new certificate to a node that has slept past the end of
// its last one. It takes what an old certificate is worth: the cluster still
// knows the node, and the key is one that it should have now. A key from an old
// backup or a discarded disk brings nobody back.
func (c *Control) RenewExpired(ctx context.Context, cs *tls.ConnectionState, p *ca.Proof) (*Admission, error) {
	cl := c.View().Cluster()
	if cl == nil {
		return nil, errNoCluster
	}
	roots, err := ca.ParseCertificates(cl.Trust().Roots)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's roots: %w", err)
	}
	id, keyID, err := p.Verify(cs, roots, cl.ID, c.now())
	if err != nil {
		return nil, err
	}
	return c.renew(ctx, id.NodeID, keyID, p.Request, func(n *api.Node) error {
		if !slices.Contains(n.Keys, keyID) {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("renew an expired certificate: that of node %s has been replaced since, and its key is not the node's any more: leave and join again", n.ID))
		}
		return nil
	})
}

func (c *Control) renew(ctx context.Context, nodeID, keyID string, request []byte, check func(*api.Node) error) (*Admission, error) {
	newKey, err := ca.RequestKeyID(request)
	if err != nil {
		return nil, err
	}
	var out *Admission
	err = c.update(ctx, func(tx *store.Tx) error {
		cl := tx.Cluster()
		n, ok := tx.Nodes.Get(nodeID)
		if cl == nil || !ok {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("node %s was removed from the cluster", nodeID))
		}
		if err := check(n); err != nil {
			return err
		}
		role := n.Role
		if n.Spec.Role == swarm.NodeRoleManager {
			role = swarm.NodeRoleManager
		}
		tx.Check(cl) // the root may have been rotated on meanwhile
		if out, err = c.admission(tx, cl, request, nodeID, role); err != nil {
			return err
		}
		n = api.Clone(n)
		n.Role, n.Keys = role, slices.Compact([]string{keyID, newKey})
		return tx.Put(n)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// admission signs a request and says what else the node has to know.
func (c *Control) admission(tx *store.Tx, cl *api.Cluster, request []byte, nodeID string, role swarm.NodeRole) (*Admission, error) {
	root, suffix, err := issuer(cl)
	if err != nil {
		return nil, err
	}
	who := ca.Identity{NodeID: nodeID, Role: ca.RoleWorker, ClusterID: cl.ID}
	if role == swarm.NodeRoleManager {
		who.Role = ca.RoleManager
	}
	if c.members != nil {
		who.Since = c.members.Applied()
	}
	cert, err := root.Sign(request, who, cl.Spec.CAConfig.NodeCertExpiry, c.now())
	if err != nil {
		return nil, err
	}
	return &Admission{
		NodeID: nodeID, ClusterID: cl.ID, Role: role, Cert: slices.Concat(cert, suffix), Roots: cl.Trust().Roots,
		DataPathPort: cl.DataPathPort, Managers: managersOf(&tx.View), Lock: lockFor(role, cl),
	}, nil
}
