package control

import (
	"context"
	"time"

	"shoal/internal/store"
)

// RotateKeys has every node change its key for encrypted networks, one after the
// other. The managers only say so: they never have a private key.
func (c *Control) RotateKeys(ctx context.Context) error {
	return c.update(ctx, func(tx *store.Tx) error {
		cl := tx.Cluster()
		if cl == nil {
			return errNoCluster
		}
		cl = cl.Tended()
		cl.WireGuardFrom = time.Now().UTC()
		return tx.Put(cl)
	})
}
