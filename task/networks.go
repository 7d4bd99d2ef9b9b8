package task

import "time"

// networks says when the engine's networks are to be compared with those of the
// state. Any one comparison may come too early: a container is still on a
// network that goes, or one that was being made from an older state makes its
// network again. So whatever may change the outcome makes it due once more, also
// while one is under way.
type networks struct {
	due     bool
	busy    bool
	tries   int       // in a row that left something to do
	retryAt time.Time // when it is due again by itself; zero if nothing is left
}

// wake makes it due when it is time.
func (n *networks) wake(now time.Time) {
	if !n.retryAt.IsZero() && !now.Before(n.retryAt) {
		n.due, n.retryAt = true, time.Time{}
	}
}

// synced takes in how a comparison ended.
func (n *networks) synced(r syncing, now time.Time) {
	n.busy = false
	if !r.inUse && r.err == nil {
		n.tries, n.retryAt = 0, time.Time{}
		return
	}
	n.retryAt = now.Add(min(retryMin<<min(n.tries, 10), retryMax))
	n.tries++
}

// syncNetworks has the engine get the networks that it should have, when
// something happened that may have changed which these are.
func (l *loop) syncNetworks() {
	if !l.networks.due || l.networks.busy || !l.up || !l.listed || !l.confirmed {
		return
	}
	l.networks.due, l.networks.busy = false, true
	l.actions.Go(func() {
		var r syncing
		r.inUse, r.err = l.cfg.Executor.SyncNetworks(l.ctx, l.ledger.wanted)
		l.inbox.put(func(m *mail) { m.synced = append(m.synced, r) })
	})
}
