package task

import (
	"sync"

	"shoal/internal/api"
	"shoal/internal/wake"
)

// inbox gathers what the loop has to hear. Nobody who puts something in waits,
// and the loop takes everything that came since it last looked: rounds grow
// under load and nothing is delayed without it.
type inbox struct {
	kick wake.Bell

	mu   sync.Mutex
	mail mail
}

// mail is the content of an inbox.
type mail struct {
	state   *api.NodeState      // newest wanted state; nil for no news
	online  *bool               // whether a manager speaks to this node; nil for no news
	link    *bool               // whether the engine is connected; nil for no news
	hints   map[string]struct{} // tasks whose container something happened to
	results []result
	lists   []listing
	synced  []syncing
}

func newInbox() *inbox {
	return &inbox{kick: wake.NewBell(), mail: mail{hints: map[string]struct{}{}}}
}

func (b *inbox) put(f func(*mail)) {
	b.mu.Lock()
	f(&b.mail)
	b.mu.Unlock()
	b.kick.Ring()
}

func (b *inbox) link(up bool) { b.put(func(m *mail) { m.link = &up }) }

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{hints: map[string]struct{}{}}
	return m
}
