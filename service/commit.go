package service

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

// step is a part of a plan that takes effect as a whole or not at all: what
// happens to one slot, or to the service itself, or some history that goes.
type step struct {
	serviceID string
	service   *api.Service // as planned with; nil: it must not exist
	puts      []api.Object
	deletes   []api.Object
}

// steps lists what a plan changes.
func (p *planner) steps() (out []step) {
	add := func(s step) {
		if len(s.puts)+len(s.deletes) > 0 {
			s.serviceID, s.service = p.serviceID, p.service
			out = append(out, s)
		}
	}
	if p.changed != nil {
		add(step{puts: []api.Object{p.changed}})
	}
	for _, s := range p.slots {
		add(step{puts: s.puts()})
	}
	// What is history goes when all else has: there may be any amount of it.
	for _, s := range p.slots {
		for chunk := range slices.Chunk(s.deletes(), maxDeletes) {
			add(step{deletes: chunk})
		}
	}
	for _, r := range p.dropped {
		add(step{deletes: []api.Object{r}})
	}
	return out
}

// maxDeletes is how many tasks one step deletes at most, so that it fits into a
// transaction however large they are.
const maxDeletes = 64

func (s *slot) puts() (out []api.Object) {
	for _, t := range s.tasks {
		if !t.gone && t.Task != t.before {
			out = append(out, t.Task)
		}
	}
	return out
}

func (s *slot) deletes() (out []api.Object) {
	for _, t := range s.tasks {
		if t.gone && t.before != nil {
			out = append(out, t.before)
		}
	}
	return out
}

// holds tells whether everything the step was planned from is still so. The
// version of an object that was planned from is in the object itself.
func (s *step) holds(tx *store.Tx) bool {
	if now, ok := tx.Services.Get(s.serviceID); ok != (s.service != nil) || ok && now.Version != s.service.Version {
		return false
	}
	for _, o := range append(s.puts[:len(s.puts):len(s.puts)], s.deletes...) {
		if version(tx, o) != o.Head().Version {
			return false
		}
	}
	return true
}

// version is the version that an object has now; 0 if it does not exist.
func version(tx *store.Tx, o api.Object) uint64 {
	switch o := o.(type) {
	case *api.Task:
		if now, ok := tx.Tasks.Get(o.ID); ok {
			return now.Version
		}
	case *api.Service:
		if now, ok := tx.Services.Get(o.ID); ok {
			return now.Version
		}
	case *api.Revision:
		if now, ok := tx.Revisions.Get(o.ID); ok {
			return now.Version
		}
	}
	return 0
}

// given lists the addresses that the step gives to what did not have them.
func (s *step) given(v *store.View) (out []lease) {
	for _, o := range s.puts {
		var leases []lease
		switch o := o.(type) {
		case *api.Task:
			leases = taskLeases(o)
		case *api.Service:
			leases = vipLeases(o)
		}
		had := storedLeases(v, o)
		for _, a := range leases {
			if !contains(had, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func (s *step) write(tx *store.Tx) error {
	for _, o := range s.puts {
		if err := tx.Put(o); err != nil {
			return err
		}
	}
	for _, o := range s.deletes {
		if err := tx.Delete(o.Kind(), o.Head().ID); err != nil {
			return err
		}
	}
	if s.service != nil {
		tx.Check(s.service)
	}
	return nil
}

// batchSize is how many steps go into one transaction. A task takes well under
// a kilobyte, so that these fit; what does not is split.
const batchSize = 256

// batch collects the steps of a round and commits them in few transactions.
type batch struct {
	term  *term
	steps []step
}

func (b *batch) add(ctx context.Context, steps []step) {
	b.steps = append(b.steps, steps...)
	for len(b.steps) >= batchSize {
		b.commit(ctx, batchSize)
	}
}

func (b *batch) flush(ctx context.Context) {
	for len(b.steps) > 0 {
		b.commit(ctx, min(len(b.steps), batchSize))
	}
}

// commit writes the first n steps, or fewer if they are too large for one
// transaction. Steps that do not hold any more are planned again.
func (b *batch) commit(ctx context.Context, n int) {
	var stale []step
	err := b.term.store.Update(ctx, func(tx *store.Tx) error {
		stale = nil
		for _, s := range b.steps[:n] {
			holds := s.holds(tx)
			if holds {
				var err error
				if holds, err = b.term.leases.widen(tx, s.given(&tx.View)); err != nil {
					return err
				}
			}
			if !holds {
				stale = append(stale, s)
			} else if err := s.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, store.ErrTooLarge) && n > 1 {
		b.commit(ctx, n/2)
		return
	}
	if err != nil {
		b.term.failed(ctx, b.steps[:n], err)
	} else {
		b.term.stale(stale)
	}
	b.steps = b.steps[n:]
}

// stale takes back what was planned for steps that did not hold. Whatever
// changed is in the feed, or in the store already: the service is planned anew.
func (t *term) stale(steps []step) {
	if len(steps) == 0 {
		return
	}
	v := t.store.View()
	for _, s := range steps {
		t.wakes.set(s.serviceID, time.Now())
		t.takeBack(v, s, false)
	}
}

// failed deals with a transaction that was not carried out, or nobody knows. If
// nobody knows, addresses given out in it stay leased: a deposed leader's entry
// may yet be applied. The next term starts from what the store has. After a
// certain failure they are free again, or every retry would use up new ones.
func (t *term) failed(ctx context.Context, steps []step, err error) {
	if ctx.Err() != nil {
		return
	}
	t.log.Error("changes to services were not written", zap.Int("steps", len(steps)), zap.Error(err))
	v := t.store.View()
	for _, s := range steps {
		t.wakes.set(s.serviceID, time.Now().Add(retryDelay))
		t.takeBack(v, s, errdefs.IsUnknown(err))
	}
}

// takeBack makes the memory of a step's objects what the store says of them.
func (t *term) takeBack(v *store.View, s step, keepLeases bool) {
	for _, o := range s.puts {
		id := o.Head().ID
		if task, ok := o.(*api.Task); ok {
			t.nodes.RemoveTask(task.ID)
			if now, ok := v.Tasks.Get(id); ok {
				r, _ := v.Revisions.Get(now.Revision)
				t.nodes.SetTask(now, r)
			}
		}
		if !keepLeases {
			t.leases.set(id, storedLeases(v, o))
		}
	}
}

// storedLeases gives the addresses that the store says an object has.
func storedLeases(v *store.View, o api.Object) []lease {
	switch o := o.(type) {
	case *api.Task:
		if now, ok := v.Tasks.Get(o.ID); ok {
			return taskLeases(now)
		}
	case *api.Service:
		if now, ok := v.Services.Get(o.ID); ok {
			return vipLeases(now)
		}
	}
	return nil
}
