package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/control"
)

// Leave ends the membership and removes everything that belonged to it: tasks,
// networks, firewall rules, routes and the data.
func (n *node) Leave(ctx context.Context, force bool) error {
	n.life.Lock()
	defer n.life.Unlock()
	m := n.current()
	if m == nil {
		return errNotIn
	}
	if m.manager != nil {
		refusal := leaving(m.manager.rest())
		if !force {
			return refusal
		}
		n.log.Warn("this manager leaves all the same", zap.Error(refusal))
	}
	if err := m.sayGoodbye(ctx); err != nil {
		if !force && m.manager == nil {
			n.log.Warn("leaving without the managers' knowledge: they will find this node down", zap.Error(err))
		} else {
			n.log.Warn("leaving without a word to the managers", zap.Error(err))
		}
	}
	return n.abandon()
}

// leaving is what speaks against a manager's leaving, in Swarm's words as far as
// there are any.
func leaving(rest control.Rest) error {
	const is = "You are attempting to leave the swarm on a node that is participating as a manager. "
	switch {
	case rest.Managers == 0:
		return errdefs.ErrUnavailable.WithMessage(is + "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ")
	case !rest.Works():
		return errdefs.ErrUnavailable.WithMessage(is + "Without a Raft quorum your swarm will be inaccessible: " + rest.Says() + ". Use `--force` to suppress this message. ")
	}
	return errdefs.ErrUnavailable.WithMessage(is + "Demote it first, or use `--force` to suppress this message. ")
}

// abandon stops the member and cleans up after it. What can not be removed now
// is named; the node has left all the same.
func (n *node) abandon() error {
	m := n.stop()
	n.mu.Lock()
	n.again = nil
	n.mu.Unlock()
	if m == nil {
		return n.wipe()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), startTimeout)
	defer cancel()
	return errors.Join(m.clear(ctx), n.wipe())
}

// wipe empties the data directory but for the lock and the daemon's own log.
// The identity goes first: a half-wiped node is in no cluster.
func (n *node) wipe() error {
	for _, name := range []string{identityFile, "tls", "raft", "worker", "network"} {
		if err := os.RemoveAll(filepath.Join(n.cfg.DataDir, name)); err != nil {
			return fmt.Errorf("remove what the node kept: %w", err)
		}
	}
	return nil
}
