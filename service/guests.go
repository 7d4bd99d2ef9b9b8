package service

import (
	"context"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

func (t *term) absorbGuest(v *store.View, id string) {
	var held []lease
	if g, ok := v.Guests.Get(id); ok {
		held = guestLeases(g)
		t.guests = t.guests || waits(g)
	}
	t.free(t.leases.set(id, held))
}

// waits tells whether a guest has no answer yet.
func waits(g *api.Guest) bool { return !g.Addr.IsValid() && g.Err == "" }

// admitGuests gives guests that wait for an address one, or the reason why there
// is none, and forgets those of nodes that are gone. It is here, with all other
// addresses, so that none is given twice.
func (t *term) admitGuests(ctx context.Context, v *store.View) {
	if !t.guests {
		return
	}
	t.guests = false
	var answered, gone []*api.Guest
	for g := range v.Guests.All() {
		if _, ok := v.Nodes.Get(g.NodeID); !ok {
			gone = append(gone, g)
		} else if waits(g) {
			n := api.Clone(g)
			addr, err := t.leases.admit(g)
			if n.Addr = addr; err != nil {
				n.Err = err.Error()
			}
			answered = append(answered, n)
		}
	}
	if len(answered)+len(gone) == 0 {
		return
	}
	var refused []*api.Guest
	err := t.store.Update(ctx, func(tx *store.Tx) error {
		refused = nil
		for _, g := range answered {
			now, ok := tx.Guests.Get(g.ID)
			if !ok || !waits(now) {
				continue
			}
			if ok, err := t.leases.widen(tx, guestLeases(g)); err != nil {
				return err
			} else if !ok {
				refused = append(refused, g)
				continue
			}
			if err := tx.Put(g); err != nil {
				return err
			}
		}
		for _, g := range gone {
			if err := tx.Delete(api.KindGuest, g.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, g := range refused { // they get another when this term hears who has that one
			t.leases.set(g.ID, nil)
			t.guests = true
		}
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	// Whoever asked has given up by then, and asks again. If nobody knows whether
	// it was written, the addresses stay leased for the rest of this term.
	t.log.Error("addresses of containers were not written", zap.Error(err))
}

// admit leases the address that a guest asked for, or the next one.
func (l *leases) admit(g *api.Guest) (netip.Prefix, error) {
	pool, ok := l.pools[g.NetworkID]
	if !ok {
		return netip.Prefix{}, fmt.Errorf("network %s does not exist", g.NetworkID)
	}
	next := l.next
	if g.Wanted.IsValid() {
		next = func(string) (netip.Prefix, error) { return pool.Claim(g.Wanted) }
	}
	a, err := next(g.NetworkID)
	if err == nil {
		l.owners[g.ID] = []lease{{g.NetworkID, a.Addr()}}
	}
	return a, err
}
