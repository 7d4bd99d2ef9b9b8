package gossip

import (
	"fmt"
	"io"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// memberlist's knobs. It only has to accuse quickly: an accusation costs the
// accused a packet from each node, and convicts nobody. So it is tuned far
// beyond what it could be trusted with alone. DESIGN.md has the arithmetic and
// the measurements.
const (
	// probeInterval: with n nodes, n-1 others probe each node once in n-1
	// intervals, so a node is probed about once per interval whatever n is.
	probeInterval = 100 * time.Millisecond
	// probeTimeout leaves the other half of the interval to indirect probes.
	probeTimeout   = 50 * time.Millisecond
	indirectChecks = 3
	// suspicionMult times the interval (and times log10 of n from 10 nodes on)
	// is what a suspect has to refute.
	suspicionMult = 1
	// maxAwareness stretches the probes of a node that is itself in trouble up
	// to so many times.
	maxAwareness   = 4
	gossipInterval = 50 * time.Millisecond
	// pushPullInterval compares everything with one other node, over a stream.
	// memberlist stretches it from 32 nodes on.
	pushPullInterval = 10 * time.Second
	// deadInterval is how long memberlist goes on talking to the dead, who may
	// only be cut off.
	deadInterval  = 10 * time.Second
	streamTimeout = 3 * time.Second
)

// listing is one memberlist with its transport. A new address needs a new one.
type listing struct {
	*memberlist.Memberlist
	transport *transport
}

// newListing starts a memberlist under an address.
func (g *Gossip) newListing(addr netip.AddrPort) (*listing, error) {
	t := newTransport(g.net, &g.keys, g.cfg.NodeID, addr)
	events := &events{g: g, transport: t}
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = g.cfg.NodeID
	cfg.Transport = t
	cfg.BindPort = int(addr.Port())
	cfg.AdvertisePort = int(addr.Port())
	cfg.RequireNodeNames = true
	cfg.ProbeInterval = probeInterval
	cfg.ProbeTimeout = probeTimeout
	cfg.IndirectChecks = indirectChecks
	cfg.SuspicionMult = suspicionMult
	cfg.AwarenessMaxMultiplier = maxAwareness
	cfg.GossipInterval = gossipInterval
	cfg.GossipToTheDeadTime = deadInterval
	cfg.PushPullInterval = pushPullInterval
	cfg.TCPTimeout = streamTimeout
	cfg.DisableTcpPings = true    // the examination is better at that
	cfg.EnableCompression = false // see wellFormed
	cfg.DeadNodeReclaimTime = 1   // the dead may come back elsewhere
	cfg.UDPBufferSize = maxPacket - sealedCost - maxSender
	cfg.Events, cfg.Alive, cfg.Ping, cfg.Delegate = events, events, events, events
	cfg.Logger = log.New(io.Discard, "", 0) // which formats nothing
	if g.log.Core().Enabled(zap.DebugLevel) {
		cfg.Logger = log.New(memberlistLog{g.log.Named("memberlist")}, "", 0)
	}
	list, err := memberlist.Create(cfg)
	if err != nil {
		return nil, fmt.Errorf("start memberlist: %w", err)
	}
	return &listing{list, t}, nil
}

// stop ends it in silence; nil is fine.
func (l *listing) stop() {
	if l != nil {
		_ = l.Shutdown() // reports only what the transport does, which is nil
	}
}

// memberlistLog takes memberlist's lines. They are all for debugging: what an
// operator should see, this package says itself.
type memberlistLog struct{ log *zap.Logger }

func (l memberlistLog) Write(line []byte) (int, error) {
	l.log.Debug(strings.TrimSpace(strings.TrimPrefix(string(line), "memberlist: ")))
	return len(line), nil
}

// events is what memberlist calls, mostly while holding its own lock: nothing
// here may call it back.
type events struct {
	g         *Gossip
	transport *transport
}

func (e *events) over() bool { return e.transport.ctx.Err() != nil }

// NotifyAlive refuses who does not belong to the cluster.
func (e *events) NotifyAlive(n *memberlist.Node) error {
	if n.Name == e.g.cfg.NodeID {
		return nil
	}
	if len(n.Name) > maxSender || !e.g.cfg.Admit(n.Name) {
		return fmt.Errorf("node %q is not of this cluster", n.Name)
	}
	if addr := nodeAddr(n); !usable(addr) {
		return fmt.Errorf("node %s is at no usable address: %s", n.Name, addr)
	}
	return nil
}

func (e *events) NotifyJoin(n *memberlist.Node) {
	if !e.over() && n.Name != e.g.cfg.NodeID {
		e.g.joined(n.Name, nodeAddr(n), string(n.Meta))
	}
}

func (e *events) NotifyUpdate(n *memberlist.Node) { e.NotifyJoin(n) }

func (e *events) NotifyLeave(n *memberlist.Node) {
	if !e.over() && n.Name != e.g.cfg.NodeID {
		e.g.unlisted(n.Name)
	}
}

// NotifyPingComplete is a direct probe that was answered.
func (e *events) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	e.g.touched(n.Name)
}

func (e *events) AckPayload() []byte { return nil }

func (e *events) NodeMeta(int) []byte                 { return []byte(e.g.cfg.Meta) }
func (e *events) NotifyMsg([]byte)                    {}
func (e *events) GetBroadcasts(int, int) [][]byte     { return nil }
func (e *events) LocalState(bool) []byte              { return nil }
func (e *events) MergeRemoteState(buf []byte, _ bool) {}

func nodeAddr(n *memberlist.Node) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}
