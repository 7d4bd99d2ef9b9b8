package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// An examination asks the accused itself, and its kernel, in rounds.
//
// At 30% loss one ping or one knock goes unanswered with probability
// 1-0.7² = 0.51. 20 pings and 9 knocks make that 0.51^29, one in 300 million;
// half a second of complete silence is something else than loss.
const (
	round      = 25 * time.Millisecond
	rounds     = 20
	knockFrom  = 3 // the first rounds settle nearly all, so knocks begin after
	knockEvery = 2
	maxKnocks  = 3 * rounds / knockEvery // at once, with three addresses to try
	// late: a round that took so much longer says that this daemon was starved
	// or stopped. It then has not listened either, and the round does not count.
	late = 3 * round
	// glance is the one patient round by which a node already convicted is
	// looked at again.
	glance = 200 * time.Millisecond
)

// pong is an answer to one of our pings.
type pong struct {
	nodeID string
	addr   netip.AddrPort
}

// finding is what an examination brought to light.
type finding struct {
	daemon bool // it answered
	host   bool // its kernel did
	addr   netip.AddrPort
}

func (f finding) verdict() Verdict {
	switch {
	case f.daemon:
		return Alive
	case f.host:
		return DaemonDown
	default:
		return Gone
	}
}

// ask examines a node at every address it may have, for n rounds, or one long
// one. It ends early only with good news.
func (g *Gossip) ask(ctx context.Context, nodeID string, addrs []netip.AddrPort, n int, length time.Duration) finding {
	var f finding
	nonce := rand.Uint64()
	answers := make(chan pong, 1)
	g.listen(nonce, answers)
	defer g.listen(nonce, nil)

	var knocks sync.WaitGroup
	defer knocks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	doors := make(chan struct{}, 1)
	standing := make(chan struct{}, maxKnocks)
	knock := func(addr netip.AddrPort) {
		select {
		case standing <- struct{}{}:
		default: // an examiner that is always late and never done
			return
		}
		knocks.Go(func() {
			defer func() { <-standing }()
			ctx, cancel := context.WithTimeout(ctx, rounds*round)
			defer cancel()
			if g.net.Knock(ctx, addr) {
				select {
				case doors <- struct{}{}:
				default:
				}
			}
		})
	}

	timer := time.NewTimer(length)
	defer timer.Stop()
	for silent := 0; silent < n; {
		for _, addr := range addrs {
			g.send(kindPing, call{nonce, g.advertised()}, addr)
			if !f.host && (n == 1 || silent >= knockFrom && silent%knockEvery == knockFrom%knockEvery) {
				knock(addr)
			}
		}
		began := time.Now()
		timer.Reset(length)
		for waiting := true; waiting; {
			select {
			case p := <-answers:
				if p.nodeID == nodeID {
					f.daemon, f.addr = true, p.addr
					return f
				}
			case <-doors:
				f.host = true
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				return f
			}
		}
		if time.Since(began) <= length+late {
			silent++
		}
	}
	return f
}

// listen registers who waits for answers to a nonce; nil ends it.
func (g *Gossip) listen(nonce uint64, answers chan<- pong) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if answers == nil {
		delete(g.pending, nonce)
	} else {
		g.pending[nonce] = answers
	}
}

// answered passes a pong to whoever waits for it. Replays find nobody.
func (g *Gossip) answered(sender string, c call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch, ok := g.pending[c.nonce]; ok {
		select {
		case ch <- pong{sender, c.addr}:
		default:
		}
	}
}

// examine stays with one node from the first doubt until it is known to be well.
func (g *Gossip) examine(p *peer) {
	thorough := true
	for {
		n, length := rounds, round
		if !thorough {
			n, length = 1, glance
		}
		f := g.ask(g.ctx, p.NodeID, g.addresses(p), n, length)
		if g.ctx.Err() != nil {
			return
		}
		v, was := f.verdict(), p.is(g)
		if !thorough && v == Gone && was != Gone {
			thorough = true // one silent glance is no proof
			continue
		}
		if v == Gone && was != Gone {
			g.spread(p.NodeID)
		}
		pause, done := g.judge(p, v, f.addr)
		if done {
			return
		}
		thorough = v == Alive // which takes one round if it is still true
		select {
		case <-time.After(pause):
		case <-p.wake:
		case <-g.ctx.Done():
			return
		}
	}
}

// confidants is how many others hear of a node that was found silent. All who
// find it so pass it on, so that it reaches everybody at once even while a
// lossy network keeps memberlist's queues full.
const confidants = 8

// spread has others examine a node as well.
func (g *Gossip) spread(nodeID string) {
	g.mu.Lock()
	var to []netip.AddrPort
	for id, p := range g.peers { // in random order
		if id != nodeID && p.Verdict == Alive && len(to) < confidants {
			to = append(to, p.Addr)
		}
	}
	g.mu.Unlock()
	packet, err := g.keys.seal(kindDoubt, g.cfg.NodeID, []byte(nodeID))
	if err != nil {
		return
	}
	for _, addr := range to {
		_ = g.net.Write(packet, addr)
	}
}

// judge records a verdict and says when to look again, or that there is no need.
func (g *Gossip) judge(p *peer, v Verdict, addr netip.AddrPort) (pause time.Duration, done bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peers[p.NodeID] != p { // removed meanwhile
		p.examined = false
		return 0, true
	}
	g.settle(p, v, addr)
	if v != Alive {
		p.missed = false
		return pauseAfter(time.Since(p.Since)), false
	}
	p.direct, p.hint = time.Now(), netip.AddrPort{}
	if p.listed {
		p.missed, p.examined = false, false
		return 0, true
	}
	// Falsely accused, it is about to hear of that and to refute it. If it has
	// not by the next look, or memberlist has never had it, we tell it.
	if p.missed || !p.tried {
		g.join(p)
	}
	p.missed = true
	return refuteTime, false
}

// refuteTime is for the news of an accusation to go there and come back.
const refuteTime = time.Second

// pauseAfter: who fell silent just now may be back in a moment; who has been
// silent for an hour will say so when he returns.
func pauseAfter(silent time.Duration) time.Duration {
	switch {
	case silent < 15*time.Second:
		return 250 * time.Millisecond
	case silent < time.Minute:
		return time.Second
	default:
		return 5 * time.Second
	}
}

// join makes memberlist compare notes with a node that it does not list, by a
// stream that may hang if the node dies at this moment: nobody waits for it.
// g.mu is held.
func (g *Gossip) join(p *peer) {
	select {
	case g.joining <- struct{}{}:
	default: // others are at it, and will learn of this node as well
		return
	}
	if g.over || g.list == nil {
		<-g.joining
		return
	}
	p.tried = true
	list, id, addr := g.list, p.NodeID, p.Addr
	g.wg.Go(func() {
		defer func() { <-g.joining }()
		if _, err := list.Join([]string{id + "/" + addr.String()}); err != nil {
			g.log.Debug("compare notes", zap.String("node", id), zap.Stringer("addr", addr), zap.Error(err))
		}
	})
}

// addresses are all the places where a node may be, the likeliest first.
func (g *Gossip) addresses(p *peer) []netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []netip.AddrPort
	for _, a := range []netip.AddrPort{p.hint, p.Addr, p.seed} {
		if usable(a) && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
