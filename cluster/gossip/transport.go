package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is what one memberlist sends and receives by. It takes what the
// network brings and is thrown away with its memberlist, while the sockets stay.
type transport struct {
	net   network
	keys  *keyring
	self  string
	addr  netip.AddrPort
	ctx   context.Context
	close context.CancelFunc

	packets chan *memberlist.Packet
	streams chan net.Conn

	mu   sync.Mutex
	open map[*stream]struct{} // nil once shut down
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// backlog is how many packets may wait for memberlist. It takes them off at
// once; what is over that is lost like anything on UDP.
const backlog = 256

func newTransport(n network, keys *keyring, self string, addr netip.AddrPort) *transport {
	t := &transport{
		net: n, keys: keys, self: self, addr: addr,
		packets: make(chan *memberlist.Packet, backlog),
		streams: make(chan net.Conn),
		open:    map[*stream]struct{}{},
	}
	t.ctx, t.close = context.WithCancel(context.Background())
	return t
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip to %s: %w", to.Addr, err)
	}
	packet, err := t.keys.seal(kindMember, t.self, b)
	if err != nil {
		return time.Time{}, err
	}
	// An *net.OpError must stay one: memberlist takes it for a failed probe.
	return time.Now(), t.net.Write(packet, addr)
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// packet passes one on that was opened.
func (t *transport) packet(body []byte, from netip.AddrPort) {
	select {
	case t.packets <- &memberlist.Packet{Buf: body, From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
	default:
	}
}

// stream passes one on that came in, or closes it.
func (t *transport) stream(conn net.Conn) {
	s, ok := t.guard(conn, msgPushPull, msgPing)
	if !ok {
		return
	}
	select {
	case t.streams <- s:
	case <-t.ctx.Done():
		_ = s.Close()
	}
}

// DialAddressTimeout insists that the node that answers is the one that is
// meant: memberlist names it, its certificate proves it.
func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if to.Name == "" {
		return nil, errors.New("dial for gossip: no node is named")
	}
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s for gossip: %w", to.Name, err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.net.Dial(ctx, addr, to.Name)
	if err != nil {
		return nil, err
	}
	s, ok := t.guard(conn, msgPushPull, msgAck, msgError)
	if !ok {
		return nil, net.ErrClosed
	}
	return s, nil
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// Shutdown also ends the streams in use, which memberlist would sit out.
func (t *transport) Shutdown() error {
	t.close()
	t.mu.Lock()
	open := t.open
	t.open = nil
	t.mu.Unlock()
	for s := range open {
		_ = s.Conn.Close()
	}
	return nil
}

// maxStream bounds what one stream may bring. The state of 10,000 nodes takes
// about 2 MB.
const maxStream = 8 << 20

// guard wraps a stream so that it brings only messages of the kinds that belong
// there, and not without end.
func (t *transport) guard(conn net.Conn, kinds ...byte) (*stream, bool) {
	s := &stream{Conn: conn, owner: t, kinds: kinds, left: maxStream}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		_ = conn.Close()
		return nil, false
	}
	t.open[s] = struct{}{}
	return s, true
}

// stream is a connection with a certificate at both ends; memberlist's messages
// go over it as they are.
type stream struct {
	net.Conn
	owner *transport
	kinds []byte
	first bool // the first byte has passed
	left  int
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, fmt.Errorf("gossip stream: more than %d bytes: %w", maxStream, io.ErrUnexpectedEOF)
	}
	if len(b) > s.left {
		b = b[:s.left]
	}
	n, err := s.Conn.Read(b)
	s.left -= n
	if n > 0 && !s.first {
		s.first = true
		for _, k := range s.kinds {
			if b[0] == k {
				return n, err
			}
		}
		return 0, fmt.Errorf("gossip stream: begins with a message of type %d", b[0])
	}
	return n, err
}

func (s *stream) Close() error {
	s.owner.mu.Lock()
	delete(s.owner.open, s)
	s.owner.mu.Unlock()
	return s.Conn.Close()
}
