package control

import (
	"context"
	"fmt"
	"reflect"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// maxPreviousKeys bounds how many unlock keys are kept for managers that have
// not taken a newer one. A key is dropped only when nobody needs it.
const maxPreviousKeys = 32

func tooManyKeys() error {
	return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("a manager that is not running may still need one of the last %d unlock keys: start it, or demote or remove its node, and try again", maxPreviousKeys))
}

// foundingLock is that of a new cluster. Whoever is not shown its key has lost
// nothing yet.
func foundingLock(locked bool, key string) api.Lock {
	if !locked {
		return api.Lock{}
	}
	return api.Lock{Epoch: 1, Key: key}
}

// nextLock is the lock of the managers' disks after an update. A new key waits
// until it was shown.
func nextLock(l api.Lock, locked, rotate bool, fresh string) api.Lock {
	switch {
	case !locked:
		l.Pending = ""
		return change(l, "")
	case l.Key == "" && l.Pending == "", rotate:
		l.Pending = fresh
	}
	return l
}

// shown is the lock after a key was shown to somebody.
func shown(l api.Lock, key string) api.Lock {
	if l.Pending == "" || l.Pending != key {
		return l
	}
	l.Pending = ""
	return change(l, key)
}

// change puts another key in force, or none.
func change(l api.Lock, key string) api.Lock {
	if l.Key == key {
		return l
	}
	next := api.Lock{Epoch: l.Epoch + 1, Key: key, Previous: l.Previous}
	if l.Key != "" {
		next.Previous = append([]string{l.Key}, l.Previous...)
	}
	return next
}

// lockFor is what a new node has to seal its disk with. Only managers do.
func lockFor(role swarm.NodeRole, cl *api.Cluster) api.Lock {
	if role != swarm.NodeRoleManager {
		return api.Lock{}
	}
	return api.Lock{Epoch: cl.Lock.Epoch, Key: cl.Lock.Key}
}

// UnlockKeys tells what opens the managers' disks.
type UnlockKeys struct {
	swarm.UnlockKeyResponse
	// PreviousKeys are those that managers which were not running since may
	// still need, newest first.
	PreviousKeys []string `json:",omitempty"`
}

// UnlockKey gives the unlock key, "" while managers are not locked.
func (c *Control) UnlockKey() (UnlockKeys, error) {
	cl := c.View().Cluster()
	if cl == nil {
		return UnlockKeys{}, errNoCluster
	}
	out := UnlockKeys{swarm.UnlockKeyResponse{UnlockKey: cl.Lock.Key}, cl.Lock.Previous}
	if next := cl.Lock.Pending; next != "" {
		out.UnlockKey = next
		if cl.Lock.Key != "" {
			out.PreviousKeys = append([]string{cl.Lock.Key}, cl.Lock.Previous...)
		}
	}
	return out, nil
}

// UnlockKeyShown puts a key in force that has reached whoever asked for it.
func (c *Control) UnlockKeyShown(ctx context.Context, key string) error {
	return c.changeLock(ctx, func(l api.Lock) api.Lock { return shown(l, key) })
}

// RetireUnlockKeys forgets the keys from before a lock that every manager has
// taken.
func (c *Control) RetireUnlockKeys(ctx context.Context, epoch uint64) error {
	return c.changeLock(ctx, func(l api.Lock) api.Lock {
		if l.Epoch == epoch {
			l.Previous = nil
		}
		return l
	})
}

func (c *Control) changeLock(ctx context.Context, next func(api.Lock) api.Lock) error {
	return c.update(ctx, func(tx *store.Tx) error {
		cl := tx.Cluster()
		if cl == nil {
			return errNoCluster
		}
		l := next(cl.Lock)
		if reflect.DeepEqual(l, cl.Lock) {
			return nil
		}
		cl = cl.Tended()
		cl.Lock = l
		return tx.Put(cl)
	})
}
