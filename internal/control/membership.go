package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/store"
)

// Applicant is what a machine that wants to be a node says of itself.
type Applicant struct {
	Token        string
	Request      []byte // certificate signing request, PEM
	Addr         string // host:port of its TLS port, as others reach it
	DataPath     string // where tunnels to it end
	Availability swarm.NodeAvailability
	Description  swarm.NodeDescription
}

// Admission is what a new node needs to take part.
type Admission struct {
	NodeID       string
	ClusterID    string
	Role         swarm.NodeRole
	Cert         []byte // PEM: the certificate, then an intermediate while the root is rotated
	Roots        []byte // PEM: whom to trust
	DataPathPort uint32
	Managers     []swarm.Peer
	Lock         api.Lock // of a manager's disk
}

// Admit makes a machine a node, in the role that its token is for.
func (c *Control) Admit(ctx context.Context, a Applicant) (*Admission, error) {
	token, err := ca.ParseToken(a.Token)
	if err != nil {
		return nil, err
	}
	if err := normalizeAvailability(&a.Availability); err != nil {
		return nil, err
	}
	key, err := ca.RequestKeyID(a.Request)
	if err != nil {
		return nil, err
	}
	nodeID := api.NewID()
	var out *Admission
	err = c.update(ctx, func(tx *store.Tx) error {
		cl := tx.Cluster()
		if cl == nil {
			return errNoCluster
		}
		role, err := roleOf(token, cl)
		if err != nil {
			return err
		}
		tx.Check(cl) // a token that was rotated meanwhile lets nobody in
		if out, err = c.admission(tx, cl, a.Request, nodeID, role); err != nil {
			return err
		}
		return tx.Put(&api.Node{
			Meta:        api.Meta{ID: nodeID},
			Spec:        swarm.NodeSpec{Annotations: swarm.Annotations{Labels: map[string]string{}}, Role: role, Availability: a.Availability},
			Role:        role,
			Description: a.Description,
			Status:      swarm.NodeStatus{State: swarm.NodeStateUnknown, Addr: hostOf(a.Addr)},
			Addr:        a.Addr,
			DataPath:    a.DataPath,
			Keys:        []string{key},
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// roleOf says what a token is good for. A good token of another cluster, or one
// that was rotated, is told from one that is no token at all.
func roleOf(t ca.Token, cl *api.Cluster) (swarm.NodeRole, error) {
	for role, held := range map[swarm.NodeRole]string{
		swarm.NodeRoleManager: cl.JoinTokens.Manager, swarm.NodeRoleWorker: cl.JoinTokens.Worker,
	} {
		own, err := ca.ParseToken(held)
		if err != nil {
			return "", fmt.Errorf("read the cluster's own join token: %w", err)
		}
		if t.Matches(own.Secret) {
			return role, nil
		}
	}
	return "", errdefs.ErrPermissionDenied.WithMessage(`the join token is not valid any more: get the current one with "shoal swarm join-token" on a manager`)
}

func managersOf(v *store.View) []swarm.Peer {
	var peers []swarm.Peer
	for n := range v.Nodes.All() {
		if n.Role == swarm.NodeRoleManager {
			peers = append(peers, swarm.Peer{NodeID: n.ID, Addr: n.Addr})
		}
	}
	return peers
}

// NodeLeft is what a node that left is said to be DOWN for.
const NodeLeft = "the node left the swarm"

// LeaveNode notes that a node goes by its own will: it is DOWN at once, without
// the wait for its heartbeat, and can be removed.
func (c *Control) LeaveNode(ctx context.Context, nodeID string) error {
	return c.update(ctx, func(tx *store.Tx) error {
		n, ok := tx.Nodes.Get(nodeID)
		if !ok {
			return nil
		}
		n = api.Clone(n)
		n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateDown, Message: NodeLeft, Addr: n.Status.Addr}, time.Now())
		n.Spec.Role, n.Role = swarm.NodeRoleWorker, swarm.NodeRoleWorker
		n.Keys = nil // it wipes them, and will not be back
		n.SetWireGuard(api.WireGuard{}, time.Now())
		for _, g := range slices.Collect(tx.Guests.By(store.ByNode, nodeID)) {
			if err := tx.Delete(api.KindGuest, g.ID); err != nil {
				return err
			}
		}
		return tx.Put(n)
	})
}
