package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/doctor"
	"shoal/internal/netkit"
	"shoal/network/overlay"
)

// Two nodes try each other's ports together. The one that examines asks the
// other for an echo; while that is under way both send probes to each other's
// UDP ports and listen for them, and the other one dials back. So each port is
// tried in each direction by itself.

const (
	// probeEvery and minRounds: at 30% loss, eight probes are all lost once in
	// 15,000 times.
	probeEvery = 40 * time.Millisecond
	minRounds  = 8
	// echoTime is how long a node listens and dials for another before it says
	// that nothing came through.
	echoTime = 1200 * time.Millisecond
	// dialTime bounds a try to connect.
	dialTime = 1200 * time.Millisecond
	// maxEchoes is how many nodes are helped at a time.
	maxEchoes = 32
)

// The UDP ports of a node, as probes name them.
const (
	wayGossip = 1
	wayTunnel = 2
	wayWire   = 3
)

type echoRequest struct {
	ID   netkit.ProbeID
	Wire bool `json:",omitempty"` // WireGuard's port matters, too
}

// echo is what a node says of itself and of the ways from the one that asks.
type echo struct {
	Received, Answered time.Time

	Listened bool   // it could hear probes
	Gossip   bool   // it heard one on the port of gossip
	Tunnel   bool   // and on that of the tunnel
	Wire     bool   // and on that of WireGuard
	Back     string // why it could not connect to the one that asks; "" if it could

	Leader  string // as far as it knows; managers alone
	Applied uint64
	Session bool // it leads, and has a session with the one that asks
}

// echoes answers other nodes' examinations.
type echoes struct {
	m    *member
	room chan struct{}
}

func newEchoes(m *member) *echoes { return &echoes{m: m, room: make(chan struct{}, maxEchoes)} }

// answer serves members of the cluster, and dials nobody but where the managers
// say that the one who asks is.
func (e *echoes) answer(r *http.Request) (any, error) {
	out := echo{Received: time.Now()}
	nodeID, err := identify(r)
	if err != nil {
		return nil, err
	}
	peer, port, err := e.m.peer(nodeID)
	if err != nil {
		return nil, err
	}
	var q echoRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return nil, invalid("unreadable request for an echo: %v", err)
	}
	select {
	case e.room <- struct{}{}:
		defer func() { <-e.room }()
	default:
		return nil, errdefs.ErrUnavailable.WithMessage("this node examines its ports with many others at the moment")
	}
	ctx, cancel := context.WithTimeout(r.Context(), echoTime)
	defer cancel()

	var dial sync.WaitGroup
	dialled := make(chan struct{})
	dial.Go(func() {
		defer close(dialled)
		if err := e.m.knock(ctx, peer); err != nil {
			out.Back = reason(err)
		}
	})
	if probes, err := netkit.OpenProbes(ctx); err == nil {
		defer probes.Close()
		out.Listened = true
		e.m.targets(peer, port, q.Wire).send(ctx, probes, q.ID, func() bool {
			out.Gossip = probes.Heard(q.ID, wayGossip)
			out.Tunnel = probes.Heard(q.ID, wayTunnel)
			out.Wire = probes.Heard(q.ID, wayWire)
			return out.Gossip && out.Tunnel && (out.Wire || !q.Wire) && isClosed(dialled)
		})
	}
	dial.Wait()
	if m := e.m.manager; m != nil {
		st := m.cluster.Raft.Stats()
		out.Leader, out.Applied = st.LeaderID, st.AppliedIndex
		out.Session = m.leading.Load() && m.connected(nodeID)
	}
	out.Answered = time.Now()
	return out, nil
}

// peer finds a member of the cluster, and the port of the tunnels: as the
// managers last said or, on a manager that nobody leads, as its own state has it.
func (m *member) peer(nodeID string) (p api.Peer, tunnels uint32, err error) {
	if s := m.state.Load(); s != nil {
		if p, ok := s.Peers[nodeID]; ok {
			return p, s.DataPathPort, nil
		}
		return p, 0, errdefs.ErrPermissionDenied.WithMessage("node " + nodeID + " is not a member of this cluster")
	}
	if m.manager != nil {
		if n, ok := m.manager.store.View().Nodes.Get(nodeID); ok {
			return peerOf(n), m.id.DataPathPort, nil
		}
	}
	return p, 0, errdefs.ErrUnavailable.WithMessage("this node has not heard from the managers yet")
}

func peerOf(n *api.Node) api.Peer {
	at, _ := netip.ParseAddr(n.DataPath) // without one, that port is not tried
	return api.Peer{NodeID: n.ID, Hostname: n.Description.Hostname, Addr: n.Addr, Manager: n.Role == swarm.NodeRoleManager, DataPath: at, WireGuard: n.WireGuard}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (m *manager) connected(nodeID string) bool {
	for _, id := range m.server.Connected() {
		if id == nodeID {
			return true
		}
	}
	return false
}

// targets are a peer's UDP ports.
type targets map[byte]netip.AddrPort

func (m *member) targets(p api.Peer, tunnels uint32, wire bool) targets {
	t := targets{}
	if a, err := netip.ParseAddrPort(m.whereabouts(p)); err == nil && a.Addr().Is4() {
		t[wayGossip] = a
	}
	if p.DataPath.Is4() && tunnels != 0 {
		t[wayTunnel] = netip.AddrPortFrom(p.DataPath, uint16(tunnels))
		if wire {
			t[wayWire] = netip.AddrPortFrom(p.DataPath, overlay.WirePort(uint16(tunnels)))
		}
	}
	return t
}

// send sends probes until ctx ends, or enough were sent and done says so.
func (t targets) send(ctx context.Context, probes *netkit.Probes, id netkit.ProbeID, done func() bool) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for round := 1; ; round++ {
		for way, to := range t {
			probes.Send(to, id, way)
		}
		if finished := done(); finished && round >= minRounds {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			done()
			return
		}
	}
}

// whereabouts is the address of a peer: gossip hears of a new one first.
func (m *member) whereabouts(p api.Peer) string {
	if addr, ok := m.gossip.lookup(p.NodeID); ok {
		return addr
	}
	return p.Addr
}

// knock connects to a node and leaves again.
func (m *member) knock(ctx context.Context, p api.Peer) error {
	conn, err := m.cluster.Port.Dial(ctx, m.whereabouts(p), cluster.ProtocolHTTP, ca.Peer{NodeID: p.NodeID})
	if err != nil {
		return err
	}
	return conn.Close()
}

// examine tries all ways between this node and a peer.
func (m *member) examine(ctx context.Context, probes *netkit.Probes, p api.Peer, tunnels uint32, wire bool) doctor.Peer {
	out := doctor.Peer{
		ID: p.NodeID, Hostname: p.Hostname, Addr: m.whereabouts(p), Manager: p.Manager, Gossip: m.gossip.verdict(p.NodeID),
	}
	out.There.TCP.Tried = true
	id, udp := netkit.NewProbeID(), m.targets(p, tunnels, wire)
	if at, ok := udp[wayTunnel]; ok {
		out.DataPath = at.String()
	}
	e, rtt, err := m.exchange(ctx, probes, id, p, udp)
	if err != nil {
		out.There.TCP.Error = reason(err)
		return out
	}
	out.Back.TCP = doctor.Probe{Tried: true, Error: e.Back}
	out.Skew = (e.Received.Sub(rtt.from) + e.Answered.Sub(rtt.to)) / 2
	out.Within = max(time.Microsecond, (rtt.took-e.Answered.Sub(e.Received))/2)
	out.Leader, out.Applied, out.Session = e.Leader, e.Applied, e.Session
	if probes == nil || !e.Listened {
		return out
	}
	if _, ok := udp[wayGossip]; ok {
		out.There.UDP, out.Back.UDP = heard(e.Gossip), heard(probes.Heard(id, wayGossip))
	}
	if _, ok := udp[wayTunnel]; ok {
		out.There.Tun, out.Back.Tun = heard(e.Tunnel), heard(probes.Heard(id, wayTunnel))
	}
	if at, ok := udp[wayWire]; ok {
		out.WirePort = at.Port()
		out.There.Wire, out.Back.Wire = heard(e.Wire), heard(probes.Heard(id, wayWire))
	}
	return out
}

func heard(ok bool) doctor.Probe {
	p := doctor.Probe{Tried: true}
	if !ok {
		p.Error = "no packet arrives"
	}
	return p
}

// roundTrip is when a request went and its answer came, by this node's clock.
type roundTrip struct {
	from, to time.Time
	took     time.Duration
}

// exchange asks a peer for an echo while it sends probes to it and listens for
// the peer's.
func (m *member) exchange(ctx context.Context, probes *netkit.Probes, id netkit.ProbeID, p api.Peer, udp targets) (e echo, rtt roundTrip, err error) {
	addr := m.whereabouts(p)
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	// The connection comes first: what it takes would look like skew.
	conn, err := m.cluster.Port.Dial(dialCtx, addr, cluster.ProtocolHTTP, ca.Peer{NodeID: p.NodeID})
	if err != nil {
		return e, rtt, err
	}
	defer conn.Close()
	t := overConnection(conn)
	defer t.CloseIdleConnections()

	sending, stop := context.WithCancel(ctx)
	var sender sync.WaitGroup
	if probes != nil {
		sender.Go(func() { udp.send(sending, probes, id, func() bool { return false }) })
	}
	rtt.from = time.Now()
	err = ask(ctx, t, http.MethodPost, "https://"+addr+pathEcho, echoRequest{ID: id, Wire: udp[wayWire].IsValid()}, &e)
	rtt.to = time.Now()
	rtt.took = rtt.to.Sub(rtt.from)
	rtt.from, rtt.to = rtt.from.Round(0), rtt.to.Round(0)
	stop()
	sender.Wait()
	if err != nil {
		err = fmt.Errorf("it takes connections, and does not answer: %w", err)
	}
	return e, rtt, err
}

// reason is why a node was not reached, without what everybody knows who reads
// it: to where, and by what call.
func reason(err error) string {
	var sys syscall.Errno
	var late net.Error
	switch {
	case errors.As(err, &sys):
		return sys.Error()
	case errors.As(err, &late) && late.Timeout():
		return "no answer"
	}
	return err.Error()
}

// overConnection speaks HTTP/2 over one connection that is there already.
func overConnection(conn *tls.Conn) *cluster.Transport {
	once := make(chan *tls.Conn, 1)
	once <- conn
	return cluster.NewTransport(func(context.Context) (*tls.Conn, error) {
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, fmt.Errorf("the connection to %s is gone", conn.RemoteAddr())
		}
	})
}

// servePort answers HTTP on the port between nodes, until ctx ends.
func servePort(ctx context.Context, port *cluster.Port, srv *http.Server) error {
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(port.Listener(cluster.ProtocolHTTP))
	if errors.Is(err, net.ErrClosed) {
		<-ctx.Done() // the port went with the cluster, which is about to say why
	}
	if ctx.Err() == nil {
		return fmt.Errorf("answer other nodes: %w", err)
	}
	return ctx.Err()
}
