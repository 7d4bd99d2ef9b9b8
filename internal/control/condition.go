package control

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Condition ties a request to what its author has seen: it is refused unless the
// index of the stack is what it was then.
type Condition struct {
	Stack string
	Index uint64
}

type conditionKey struct{}

// tied is the condition of one request.
type tied struct {
	Condition
	met bool // by its first transaction; those after it see what that one wrote
}

// OnlyIf gives the one request that is made with the context a condition.
func OnlyIf(ctx context.Context, c Condition) context.Context {
	return context.WithValue(ctx, conditionKey{}, &tied{Condition: c})
}

// Holds is nil while a condition is met, and says what to do when it is not.
func (c *Control) Holds(cond Condition) error { return cond.holds(c.View()) }

func (cond Condition) holds(v *store.View) error {
	if now := StackIndex(v, cond.Stack); now != cond.Index {
		return errdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf(
			`the cluster has moved on: its index is %d, not %d; look at "shoal stack plan" again`, now, cond.Index))
	}
	return nil
}

// transact runs a transaction. One with a condition has the store to itself among
// those of this package: what is made by name alone, such as one more service of
// the stack, it could not notice otherwise. What nodes report does not pass through
// here; it may come in between, as it may a moment later.
func (c *Control) transact(ctx context.Context, fn func(tx *store.Tx) error) error {
	cond, _ := ctx.Value(conditionKey{}).(*tied)
	if cond == nil || cond.met {
		c.writes.RLock()
		defer c.writes.RUnlock()
		return c.store.Update(ctx, fn)
	}
	c.writes.Lock()
	defer c.writes.Unlock()
	err := c.store.Update(ctx, func(tx *store.Tx) error {
		if err := cond.holds(&tx.View); err != nil {
			return err
		}
		return fn(tx)
	})
	cond.met = err == nil
	return err
}

// StackIndex is a number for everything that a plan of a stack depends on: the
// stack's objects, and where nodes stand. It is not a count: another number is
// another state, and the same number the same.
func StackIndex(v *store.View, stack string) uint64 {
	var lines []string
	note := func(labels map[string]string, o api.Object, more ...any) {
		if labels[api.StackLabel] == stack {
			lines = append(lines, fmt.Sprintln(append([]any{o.Kind(), o.Head().ID}, more...)...))
		}
	}
	for s := range v.Services.All() {
		note(s.Spec.Labels, s, s.Version)
	}
	for _, t := range []*store.Table[*api.File]{v.Secrets, v.Configs} {
		for f := range t.All() {
			note(f.Spec.Labels, f, f.Version)
		}
	}
	for n := range v.Networks.All() {
		note(n.Spec.Labels, n) // it never changes
	}
	for n := range v.Nodes.All() {
		lines = append(lines, fmt.Sprintln(api.KindNode, n.ID, n.Spec.Availability, n.Spec.Role, n.Status.State, n.Spec.Labels))
	}
	slices.Sort(lines)
	h := fnv.New64a()
	for _, line := range lines {
		_, _ = h.Write([]byte(line))
	}
	const digits = 1_000_000_000_000 // short enough to be typed
	return h.Sum64() % digits
}
