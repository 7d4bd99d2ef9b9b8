package daemon

import (
	"context"
	"sync"

	"shoal/internal/session"
)

// describe tells the managers what this node is, until ctx ends.
func (m *member) describe(ctx context.Context) error {
	words := make(chan engineWord)
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		watchEngine(ctx, m.engine, m.log, func(w engineWord) {
			select {
			case words <- w:
			case <-ctx.Done():
			}
		})
	})
	h := session.Hello{Addr: m.id.AdvertiseAddr, DataPath: m.id.DataPathAddr, Networkless: m.mesh.networkless}
	known := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case w := <-words:
			known = true
			w.say(&h)
		case <-m.keeper.changed:
		case <-m.cipher.changed:
		}
		if !known {
			continue // what a node says first is how it is
		}
		h.Description.TLSInfo, h.WireGuard = m.keeper.info(), m.cipher.public()
		m.client.Hello(h) // is sent if it is news
	}
}
