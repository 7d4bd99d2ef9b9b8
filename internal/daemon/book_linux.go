package daemon

import (
	"maps"
	"slices"
	"sync"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// book is what a node knows of the managers: where they are, and which of them
// leads as far as it was told. It is how a worker finds the leader.
type book struct {
	mu     sync.Mutex
	addrs  map[string]string // by node ID
	leader string
	turn   int // whom to ask next while the leader is not known
}

func newBook(managers []swarm.Peer) *book {
	b := &book{addrs: map[string]string{}}
	for _, p := range managers {
		b.addrs[p.NodeID] = p.Addr
	}
	return b
}

// update takes in the managers of a state; changed tells whether that is news.
func (b *book) update(self *api.Node, peers map[string]api.Peer) (changed bool) {
	next := map[string]string{}
	for id, p := range peers {
		if p.Manager {
			next[id] = p.Addr
		}
	}
	if self.Role == swarm.NodeRoleManager {
		next[self.ID] = self.Addr
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = !maps.Equal(b.addrs, next)
	b.addrs = next
	return changed
}

// list gives the managers in order of node ID.
func (b *book) list() []swarm.Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []swarm.Peer
	for _, id := range slices.Sorted(maps.Keys(b.addrs)) {
		out = append(out, swarm.Peer{NodeID: id, Addr: b.addrs[id]})
	}
	return out
}

// address finds a manager.
func (b *book) address(nodeID string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, ok := b.addrs[nodeID]
	return addr, ok
}

// moved notes who leads, and where.
func (b *book) moved(nodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leader = nodeID
	b.addrs[nodeID] = addr
}

// next gives the manager to ask now: the leader, once, and then one after the
// other until one of them names the leader again.
func (b *book) next() (swarm.Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id := b.leader; id != "" {
		b.leader = ""
		if addr, ok := b.addrs[id]; ok {
			return swarm.Peer{NodeID: id, Addr: addr}, true
		}
	}
	ids := slices.Sorted(maps.Keys(b.addrs))
	if len(ids) == 0 {
		return swarm.Peer{}, false
	}
	b.turn = (b.turn + 1) % len(ids)
	id := ids[b.turn]
	return swarm.Peer{NodeID: id, Addr: b.addrs[id]}, true
}
