package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"shoal/internal/wake"
)

// peer is another node. Gossip.mu guards it.
type peer struct {
	Member
	seed netip.AddrPort // where the managers believe it to be
	hint netip.AddrPort // where it last said it was

	listed   bool      // alive to memberlist
	tried    bool      // was listed, or asked to, since the memberlist was started
	missed   bool      // answered while it was not listed
	direct   time.Time // its daemon last answered this one
	examined bool      // by a goroutine of its own
	wake     wake.Bell
}

func (p *peer) is(g *Gossip) Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return p.Verdict
}

const (
	// tendInterval is how often the books are gone through; news wake it.
	tendInterval = 250 * time.Millisecond
	// quietBase and quietRounds: a node that only others reach is examined when
	// so many of our own probes of it must have failed. memberlist is content
	// as long as anybody reaches it, but our traffic goes by our own path.
	quietBase   = 2 * time.Second
	quietRounds = 3
)

// tend keeps the books until Run ends: who belongs here, who is in doubt.
func (g *Gossip) tend() error {
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	for {
		if err := g.settleIn(g.cfg.Advertise()); err != nil {
			return err
		}
		g.review(g.cfg.Peers(), time.Now())
		g.callOut(time.Now())
		select {
		case <-tick.C:
		case <-g.wake:
		case <-g.ctx.Done():
			return nil
		}
	}
}

// settleIn starts memberlist under the node's address, or anew under a new one.
func (g *Gossip) settleIn(addr netip.AddrPort) error {
	old := g.current()
	if !usable(addr) || old != nil && old.transport.addr == addr {
		return nil // an interface without address for a moment is no move
	}
	if old != nil {
		g.log.Info("this node has moved", zap.Stringer("from", old.transport.addr), zap.Stringer("to", addr))
		old.stop()
		g.mu.Lock()
		for _, p := range g.peers {
			p.listed, p.tried = false, false
		}
		g.mu.Unlock()
	}
	list, err := g.newListing(addr)
	if err != nil {
		return fmt.Errorf("gossip at %s: %w", addr, err)
	}
	g.mu.Lock()
	g.list, g.moved = list, time.Now()
	g.mu.Unlock()
	return nil
}

// review compares the managers' list with ours.
func (g *Gossip) review(wanted []Peer, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range wanted {
		if w.NodeID == g.cfg.NodeID || !g.cfg.Admit(w.NodeID) {
			continue
		}
		g.peer(w.NodeID).seed = w.Addr
	}
	quiet := quietBase + time.Duration(quietRounds*len(g.peers))*probeInterval
	for id, p := range g.peers {
		switch {
		case !g.cfg.Admit(id):
			delete(g.peers, id)
			delete(g.changed, id)
			p.rouse()
		case !p.listed || now.Sub(p.direct) > quiet:
			g.doubt(p)
		}
	}
}

// peer finds or makes one. g.mu is held.
func (g *Gossip) peer(id string) *peer {
	p, ok := g.peers[id]
	if !ok {
		p = &peer{Member: Member{NodeID: id}, wake: wake.NewBell()}
		g.peers[id] = p
	}
	return p
}

// doubt has a node examined. g.mu is held.
func (g *Gossip) doubt(p *peer) {
	if p.examined || g.over {
		return
	}
	p.examined = true
	g.wg.Go(func() { g.examine(p) })
}

// rouse ends an examiner's pause.
func (p *peer) rouse() {
	p.wake.Ring()
}

// settle records a verdict. g.mu is held.
func (g *Gossip) settle(p *peer, v Verdict, addr netip.AddrPort) {
	if usable(addr) && addr != p.Addr {
		if p.Addr.IsValid() {
			g.log.Info("node has moved", zap.String("node", p.NodeID), zap.Stringer("from", p.Addr), zap.Stringer("to", addr))
		}
		p.Addr = addr
		g.tell(p.NodeID)
	}
	if v == p.Verdict {
		return
	}
	if p.Verdict != Unknown || v != Alive {
		g.log.Info("node is "+v.String(), zap.String("node", p.NodeID), zap.Stringer("addr", p.Addr), zap.Stringer("was", p.Verdict))
	}
	p.Verdict, p.Since = v, time.Now()
	if v == Gone {
		g.lost = p.Since
	}
	g.tell(p.NodeID)
}

// joined is memberlist's word that a node is alive. It is taken for a node we
// know nothing of; one that was found silent has to answer us.
func (g *Gossip) joined(id string, addr netip.AddrPort, meta string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peer(id)
	p.listed, p.tried = true, true
	if p.Meta != meta {
		p.Meta = meta
		g.tell(id)
	}
	if p.Verdict == Unknown {
		p.direct = time.Now()
		g.settle(p, Alive, addr)
	}
	if p.Addr != addr {
		p.hint = addr
		g.doubt(p)
	}
	p.rouse()
}

// unlisted is memberlist's word that a node is dead.
func (g *Gossip) unlisted(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.peers[id]; ok {
		p.listed = false
		g.doubt(p)
	}
}

// accused is another node's word that it finds one silent.
func (g *Gossip) accused(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.peers[id]; ok {
		g.doubt(p)
	}
}

// touched is a direct answer to one of memberlist's probes.
func (g *Gossip) touched(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.peers[id]; ok {
		p.direct = time.Now()
	}
}

// hint is a node's own word on where it is, which it has to confirm by an
// answer from there.
func (g *Gossip) hint(id string, addr netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peer(id)
	if p.Addr == addr && p.Verdict == Alive {
		return
	}
	p.hint = addr
	g.doubt(p)
	p.rouse()
}

// callOut makes this node heard on its segments while somebody is missing: who
// moved at the same time finds it, and it finds them. Everybody who hears it
// answers, so it becomes rare with time.
func (g *Gossip) callOut(now time.Time) {
	g.mu.Lock()
	list, missing := g.list, false
	for _, p := range g.peers {
		missing = missing || p.Verdict == Gone
	}
	since := now.Sub(g.lost)
	if d := now.Sub(g.moved); d < since {
		since = d
	}
	due := missing && list != nil && now.Sub(g.called) >= callInterval(since)
	if due {
		g.called = now
	}
	g.mu.Unlock()
	if !due {
		return
	}
	packet, err := g.keys.seal(kindPing, g.cfg.NodeID, call{rand.Uint64(), list.transport.addr}.encode())
	if err == nil {
		g.net.Shout(packet)
	}
}

func callInterval(since time.Duration) time.Duration {
	switch {
	case since < 30*time.Second:
		return 2 * time.Second
	case since < 10*time.Minute:
		return 15 * time.Second
	default:
		return time.Minute
	}
}
