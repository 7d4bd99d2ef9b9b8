package control

import (
	"context"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

// orphanAge is how long a piece may wait for its file. A file is written within
// seconds, and only the leader writes.
const orphanAge = 10 * time.Minute

// tendAgain is when to try again after a failure.
const tendAgain = 10 * time.Second

// TendFiles removes what nobody can come to use any more: versions of secrets and
// configs that no spec and no revision refers to, and pieces of files that never
// came to be. It runs on the leader until ctx ends.
func (c *Control) TendFiles(ctx context.Context) error {
	return c.store.Tend(ctx, func() (again time.Duration) {
		wait, err := c.tendFiles(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("old versions of secrets and configs could not be removed; it is tried again", zap.Error(err))
			return tendAgain
		}
		return wait
	}, api.KindService, api.KindRevision, api.KindSecret, api.KindConfig, api.KindPiece)
}

// tendFiles does it once, and says when there may be more to do; 0 stands for
// when something changes.
func (c *Control) tendFiles(ctx context.Context) (wait time.Duration, err error) {
	now := c.now()
	if files, pieces, _ := unused(c.View(), now); len(files)+len(pieces) > 0 {
		c.references.Lock() // a rollback may be about to refer to one of them
		defer c.references.Unlock()
		err = c.store.Update(ctx, func(tx *store.Tx) error {
			files, pieces, _ := unused(&tx.View, now)
			for _, f := range files {
				if err := deleteFile(tx, f); err != nil {
					return err
				}
			}
			for _, p := range pieces {
				if err := tx.Delete(api.KindPiece, p.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	_, _, wait = unused(c.View(), now)
	return wait, err
}

// unused gives what nobody can come to use, and when to look again at pieces
// that are too young to tell.
func unused(v *store.View, now time.Time) (files []*api.File, pieces []*api.Piece, wait time.Duration) {
	var retired []*api.File
	for _, t := range []*store.Table[*api.File]{v.Secrets, v.Configs} {
		for f := range t.All() {
			if f.Retired {
				retired = append(retired, f)
			}
		}
	}
	if len(retired) > 0 {
		used := references(v)
		for _, f := range retired {
			if !used[f.ID] {
				files = append(files, f)
			}
		}
	}
	for p := range v.Pieces.All() {
		_, secret := v.Secrets.Get(p.FileID)
		_, config := v.Configs.Get(p.FileID)
		switch age := now.Sub(p.UpdatedAt); {
		case secret || config:
		case age >= orphanAge:
			pieces = append(pieces, p)
		default:
			wait = orphanAge - age
		}
	}
	return files, pieces, wait
}

// references gives the IDs of all files that a service uses, or used in a spec
// that it may go back to.
func references(v *store.View) map[string]bool {
	used := map[string]bool{}
	note := func(secrets, configs []string) {
		for _, id := range append(secrets, configs...) {
			used[id] = true
		}
	}
	for s := range v.Services.All() {
		note(api.FileIDs(s.Spec.TaskTemplate.ContainerSpec))
		if s.Previous != nil {
			note(api.FileIDs(s.Previous.TaskTemplate.ContainerSpec))
		}
	}
	for r := range v.Revisions.All() {
		note(api.FileIDs(r.Spec.TaskTemplate.ContainerSpec))
	}
	return used
}
