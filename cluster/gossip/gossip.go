// Package gossip notices which nodes can be reached. memberlist spreads who is
// there and accuses who is silent; whether an accusation is true each node finds
// out for itself by asking the accused, and its kernel. See DESIGN.md.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/wake"
)

// Verdict is what this node knows of another one's reachability.
type Verdict int

const (
	// Unknown is a node that has not been heard of or asked yet.
	Unknown Verdict = iota
	// Alive is a node whose daemon answers.
	Alive
	// DaemonDown is a host that answers while its daemon does not: stopped, just
	// restarting, or starved. Its containers work and its kernel forwards.
	DaemonDown
	// Gone is a host that does not answer at all. Only this one is to be muted.
	Gone
)

func (v Verdict) String() string {
	switch v {
	case Alive:
		return "alive"
	case DaemonDown:
		return "daemon down"
	case Gone:
		return "gone"
	}
	return "unknown"
}

// Peer is a node as the managers know it.
type Peer struct {
	NodeID string
	Addr   netip.AddrPort // may be out of date
}

// Member is a node as gossip knows it.
type Member struct {
	NodeID  string
	Addr    netip.AddrPort // where it answers, or last did
	Verdict Verdict
	Since   time.Time // when the verdict was reached
	Meta    string    // what the node says of itself, as in Config.Meta
}

// Config says who takes part, and how.
type Config struct {
	NodeID    string
	ClusterID string
	Port      Port  // gossip's UDP takes the same number, once it listens
	Keys      []Key // the first seals, all of them open; see SetKeys

	// Advertise is where other nodes reach this one. It is asked again and again,
	// and a change is made known.
	Advertise func() netip.AddrPort
	// Peers are the members the managers know, this node among them or not. It
	// is asked again and again, and must be quick.
	Peers func() []Peer
	// Admit says whether a node belongs to the cluster; the others are not
	// listened to. It must be quick and must not call back.
	Admit func(nodeID string) bool
	// OnChange is told of every new verdict and address, one call at a time. If
	// it is slow it sees only the latest of each node.
	OnChange func(Member)
	// Meta goes to all other nodes, for example this node's version. At most
	// 256 bytes.
	Meta string

	Logger *zap.Logger
}

// maxMeta leaves room for a message to fit into a packet.
const maxMeta = 256

// Gossip is one node's part in it.
type Gossip struct {
	cfg  Config
	log  *zap.Logger
	keys keyring
	open func(context.Context) (network, error)

	ctx  context.Context // of Run
	net  network
	wake wake.Bell // tend
	wg   sync.WaitGroup

	mu      sync.Mutex
	over    bool             // no more goroutines are started
	list    *listing         // the memberlist in use
	peers   map[string]*peer // all but this node
	pending map[uint64]chan<- pong
	changed map[string]struct{}
	notify  wake.Bell

	joining chan struct{} // joins in flight: a few are enough, one node knows all

	moved, lost, called time.Time // this node, the latest that is gone, and our last call
}

// New only wires.
func New(cfg Config) (*Gossip, error) {
	switch {
	case cfg.NodeID == "" || len(cfg.NodeID) > maxSender:
		return nil, fmt.Errorf("gossip: node ID %q: %w", cfg.NodeID, errdefs.ErrInvalidArgument)
	case len(cfg.Meta) > maxMeta:
		return nil, fmt.Errorf("gossip: metadata has %d bytes, %d are allowed: %w", len(cfg.Meta), maxMeta, errdefs.ErrInvalidArgument)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Peers == nil {
		cfg.Peers = func() []Peer { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(string) bool { return true }
	}
	g := &Gossip{
		cfg:     cfg,
		log:     cfg.Logger.Named("gossip"),
		keys:    keyring{cluster: cfg.ClusterID},
		open:    func(ctx context.Context) (network, error) { return openPort(ctx, cfg.Port) },
		wake:    wake.NewBell(),
		peers:   map[string]*peer{},
		pending: map[uint64]chan<- pong{},
		changed: map[string]struct{}{},
		notify:  wake.NewBell(),
		joining: make(chan struct{}, 3),
	}
	return g, g.keys.set(cfg.Keys)
}

// SetKeys replaces the keys: the first seals, all of them open. To rotate
// without a gap, give every node old and new, then new and old, then new alone,
// each step when the one before has reached all.
func (g *Gossip) SetKeys(keys []Key) error { return g.keys.set(keys) }

// Run takes part until ctx ends. It then falls silent without a farewell: the
// node's containers go on, and others find for themselves that only the daemon
// is down. See Leave.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := g.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g.ctx, g.net = ctx, n

	g.wg.Go(g.receive)
	g.wg.Go(g.accept)
	g.wg.Go(g.report)
	err = g.tend()

	cancel()
	_ = n.Close()
	g.mu.Lock()
	g.over = true
	list := g.list
	g.list = nil
	g.mu.Unlock()
	list.stop()
	g.wg.Wait()
	return err
}

// Leave says goodbye, for a node that is leaving the cluster for good. It needs
// Run to be under way.
func (g *Gossip) Leave(ctx context.Context) error {
	list := g.current()
	if list == nil {
		return fmt.Errorf("leave gossip: not running: %w", errdefs.ErrFailedPrecondition)
	}
	patience := time.Second
	if at, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(at))
	}
	if err := list.Leave(max(patience, time.Millisecond)); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Members are all other nodes that are known, by node ID.
func (g *Gossip) Members() map[string]Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[string]Member, len(g.peers))
	for id, p := range g.peers {
		all[id] = p.Member
	}
	return all
}

// Lookup finds one other node.
func (g *Gossip) Lookup(nodeID string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.peers[nodeID]
	if !ok {
		return Member{}, false
	}
	return p.Member, true
}

// Isolated reports that there are other nodes and every one of them is gone.
// Then it is probably this node that is.
func (g *Gossip) Isolated() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		if p.Verdict != Gone {
			return false
		}
	}
	return len(g.peers) > 0
}

// Refresh makes a change of Advertise, Peers or Admit felt at once.
func (g *Gossip) Refresh() {
	g.wake.Ring()
}

// receive takes packets off the socket as fast as it can.
func (g *Gossip) receive() {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := g.net.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed) || g.ctx.Err() != nil:
			return
		case err == nil:
			g.packet(buf[:n], from)
		default: // an ICMP error that found its way here, or no memory
			g.log.Debug("read packet", zap.Error(err))
		}
	}
}

// packet handles one from the wire. It keeps nothing of b.
func (g *Gossip) packet(b []byte, from netip.AddrPort) {
	k, sender, body, ok := g.keys.open(b)
	if !ok || sender == g.cfg.NodeID || !g.cfg.Admit(sender) {
		return
	}
	switch k {
	case kindMember:
		if list := g.current(); list != nil && wellFormed(body) {
			list.transport.packet(body, from)
		}
	case kindPing:
		if c, ok := decodeCall(body); ok {
			g.send(kindPong, call{c.nonce, g.advertised()}, from)
			g.hint(sender, c.addr)
		}
	case kindPong:
		if c, ok := decodeCall(body); ok {
			g.answered(sender, c)
			g.hint(sender, c.addr) // it may be an answer to a call
		}
	case kindDoubt:
		g.accused(string(body))
	}
}

func (g *Gossip) send(k kind, c call, to netip.AddrPort) {
	if packet, err := g.keys.seal(k, g.cfg.NodeID, c.encode()); err == nil {
		_ = g.net.Write(packet, to) // lost, like any packet may be
	}
}

// accept hands streams to the memberlist in use.
func (g *Gossip) accept() {
	for {
		conn, err := g.net.Accept()
		if err != nil {
			return
		}
		if list := g.current(); list != nil {
			list.transport.stream(conn)
		} else {
			_ = conn.Close()
		}
	}
}

// report calls OnChange. It owns no state but the set of who changed.
func (g *Gossip) report() {
	for {
		select {
		case <-g.notify:
		case <-g.ctx.Done():
			return
		}
		g.mu.Lock()
		var news []Member
		for id := range g.changed {
			if p, ok := g.peers[id]; ok {
				news = append(news, p.Member)
			}
		}
		clear(g.changed)
		g.mu.Unlock()
		for _, m := range news {
			if g.cfg.OnChange != nil {
				g.cfg.OnChange(m)
			}
		}
	}
}

// tell makes report look at a node. g.mu is held.
func (g *Gossip) tell(nodeID string) {
	g.changed[nodeID] = struct{}{}
	g.notify.Ring()
}

func (g *Gossip) current() *listing {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.list
}

func (g *Gossip) advertised() netip.AddrPort {
	if list := g.current(); list != nil {
		return list.transport.addr
	}
	return netip.AddrPort{}
}
