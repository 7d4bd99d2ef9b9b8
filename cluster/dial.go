package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"shoal/cluster/ca"
)

// Dial connects to another node, which must be the one that is expected. The
// handshake is done when it returns.
func (p *Port) Dial(ctx context.Context, addr, protocol string, expect ca.Peer) (*tls.Conn, error) {
	conn, err := dialTLS(ctx, addr, p.cfg.Credentials.ClientConfig(protocol, expect))
	if err != nil {
		return nil, err
	}
	id, err := ca.CertificateIdentity(conn.ConnectionState().PeerCertificates[0])
	if err == nil {
		err = p.check(id, protocol)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

// DialExpired connects for HTTP/2 without showing this node's certificate, which
// has expired. The manager at the other end must prove itself all the same; what
// the node has to prove goes over the connection, see ca.Prove.
func (p *Port) DialExpired(ctx context.Context, addr string, expect ca.Peer) (*tls.Conn, error) {
	return dialTLS(ctx, addr, p.cfg.Credentials.StrangerConfig(ProtocolHTTP, expect))
}

// DialJoin connects, with a join token and nothing else, to a manager for HTTP/2
// and returns the cluster's root, which the token has pinned.
func DialJoin(ctx context.Context, addr string, token ca.Token) (*tls.Conn, *x509.Certificate, error) {
	conn, err := dialTLS(ctx, addr, ca.JoinConfig(ProtocolHTTP, token))
	if err != nil {
		return nil, nil, err
	}
	cs := conn.ConnectionState()
	root, err := ca.PinnedRoot(&cs, token)
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, root, nil
}

func dialTLS(ctx context.Context, addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	t := tls.Client(watch(conn), config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	if t.ConnectionState().NegotiatedProtocol != config.NextProtos[0] {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: it does not speak %s", addr, config.NextProtos[0])
	}
	return t, nil
}

// Resolver finds where a node listens.
type Resolver func(nodeID string) (addr string, err error)

// raftTimeout bounds one exchange between managers on an open connection. An
// entry and its fsync on a slow disk must fit; a snapshot gets more by its size.
const raftTimeout = 5 * time.Second

// RaftTransport is raft's transport over the port, for RaftConfig.Transport.
func (p *Port) RaftTransport(resolve Resolver) func() (raft.Transport, error) {
	return func() (raft.Transport, error) {
		layer := &raftLayer{port: p, resolve: resolve, open: map[*dialled]struct{}{}}
		layer.ctx, layer.cancel = context.WithCancel(context.Background())
		return &raftTransport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:  layer,
			MaxPool: 3, // per peer: one for entries, one for heartbeats, one for votes
			Timeout: raftTimeout,
			Logger:  newRaftLogger(p.log.Named("raft").WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
		}), raft.ServerAddress(p.cfg.Credentials.Identity().NodeID)}, nil
	}
}

// raftTransport calls this server by its node ID, as members.go does.
type raftTransport struct {
	*raft.NetworkTransport
	self raft.ServerAddress
}

func (t *raftTransport) LocalAddr() raft.ServerAddress { return t.self }

// raftLayer carries raft's streams. raft itself authenticates nobody: that the
// peer is a manager has been checked by the port when it comes in, and is
// checked together with its node ID when it is dialled.
type raftLayer struct {
	port    *Port
	resolve Resolver
	ctx     context.Context // ends dials in progress at Close
	cancel  context.CancelFunc

	mu   sync.Mutex
	open map[*dialled]struct{} // nil once closed
}

func (l *raftLayer) Addr() net.Addr { return l.port.listeners[ProtocolRaft].Addr() }

func (l *raftLayer) Accept() (net.Conn, error) {
	conn, err := l.port.listeners[ProtocolRaft].Accept()
	if err != nil {
		return nil, err
	}
	id, err := ca.CertificateIdentity(conn.(*tls.Conn).ConnectionState().PeerCertificates[0])
	if err != nil { // the port has read it before
		_ = conn.Close()
		return nil, err
	}
	return &accepted{conn, l.port, id}, nil
}

// accepted is a stream from another manager. It may stay open for days, so the
// rule is applied to all that is read: who is demoted or removed meanwhile is
// heard no more.
type accepted struct {
	net.Conn
	port *Port
	id   ca.Identity
}

func (a *accepted) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	if err != nil {
		return n, err
	}
	if err := a.port.check(a.id, ProtocolRaft); err != nil {
		return 0, err
	}
	return n, nil
}

// Dial connects to a server, whose address to raft is its node ID.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	nodeID := string(address)
	addr, err := l.resolve(nodeID)
	if err != nil {
		return nil, fmt.Errorf("find the address of manager %s: %w", nodeID, err)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	conn, err := l.port.Dial(ctx, addr, ProtocolRaft, ca.Peer{NodeID: nodeID, Role: ca.RoleManager})
	if err != nil {
		return nil, err
	}
	d := &dialled{conn, l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	l.open[d] = struct{}{}
	return d, nil
}

// Close also ends the streams that were dialled, so that raft does not sit out
// a timeout on a peer that no longer answers.
func (l *raftLayer) Close() error {
	l.cancel()
	l.mu.Lock()
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for d := range open {
		_ = d.Conn.(*tls.Conn).NetConn().Close()
	}
	return l.port.listeners[ProtocolRaft].Close()
}

type dialled struct {
	net.Conn
	layer *raftLayer
}

func (d *dialled) Close() error {
	d.layer.mu.Lock()
	delete(d.layer.open, d)
	d.layer.mu.Unlock()
	return d.Conn.Close()
}
