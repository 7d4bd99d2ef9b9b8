package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/store"
)

// openKeys loads this node's key material. A manager's takes its data key; if
// that is locked, the file comes back alone.
func (n *node) openKeys(id identity) (*ca.Credentials, *vault, *seal.File, error) {
	got, err := ca.Whose(cluster.TLSDir(n.cfg.DataDir))
	if err != nil {
		return nil, nil, nil, err
	}
	if got.NodeID != id.NodeID || got.ClusterID != id.ClusterID {
		return nil, nil, nil, fmt.Errorf("data directory %s is mixed: %s speaks of node %s in cluster %s, the certificate of node %s in cluster %s; restore it from one backup, or move it away and join again",
			n.cfg.DataDir, identityFile, id.NodeID, id.ClusterID, got.NodeID, got.ClusterID)
	}
	creds, err := ca.Load(cluster.TLSDir(n.cfg.DataDir), nil)
	if !errors.Is(err, ca.ErrKeySealed) {
		if err == nil && creds.Identity().Role == ca.RoleManager {
			err = fmt.Errorf("the key of this manager in %s is not sealed, as a manager's must be; move the data directory away and join again, or restore a backup: %w", cluster.TLSDir(n.cfg.DataDir), errdefs.ErrDataLoss)
		}
		return creds, nil, nil, err
	}
	file, err := seal.Load(cluster.KeyFile(n.cfg.DataDir), id.owner())
	if err != nil || file.Locked() {
		return nil, nil, file, err
	}
	creds, v, err := n.unseal(file, nil)
	return creds, v, nil, err
}

// unseal opens the data key, and with it the node's key.
func (n *node) unseal(file *seal.File, unlock *seal.UnlockKey) (*ca.Credentials, *vault, error) {
	key, err := file.Open(unlock)
	if err != nil {
		return nil, nil, err
	}
	creds, err := ca.Load(cluster.TLSDir(n.cfg.DataDir), key)
	return creds, &vault{key: key, file: file}, err
}

// Unlock starts a manager that waits for its unlock key.
func (n *node) Unlock(ctx context.Context, req swarm.UnlockRequest) error {
	n.life.Lock()
	defer n.life.Unlock()
	cur := n.current()
	if cur == nil || cur.locked == nil {
		return errdefs.ErrConflict.WithMessage("swarm is not locked")
	}
	unlock, err := seal.ParseUnlockKey(req.UnlockKey)
	if err != nil {
		return err
	}
	creds, v, err := n.unseal(cur.locked, &unlock)
	if errdefs.IsUnauthorized(err) {
		return errdefs.ErrUnauthenticated.WithMessage("swarm could not be unlocked: invalid key provided")
	}
	if err != nil {
		return err
	}
	n.pause()
	r, err := n.resumeAs(cur.identity(), creds, v)
	if err != nil {
		n.give(err)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return r.await(ctx, "open its log", func() (bool, <-chan struct{}) {
		ready := r.cluster.Raft.Ready()
		select {
		case <-ready:
			return true, nil
		default:
			return false, ready
		}
	})
}

// forceNewCluster makes this manager, which has lost the others for good, the
// only one. That it is to be done is noted first: from then on every start
// finishes it.
func (n *node) forceNewCluster(ctx context.Context, req swarm.InitRequest) (string, error) {
	cur := n.current()
	switch {
	case cur == nil:
		return "", invalid("force-new-cluster: this node holds no state of a cluster to start from")
	case cur.locked != nil:
		return "", errdefs.ErrUnavailable.WithMessage(`Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`)
	case cur.manager == nil:
		return "", errdefs.ErrUnavailable.WithMessage("force-new-cluster: this node is not a manager, and holds no state of the cluster to start from: use a manager")
	case req.AutoLockManagers:
		return "", invalid(`force-new-cluster keeps the cluster as it is, locked or not: use "swarm update --autolock" afterwards`)
	}
	moved := identity{}
	if req.AdvertiseAddr != "" {
		system, err := systemAddresses()
		if err != nil {
			return "", err
		}
		if moved, err = addresses(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr, system); err != nil {
			return "", err
		}
	}
	old := n.pause()
	id := old.identity()
	id.Forced = true
	if moved.AdvertiseAddr != "" {
		id.ListenAddr, id.AdvertiseAddr, id.DataPathAddr, id.On = moved.ListenAddr, moved.AdvertiseAddr, moved.DataPathAddr, moved.On
	}
	err := id.save(n.cfg.DataDir)
	var r *membership
	if err == nil {
		r, err = n.resumeAs(id, old.creds, old.vault)
	}
	if err != nil {
		n.give(err)
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := r.await(ctx, "lead", r.manager.leads); err != nil {
		return "", err
	}
	return id.NodeID, r.await(ctx, "hear from itself", r.welcomed)
}

// takeOver is the first thing that a manager does which was forced to go on
// alone: the others are managers no more. One that comes back, alone, finds
// that out and becomes a worker.
func (m *manager) takeOver(ctx context.Context) error {
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		for n := range tx.Nodes.All() {
			if n.ID == m.id.NodeID || n.Role != swarm.NodeRoleManager && n.Spec.Role != swarm.NodeRoleManager {
				continue
			}
			m.log.Warn("this node was a manager, and is given up as one", zap.String("node", n.ID), zap.String("hostname", n.Description.Hostname))
			n = api.Clone(n)
			n.Role, n.Spec.Role = swarm.NodeRoleWorker, swarm.NodeRoleWorker
			if err := tx.Put(n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give up the other managers: %w", err)
	}
	return m.tookOver()
}
