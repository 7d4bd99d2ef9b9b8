package session

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/internal/wake"
)

// pulse is the one authority on which nodes are READY and which are DOWN.
// Heartbeats stay in memory; the store hears only of a change.
type pulse struct {
	store  *store.Store
	log    *zap.Logger
	period func() time.Duration
	gone   func(nodeID string) bool // what gossip has found of its host
	onDown func(nodeID string)      // ends what is left of the node's session: it has to say Hello again

	mu    sync.Mutex
	signs map[string]sign // of every node that has been heard of since it was last DOWN
	// fallen are the nodes that were declared DOWN a moment ago, with until when
	// they count as having gone together with others.
	fallen map[string]time.Time
	ready  wake.Bell // a sign that run does not know yet

	holding bool // run's own
}

func newPulse(s *store.Store, log *zap.Logger, period func() time.Duration, gone func(string) bool, onDown func(string)) *pulse {
	return &pulse{store: s, log: log, period: period, gone: gone, onDown: onDown, signs: map[string]sign{}, fallen: map[string]time.Time{}, ready: wake.NewBell()}
}

// alive notes a sign of life, of a node that keeps this heartbeat period.
func (p *pulse) alive(nodeID string, period time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.signs[nodeID]
	delete(p.fallen, nodeID)
	p.signs[nodeID] = sign{last: time.Now(), period: period}
	if !known {
		p.ready.Ring()
	}
}

// hello writes what a node says of itself, and that it is READY, or DOWN if it
// says that its engine is gone.
func (p *pulse) hello(ctx context.Context, nodeID string, h *Hello) error {
	status := swarm.NodeStatus{State: swarm.NodeStateReady, Message: h.EngineSilent, Addr: host(h.Addr)}
	if h.EngineError != "" {
		status.State, status.Message = swarm.NodeStateDown, h.EngineError
	}
	p.alive(nodeID, p.period())
	changed := false
	err := p.store.Update(ctx, func(tx *store.Tx) error {
		n, ok := tx.Nodes.Get(nodeID)
		if !ok {
			return fmt.Errorf("node %s is not a member of this cluster", nodeID)
		}
		next := api.Clone(n)
		if h.Description.Hostname != "" {
			next.Description = h.Description
		}
		next.Description.TLSInfo = h.Description.TLSInfo // known also while the engine is not
		next.SetStatus(status, time.Now())
		next.NoEngine = status.Message != ""
		next.Addr, next.DataPath, next.Networkless = h.Addr, h.DataPath, h.Networkless
		next.SetWireGuard(h.WireGuard, time.Now())
		if changed = !reflect.DeepEqual(n, next); !changed {
			return nil
		}
		return tx.Put(next)
	})
	if err != nil {
		return fmt.Errorf("note that node %s is %s: %w", nodeID, status.State, err)
	}
	p.alive(nodeID, p.period()) // nothing of it was read while that was written
	if changed {
		p.log.Info("node reported", zap.String("node", nodeID), zap.String("state", string(status.State)), zap.String("message", status.Message))
	}
	return nil
}

func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return h
}

// run declares nodes DOWN when their time has passed.
func (p *pulse) run(ctx context.Context) error {
	p.mu.Lock()
	for n := range p.store.View().Nodes.All() {
		if n.Status.State == swarm.NodeStateReady {
			p.signs[n.ID] = sign{last: time.Now(), period: p.period()}
		}
	}
	p.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-p.ready:
		}
		if late := time.Since(due); late > tolerated {
			// This process stood still, or nearly so: it has heard nobody, and
			// what was said meanwhile waits to be read.
			p.log.Warn("this manager was held up; every node gets its patience anew", zap.Duration("for", late))
			p.pardon()
		}
		now := p.look()
		p.say(now)
		for _, id := range now.lapsed {
			p.onDown(id)
		}
		if !now.hold {
			for _, id := range now.overdue {
				if err := p.down(ctx, id); err != nil {
					return err
				}
				now.next = 0 // that took its time: whose ended meanwhile?
			}
		}
		// Both at once: what is done in between is not being held up.
		due = time.Now().Add(now.next)
		timer.Reset(now.next)
	}
}

// pardon gives every node its patience anew.
func (p *pulse) pardon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.signs {
		s.last = time.Now()
		p.signs[id] = s
	}
}

// look judges the nodes that the store holds for READY. One that left, or says
// that its engine is gone, is DOWN already, and one that was removed is nobody
// to wait for.
func (p *pulse) look() judgement {
	v := p.store.View()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	ready, others := make(map[string]sign, len(p.signs)), map[string]sign{}
	for id, s := range p.signs {
		n, ok := v.Nodes.Get(id)
		if !ok {
			delete(p.signs, id)
			continue
		}
		s.gone = p.gone(id)
		p.signs[id] = s
		if n.Status.State == swarm.NodeStateReady {
			ready[id] = s
		} else {
			others[id] = s
		}
	}
	for id, until := range p.fallen {
		if _, ok := v.Nodes.Get(id); !ok || !now.Before(until) {
			delete(p.fallen, id)
		}
	}
	j := judge(ready, len(p.fallen), p.period(), now)
	// What is left of the session of a node that is DOWN already would hold up
	// every task that is to stop.
	for id, s := range others {
		if left := s.patience(p.period()) - now.Sub(s.last); left > 0 {
			j.next = min(j.next, left)
		} else {
			delete(p.signs, id)
			j.lapsed = append(j.lapsed, id)
		}
	}
	return j
}

// tolerated is how much later than it asked to the leader may wake and still
// trust its own silence. A busy machine is late by far less.
const tolerated = time.Second

// say tells once when the leader begins to hold, and when it ends.
func (p *pulse) say(now judgement) {
	if now.hold == p.holding {
		return
	}
	p.holding = now.hold
	if now.hold {
		p.log.Error("more than a third of the nodes went silent together: that is more likely this manager's network than all of theirs. Their tasks are left where they are until some come back; remove a node that is lost with \"node rm --force\"", zap.Int("silent", now.silent), zap.Int("nodes", now.nodes), zap.Strings("overdue", now.overdue))
	} else {
		p.log.Info("enough nodes are back, or were removed: silent ones are declared down again")
	}
}

// sign is the last that was noticed of a node that is not DOWN.
type sign struct {
	last   time.Time     // sign of life in its session
	period time.Duration // heartbeat period that it keeps, as far as it has said
	gone   bool          // gossip has found its host gone
}

// beatsPerPeriod is how many heartbeats a node sends in the cluster's heartbeat
// period. The period says how long a node may be silent; that a silence is
// noticed early takes more signs of life than one in that time.
const beatsPerPeriod = 10

// shortLapse is how many heartbeats may be missing before a node is DOWN that
// gossip has found gone as well. Two that agree need less time than one alone.
const shortLapse = 3

// beat is the time between two heartbeats.
func beat(period time.Duration) time.Duration { return period / beatsPerPeriod }

// patience is how long a node may be silent. It is held against the period that
// it was told of, not against a new one.
func (s sign) patience(period time.Duration) time.Duration {
	period = max(period, s.period)
	if s.gone {
		return shortLapse * beat(period)
	}
	return Lapse * period
}

// judgement is what the signs of all READY nodes amount to.
type judgement struct {
	overdue []string      // their time has passed
	lapsed  []string      // the same of nodes that are DOWN
	silent  int           // nodes that went silent together with these
	nodes   int           // of how many
	hold    bool          // that is too many to believe it
	next    time.Duration // when to look again
}

// judge finds the nodes whose time has passed, and whether others went with
// them. What cuts nodes off cuts them off at one moment, but their last signs of
// life are spread over a heartbeat, and gossip finds them gone one by one: the
// first is overdue while all others have time left. So those count as well that
// have missed a heartbeat, by half of one, and the fallen, who were declared
// DOWN a moment ago.
func judge(signs map[string]sign, fallen int, period time.Duration, now time.Time) judgement {
	j := judgement{next: Lapse * period, silent: fallen, nodes: fallen + len(signs)}
	for id, s := range signs {
		beat := beat(max(period, s.period))
		silence := now.Sub(s.last)
		if silence > beat+beat/2 {
			j.silent++
		}
		left := s.patience(period) - silence
		if left <= 0 {
			j.overdue = append(j.overdue, id)
			left = beat // it stays overdue while the leader holds
		}
		j.next = min(j.next, left)
	}
	slices.Sort(j.overdue)
	j.hold = len(j.overdue) > 0 && tooMany(j.silent, j.nodes)
	return j
}

// tooMany tells when nodes that fell silent together are not believed to have
// died together. Two are always believed: in a small cluster they are many.
func tooMany(silent, nodes int) bool { return silent > 2 && silent*3 > nodes }

// down declares a node DOWN that is still overdue.
func (p *pulse) down(ctx context.Context, nodeID string) error {
	p.mu.Lock()
	s := p.signs[nodeID]
	period := p.period()
	if time.Since(s.last) < s.patience(period) { // it was heard of while others were written
		p.mu.Unlock()
		return nil
	}
	delete(p.signs, nodeID)
	p.fallen[nodeID] = time.Now().Add(Lapse * period)
	p.mu.Unlock()
	message := fmt.Sprintf("no heartbeat for %s", time.Since(s.last).Round(100*time.Millisecond))
	changed := false
	err := p.store.Update(ctx, func(tx *store.Tx) error {
		n, ok := tx.Nodes.Get(nodeID)
		if changed = ok && n.Status.State != swarm.NodeStateDown; !changed {
			return nil
		}
		n = api.Clone(n)
		n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateDown, Message: message, Addr: n.Status.Addr}, time.Now())
		return tx.Put(n)
	})
	if err != nil {
		return fmt.Errorf("note that node %s is down: %w", nodeID, err)
	}
	if changed {
		p.onDown(nodeID)
		p.log.Warn("node is down", zap.String("node", nodeID), zap.String("reason", message))
	}
	return nil
}
