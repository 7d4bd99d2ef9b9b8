package daemon

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"shoal/cluster/gossip"
	"shoal/internal/api"
	"shoal/internal/store"
)

// rumours is a member's part in gossip: which hosts can be reached, and where.
// It begins with the keys that were kept, or when the managers have first handed
// some out.
type rumours struct {
	m    *member
	keys chan []gossip.Key             // the newest, not taken yet
	live atomic.Pointer[gossip.Gossip] // nil until it runs

	mu   sync.Mutex
	back map[string]bool // nodes that were gone and are not, and that the managers hold for DOWN still
}

func newRumours(m *member) *rumours {
	return &rumours{m: m, keys: make(chan []gossip.Key, 1), back: map[string]bool{}}
}

// set takes in what the managers say.
func (r *rumours) set(s *api.NodeState) {
	if len(s.GossipKeys) == 0 {
		return
	}
	var keys []gossip.Key
	for _, k := range s.GossipKeys {
		keys = append(keys, k)
	}
	select {
	case <-r.keys: // the newest counts
	default:
	}
	r.keys <- keys
	if g := r.current(); g != nil {
		g.Refresh()
	}
}

// current is the running gossip, or nil.
func (r *rumours) current() *gossip.Gossip { return r.live.Load() }

// lookup finds where a node is according to gossip, which hears of a new address
// before the managers can agree on it.
func (r *rumours) lookup(nodeID string) (string, bool) {
	g := r.current()
	if g == nil {
		return "", false
	}
	// Of one that does not answer, the managers may know better.
	m, ok := g.Lookup(nodeID)
	if !ok || m.Verdict != gossip.Alive || !m.Addr.IsValid() {
		return "", false
	}
	return m.Addr.String(), true
}

// gone tells whether a node's host can not be reached from here.
func (r *rumours) gone(nodeID string) bool {
	g := r.current()
	if g == nil {
		return false
	}
	m, ok := g.Lookup(nodeID)
	return ok && m.Verdict == gossip.Gone
}

// verdict is what gossip makes of a node, in words.
func (r *rumours) verdict(nodeID string) string {
	if g := r.current(); g != nil {
		if m, ok := g.Lookup(nodeID); ok {
			return m.Verdict.String()
		}
	}
	return gossip.Unknown.String()
}

// run takes part until ctx ends.
func (r *rumours) run(ctx context.Context) error {
	var g *gossip.Gossip
	ended := make(chan error, 1)
	kept := r.kept()
	if kept != nil {
		select {
		case r.keys <- kept:
		default: // newer ones are there
		}
	}
	for {
		select {
		case <-ctx.Done():
			if g != nil {
				<-ended
			}
			return ctx.Err()
		case err := <-ended:
			return err
		case keys := <-r.keys:
			if !slices.EqualFunc(kept, keys, func(a, b gossip.Key) bool { return bytes.Equal(a, b) }) && r.keep(keys) {
				kept = keys
			}
			if g != nil {
				if err := g.SetKeys(keys); err != nil {
					r.m.log.Error("can not use the gossip keys that the managers handed out", zap.Error(err))
				}
				continue
			}
			var err error
			if g, err = r.open(keys); err != nil {
				return err
			}
			r.live.Store(g)
			go func() { ended <- g.Run(ctx) }()
		}
	}
}

// kept are the keys of the daemon's last run.
func (r *rumours) kept() []gossip.Key {
	keys, err := loadGossipKeys(r.m.dir, r.m.vault.dataKey())
	if err != nil {
		r.m.log.Warn("until the managers hand out the keys of gossip, this node can not be found if it has moved", zap.Error(err))
	}
	return keys
}

func (r *rumours) keep(keys []gossip.Key) bool {
	err := saveGossipKeys(r.m.dir, keys, r.m.vault.dataKey())
	if err != nil {
		r.m.log.Warn("after a restart at another address this node may not be found", zap.Error(err))
	}
	return err == nil
}

func (r *rumours) open(keys []gossip.Key) (*gossip.Gossip, error) {
	m := r.m
	self, err := netip.ParseAddrPort(m.id.AdvertiseAddr)
	if err != nil {
		return nil, err
	}
	return gossip.New(gossip.Config{
		NodeID: m.id.NodeID, ClusterID: m.id.ClusterID, Port: m.cluster.Port, Keys: keys,
		Advertise: func() netip.AddrPort { return self },
		Peers:     m.peers, Admit: m.known, OnChange: r.heard, Logger: m.log,
	})
}

// heard acts on what is found of a host. Its tasks get no new connections from
// here while it can not be reached from here, and the leader loses patience.
func (r *rumours) heard(p gossip.Member) {
	r.mu.Lock()
	if gone := p.Verdict == gossip.Gone; !gone && r.down(p.NodeID) {
		r.back[p.NodeID] = true
	} else {
		delete(r.back, p.NodeID)
		r.mute(p.NodeID, gone)
	}
	r.mu.Unlock()
	if r.m.manager != nil {
		r.m.manager.server.Look()
	}
}

// down tells whether the managers' last word is that a node is DOWN. What they
// say of its tasks is true again when they hold it for READY.
func (r *rumours) down(nodeID string) bool {
	s := r.m.state.Load()
	return s != nil && s.Peers[nodeID].Down
}

// confirm takes in what the managers say of nodes that came back, once the mesh
// has what they say of their tasks.
func (r *rumours) confirm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.back {
		if !r.down(id) {
			delete(r.back, id)
			r.mute(id, false)
		}
	}
}

func (r *rumours) mute(nodeID string, yes bool) {
	r.m.names.Mute(nodeID, yes)
	if err := r.m.mesh.Mute(context.Background(), nodeID, yes); err != nil {
		r.m.log.Error("can not change which nodes get new connections", zap.String("node", nodeID), zap.Error(err))
	}
}

// peers are the other nodes as the managers last described them; before they
// have, the managers as they were in the last run.
func (m *member) peers() []gossip.Peer {
	var out []gossip.Peer
	s := m.state.Load()
	if s == nil {
		for _, p := range m.book.list() {
			if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
				out = append(out, gossip.Peer{NodeID: p.NodeID, Addr: addr})
			}
		}
		return out
	}
	for id, p := range s.Peers {
		if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
			out = append(out, gossip.Peer{NodeID: id, Addr: addr})
		}
	}
	return out
}

// known tells whether a node is a member, as far as this one has heard.
func (m *member) known(nodeID string) bool {
	s := m.state.Load()
	if s == nil || nodeID == m.id.NodeID {
		return true
	}
	_, ok := s.Peers[nodeID]
	return ok
}

// gossipKeys changes the keys of gossip when they are due, while leading.
func (m *manager) gossipKeys(ctx context.Context) error {
	for {
		wait, err := m.nextGossipKeys(ctx)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (m *manager) nextGossipKeys(ctx context.Context) (wait time.Duration, err error) {
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		c := tx.Cluster()
		if c == nil {
			wait = time.Second // just founded
			return nil
		}
		var keys, next []gossip.Key
		for _, k := range c.GossipKeys {
			keys = append(keys, k)
		}
		if next, wait = gossip.NextKeys(keys, c.GossipStep, c.GossipKeysSince, time.Now()); next == nil {
			return nil
		}
		c = c.Tended()
		c.GossipKeys = rawKeys(next)
		c.GossipKeysSince, c.GossipStep = time.Now().UTC(), c.GossipStep+1
		return tx.Put(c)
	})
	return wait, err
}

func rawKeys(keys []gossip.Key) [][]byte {
	var out [][]byte
	for _, k := range keys {
		out = append(out, slices.Clone(k))
	}
	return out
}
