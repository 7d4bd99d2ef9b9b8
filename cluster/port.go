package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/cluster/ca"
)

// The protocols that share the port, by ALPN.
const (
	ProtocolRaft   = "raft"   // managers only
	ProtocolHTTP   = "h2"     // anybody in, each endpoint has its own rule
	ProtocolGossip = "gossip" // any node of the cluster
)

// DefaultListenAddr is Swarm's.
const DefaultListenAddr = "0.0.0.0:2377"

// backlog is how many finished connections may wait for their protocol's owner
// to accept them. With nobody accepting, more are closed, not kept.
const backlog = 128

// PortConfig says how to listen.
type PortConfig struct {
	Addr        string // DefaultListenAddr if empty
	Credentials *ca.Credentials
	// Admit may refuse a node whose certificate is good but which the cluster
	// no longer wants, or not for this protocol. It is asked for every
	// connection, in and out, and again for all that comes in on raft's.
	Admit  Admit
	Logger *zap.Logger
}

// Admit says whether a node may speak a protocol, by what the managers have
// agreed on since its certificate was issued. It must be quick.
type Admit func(id ca.Identity, protocol string) error

// Port is the one TCP port between nodes: TLS 1.3 both ways, then raft, HTTP/2
// or gossip. Only HTTP/2 is open to a peer without a certificate, as that is
// how a node asks for its first; see PeerIdentity in package ca.
type Port struct {
	cfg       PortConfig
	log       *zap.Logger
	strangers strangers
	listeners map[string]*protocolListener
	refusals  *refusals
	ready     chan struct{}

	mu   sync.Mutex
	addr net.Addr
	open map[net.Conn]struct{} // handshaking, waiting to be accepted, or in use
}

// NewPort only wires. Listeners may be taken, and served, before Run.
func NewPort(cfg PortConfig) *Port {
	if cfg.Addr == "" {
		cfg.Addr = DefaultListenAddr
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	p := &Port{
		cfg:       cfg,
		log:       cfg.Logger.Named("port"),
		ready:     make(chan struct{}),
		open:      map[net.Conn]struct{}{},
		listeners: map[string]*protocolListener{},
	}
	for _, name := range []string{ProtocolRaft, ProtocolHTTP, ProtocolGossip} {
		p.listeners[name] = newProtocolListener(p)
	}
	p.refusals = newRefusals(newProtocolListener(p))
	return p
}

// Listener hands out the connections of one protocol, as bare *tls.Conn with
// the handshake done. For h2 that is what net/http needs.
func (p *Port) Listener(protocol string) net.Listener { return p.listeners[protocol] }

// Ready is closed once the port listens.
func (p *Port) Ready() <-chan struct{} { return p.ready }

// Addr is where the port listens, nil before it does.
func (p *Port) Addr() net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Run listens until ctx ends, then closes every connection that came in.
func (p *Port) Run(ctx context.Context) error {
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", p.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for other nodes: %w", err)
	}
	p.mu.Lock()
	p.addr = inner.Addr()
	p.mu.Unlock()
	close(p.ready)
	p.log.Info("listening for other nodes", zap.Stringer("addr", inner.Addr()))

	stop := context.AfterFunc(ctx, func() { _ = inner.Close() })
	defer stop()

	var refusing sync.WaitGroup
	refusing.Go(p.refusals.run)

	var handshakes sync.WaitGroup
	tlsConfig := p.cfg.Credentials.ServerConfig(ProtocolRaft, ProtocolHTTP, ProtocolGossip)
	for {
		conn, err := inner.Accept()
		if ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			break
		}
		if err != nil {
			// Out of file descriptors, most likely. What is open goes on.
			p.log.Warn("accept", zap.Error(err))
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		leave := p.strangers.enter(conn.RemoteAddr(), func() { reset(conn) })
		handshakes.Go(func() { p.handshake(ctx, conn, leave, tlsConfig) })
	}

	for _, l := range p.listeners {
		_ = l.Close()
	}
	p.refusals.close()
	p.closeAll() // so that nobody waits for a handshake,
	handshakes.Wait()
	p.closeAll() // and those that were just done
	refusing.Wait()
	return nil
}

// handshake takes one connection from its first byte to its protocol's owner.
func (p *Port) handshake(ctx context.Context, raw net.Conn, leave func(), config *tls.Config) {
	under := &strangerConn{Conn: raw}
	under.budget.Store(handshakeBytes)
	conn := tls.Server(under, config)
	under.onClose = func() {
		leave()
		p.forget(conn)
	}
	p.remember(conn)

	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		under.trust()
		err = p.admit(conn, under, leave)
	}
	if err != nil {
		p.log.Debug("connection refused", zap.Stringer("from", raw.RemoteAddr()), zap.Error(err))
		linger(raw)
		_ = conn.Close()
	}
}

// admit checks who it is and passes the connection on.
func (p *Port) admit(conn *tls.Conn, under *strangerConn, leave func()) error {
	cs := conn.ConnectionState()
	listener, ok := p.listeners[cs.NegotiatedProtocol]
	if !ok {
		return errors.New("no protocol was agreed on")
	}
	id, err := ca.PeerIdentity(&cs)
	switch {
	case errors.Is(err, ca.ErrNoCertificate) && cs.NegotiatedProtocol == ProtocolHTTP:
		// Still a stranger: counted until it closes, and not for long.
		under.expire(strangerTime)
	case err != nil:
		return err
	default:
		if err := p.check(id, cs.NegotiatedProtocol); err != nil {
			if cs.NegotiatedProtocol == ProtocolHTTP {
				under.expire(refusalTime)
				return p.refusals.deliver(conn, err)
			}
			return err
		}
		leave()
	}
	return listener.deliver(conn)
}

// check is the rule for a node, whichever side dialled.
func (p *Port) check(id ca.Identity, protocol string) error {
	if own := p.cfg.Credentials.Identity().ClusterID; id.ClusterID != own {
		return fmt.Errorf("node %s is of cluster %s: %w", id.NodeID, id.ClusterID, errdefs.ErrPermissionDenied)
	}
	if protocol == ProtocolRaft && id.Role != ca.RoleManager {
		return fmt.Errorf("node %s is not a manager and has no business with raft: %w", id.NodeID, errdefs.ErrPermissionDenied)
	}
	if p.cfg.Admit != nil {
		if err := p.cfg.Admit(id, protocol); err != nil {
			return fmt.Errorf("node %s is not admitted: %w", id.NodeID, err)
		}
	}
	return nil
}

func (p *Port) remember(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
}

func (p *Port) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

func (p *Port) closeAll() {
	p.mu.Lock()
	var all []net.Conn
	for c := range p.open {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		_ = c.(*tls.Conn).NetConn().Close() // at once, without a farewell
	}
}

// protocolListener is a net.Listener of connections that are through the door.
type protocolListener struct {
	port   *Port
	conns  chan *tls.Conn
	once   sync.Once
	closed chan struct{}
}

func newProtocolListener(p *Port) *protocolListener {
	return &protocolListener{port: p, conns: make(chan *tls.Conn, backlog), closed: make(chan struct{})}
}

func (l *protocolListener) deliver(c *tls.Conn) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
	}
	select {
	case l.conns <- c:
		return nil
	default:
		return errors.New("nobody accepts connections of this protocol fast enough")
	}
}

func (l *protocolListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *protocolListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *protocolListener) Addr() net.Addr {
	if a := l.port.Addr(); a != nil {
		return a
	}
	return unboundAddr(l.port.cfg.Addr)
}

// unboundAddr is where a port will listen once it does.
type unboundAddr string

func (unboundAddr) Network() string  { return "tcp" }
func (a unboundAddr) String() string { return string(a) }
