package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/gossip"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/store"
)

// Init founds a cluster with this node as its first manager.
func (n *node) Init(ctx context.Context, req swarm.InitRequest) (string, error) {
	n.life.Lock()
	defer n.life.Unlock()
	if req.ForceNewCluster {
		return n.forceNewCluster(ctx, req)
	}
	if n.current() != nil {
		return "", errAlreadyIn
	}
	desc, err := n.engine.Describe(ctx)
	if err != nil {
		return "", err
	}
	system, err := systemAddresses()
	if err != nil {
		return "", err
	}
	id, err := addresses(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr, system)
	if err != nil {
		return "", err
	}
	if err := portFree(id.ListenAddr); err != nil {
		return "", err
	}
	id.NodeID, id.ClusterID = api.NewID(), api.NewID()
	first, bundle, err := n.found(req, &id, desc)
	if err != nil {
		return "", err
	}
	r, err := n.create(id, bundle, first.Cluster.Lock, cluster.Bootstrap)
	if err != nil {
		return "", err
	}
	if err := n.settle(ctx, r, first); err != nil {
		return "", errors.Join(err, n.abandon())
	}
	n.rely(r)
	return id.NodeID, nil
}

// found makes what a new cluster begins with, and this node's key material.
func (n *node) found(req swarm.InitRequest, id *identity, desc swarm.NodeDescription) (*control.First, ca.Bundle, error) {
	now := time.Now()
	root, err := foundingRoot(req.Spec.CAConfig, id.ClusterID, now)
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	rootKey, err := root.KeyPEM()
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	keyID, err := ca.RequestKeyID(csr)
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	token := func() string { return ca.Token{Digest: ca.Digest(root.Cert), Secret: ca.NewSecret()}.String() }
	first, err := control.Bootstrap(control.Founding{
		Request: req, ClusterID: id.ClusterID, NodeID: id.NodeID, IngressID: api.NewID(),
		RootCA: api.RootCA{Cert: root.CertPEM(), Key: rootKey}, Key: keyID,
		JoinTokens:  swarm.JoinTokens{Worker: token(), Manager: token()},
		UnlockKey:   seal.NewUnlockKey().String(),
		Description: desc, Addr: id.AdvertiseAddr, DataPath: id.DataPathAddr,
	})
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	id.DataPathPort = first.Cluster.DataPathPort
	first.Cluster.GossipKeys, first.Cluster.GossipKeysSince = rawKeys([]gossip.Key{gossip.NewKey()}), now.UTC()
	who := ca.Identity{NodeID: id.NodeID, Role: ca.RoleManager, ClusterID: id.ClusterID}
	cert, err := root.Sign(csr, who, first.Cluster.Spec.CAConfig.NodeCertExpiry, now)
	if err != nil {
		return nil, ca.Bundle{}, err
	}
	return first, ca.Bundle{CAPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key}, nil
}

// foundingRoot is a new authority, or the one that the user brings.
func foundingRoot(c swarm.CAConfig, clusterID string, now time.Time) (*ca.Root, error) {
	if c.SigningCACert == "" && c.SigningCAKey == "" {
		return ca.NewRoot(clusterID, now)
	}
	return ca.ParseOwnRoot([]byte(c.SigningCACert), []byte(c.SigningCAKey), c.NodeCertExpiry, now)
}

// create writes the new node's files and starts it. The identity is written
// last: without it the rest is leftovers that the next init replaces.
func (n *node) create(id identity, bundle ca.Bundle, lock api.Lock, start cluster.Start) (*membership, error) {
	if err := n.wipe(); err != nil {
		return nil, err
	}
	creds, v, err := n.keep(id, bundle, lock)
	if err != nil {
		return nil, err
	}
	return n.start(n.newMember(id, creds, v, start))
}

// keep writes a node's key material. A manager's is sealed, with a data key that
// is made here.
func (n *node) keep(id identity, bundle ca.Bundle, lock api.Lock) (*ca.Credentials, *vault, error) {
	creds, err := ca.NewCredentials(bundle)
	if err != nil {
		return nil, nil, err
	}
	var (
		v   *vault
		key *seal.Key
	)
	if creds.Identity().Role == ca.RoleManager {
		if v, err = newVault(n.cfg.DataDir, id, lock); err != nil {
			return nil, nil, err
		}
		key = v.key
	}
	return creds, v, errors.Join(forgetGossipKeys(n.cfg.DataDir), ca.Save(cluster.TLSDir(n.cfg.DataDir), bundle, key))
}

// settle brings a fresh node to where it can be used: leading, with the first
// objects committed, and READY.
func (n *node) settle(ctx context.Context, m *membership, first *control.First) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := m.await(ctx, "lead", m.manager.leads); err != nil {
		return err
	}
	if err := m.manager.found(ctx, first); err != nil {
		return err
	}
	if err := m.remember(); err != nil {
		return err
	}
	feed := m.manager.store.Watch(api.KindNode)
	defer feed.Close()
	if err := m.await(ctx, "become ready", func() (bool, <-chan struct{}) {
		feed.Take()
		node, ok := m.manager.store.View().Nodes.Get(m.id.NodeID)
		return ok && node.Status.State == swarm.NodeStateReady, feed.Ready()
	}); err != nil {
		return err
	}
	return m.await(ctx, "hear from itself", m.welcomed) // or it would call itself pending for a moment
}

// await waits for a condition; again receives when it may have changed.
func (r *membership) await(ctx context.Context, what string, ok func() (done bool, again <-chan struct{})) error {
	for {
		done, again := ok()
		if done {
			return nil
		}
		select {
		case <-again:
		case <-r.done:
			return r.err
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err() // the client has gone
			}
			return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("the new node did not %s within %s: see the daemon's log", what, startTimeout))
		}
	}
}

// found writes the first objects of a new cluster.
func (m *manager) found(ctx context.Context, first *control.First) error {
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		var errs []error
		for _, o := range first.Objects() {
			errs = append(errs, tx.Put(o))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("write the new cluster's first objects: %w", err)
	}
	return nil
}
