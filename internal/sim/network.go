package sim

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// How the network treats a message.
const (
	minDelay = 100 * time.Microsecond
	maxDelay = 2 * time.Millisecond
	// firstRetry is how soon a lost message is sent again, as TCP does; the
	// pause doubles from there.
	firstRetry = 200 * time.Millisecond
	// resetRate is how often a lost message takes its connection with it
	// instead, so that the sender knows at once that something is wrong.
	resetRate = 0.25
	// patience is when a sender that is not heard gives up.
	patience = 5 * time.Second
)

// ErrReset is a connection that broke with the message on it: it may have
// arrived or not.
var ErrReset = errors.New("connection reset")

// Network is between the hosts. All its chances come from the seed, link by
// link, so that a link's fate does not depend on what the others carry.
type Network struct {
	seed uint64

	mu    sync.Mutex
	links map[link]*rand.Rand
	cut   map[link]bool
	held  map[string]chan struct{} // paused hosts; closed when they go on
	loss  float64
	twice float64       // chance of a message to come twice
	slow  time.Duration // on top of the delay, at most
	peers map[string]*Transport
	terms map[uint64]string // who led in it
	wrong []string          // what must not be

	sent, lost, repeated int
}

type link struct{ from, to string }

// NewNetwork makes a network without faults.
func NewNetwork(seed uint64) *Network {
	return &Network{
		seed: seed, links: map[link]*rand.Rand{}, cut: map[link]bool{}, held: map[string]chan struct{}{},
		peers: map[string]*Transport{}, terms: map[uint64]string{},
	}
}

// Disturb sets the chances that a message is lost and that it comes twice, and
// by how much it may be late.
func (n *Network) Disturb(loss, twice float64, slow time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss, n.twice, n.slow = loss, twice, slow
}

// Cut stops everything that goes from one host to another; the way back is
// another link.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{from, to}] = true
}

// Mend removes all cuts.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Pause makes a host stand still: what it would say or hear waits.
func (n *Network) Pause(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held[host] == nil {
		n.held[host] = make(chan struct{})
	}
}

// Resume lets it go on.
func (n *Network) Resume(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.held[host]; c != nil {
		close(c)
		delete(n.held, host)
	}
}

// Paused tells whether a host stands still.
func (n *Network) Paused(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held[host] != nil
}

// Gate returns when the host is not paused.
func (n *Network) Gate(ctx context.Context, host string) error {
	for {
		n.mu.Lock()
		c := n.held[host]
		n.mu.Unlock()
		if c == nil {
			return ctx.Err()
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Wrong lists what raft did that it must not do.
func (n *Network) Wrong() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wrong
}

// Counts are for the report of a run.
func (n *Network) Counts() (sent, lost, repeated, terms int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent, n.lost, n.repeated, len(n.terms)
}

func (n *Network) chance(l link) *rand.Rand {
	r := n.links[l]
	if r == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(l.from + ">" + l.to)) // a hash does not fail
		r = rand.New(rand.NewPCG(n.seed, h.Sum64()))
		n.links[l] = r
	}
	return r
}

// Carry takes one message from host to host and returns when it is there.
func (n *Network) Carry(ctx context.Context, from, to string) error {
	if err := n.Gate(ctx, from); err != nil {
		return err
	}
	for retry := firstRetry; ; retry *= 2 {
		delay, lost, reset := n.fate(link{from, to})
		if reset {
			return ErrReset
		}
		if lost {
			delay = retry
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		if !lost {
			return n.Gate(ctx, to)
		}
	}
}

func (n *Network) fate(l link) (delay time.Duration, lost, reset bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.chance(l)
	delay = minDelay + time.Duration(r.Int64N(int64(maxDelay-minDelay)))
	if n.slow > 0 {
		delay += time.Duration(r.Int64N(int64(n.slow)))
	}
	n.sent++
	lost = r.Float64() < n.loss
	reset = lost && r.Float64() < resetRate
	lost = lost || n.cut[l]
	if lost {
		n.lost++
	}
	return delay, lost, reset
}

// again tells whether a message is to come twice, and how late.
func (n *Network) again(l link) (late time.Duration, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.chance(l)
	late = time.Duration(r.Int64N(int64(500 * time.Millisecond)))
	if yes = r.Float64() < n.twice; yes {
		n.repeated++
	}
	return late, yes
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
