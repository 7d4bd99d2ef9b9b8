package cluster

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Strangers are connections that have not shown a certificate. What they can
// cost is bounded: by number in all and from one address, by bytes before the
// handshake is done, and by time.
const (
	maxStrangers        = 512
	maxStrangersPerAddr = 32 // several nodes may share an address behind a NAT

	handshakeTime = 5 * time.Second

	// handshakeBytes holds any honest handshake many times over: a chain of
	// our certificates has about 1.5 KB.
	handshakeBytes = 64 << 10

	// strangerTime is how long a connection without a certificate may live. It
	// is there to join a cluster, which takes a second.
	strangerTime = time.Minute
)

// strangers are the connections that nobody has vouched for yet, oldest first.
type strangers struct {
	mu     sync.Mutex
	all    list.List          // of *stranger
	byAddr map[netip.Addr]int // only addresses that have any: bounded by all
}

type stranger struct {
	from netip.Addr
	drop func()
}

// enter takes in one more. Where there is no place left the oldest has to go:
// a node that knows what it wants is through with its handshake in a moment,
// and the idle are the ones that stay. So however many they are, they keep
// nobody out. drop closes the connection; it is called at most once, and not
// after leave.
func (s *strangers) enter(addr net.Addr, drop func()) (leave func()) {
	e := &stranger{sourceOf(addr), drop}
	s.mu.Lock()
	oldest := s.makeRoom(e.from)
	if s.byAddr == nil {
		s.byAddr = map[netip.Addr]int{}
	}
	s.byAddr[e.from]++
	place := s.all.PushBack(e)
	s.mu.Unlock()
	if oldest != nil {
		oldest.drop()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.remove(place)
	}
}

// makeRoom takes out the connection that has to go for one from an address.
func (s *strangers) makeRoom(from netip.Addr) *stranger {
	var oldest *list.Element
	switch {
	case s.byAddr[from] >= maxStrangersPerAddr:
		oldest = s.all.Front()
		for oldest.Value.(*stranger).from != from {
			oldest = oldest.Next()
		}
	case s.all.Len() >= maxStrangers:
		oldest = s.all.Front()
	default:
		return nil
	}
	s.remove(oldest)
	return oldest.Value.(*stranger)
}

// remove forgets one; twice is once.
func (s *strangers) remove(place *list.Element) {
	e := place.Value.(*stranger)
	before := s.all.Len()
	if s.all.Remove(place); s.all.Len() == before {
		return
	}
	if s.byAddr[e.from]--; s.byAddr[e.from] == 0 {
		delete(s.byAddr, e.from)
	}
}

// sourceOf is the address a connection is counted under. One host has a whole
// /64 of IPv6 addresses to itself, so that is what counts as one.
func sourceOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// reset closes a connection without a farewell: what it has not sent is dropped.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

var errTalkative = errors.New("too much was sent before the handshake was done")

// strangerConn is the connection under TLS. net/http wants the *tls.Conn bare,
// so what has to happen at the end of a connection happens down here.
type strangerConn struct {
	net.Conn
	budget  atomic.Int64 // bytes that may still be read; see trust
	trusted atomic.Bool
	expiry  atomic.Pointer[time.Timer]
	onClose func()
}

func (c *strangerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.trusted.Load() && c.budget.Add(-int64(n)) < 0 {
		return 0, errTalkative
	}
	return n, err
}

// trust ends the count of bytes: the handshake is over.
func (c *strangerConn) trust() { c.trusted.Store(true) }

// expire closes the connection after a while.
func (c *strangerConn) expire(after time.Duration) {
	c.expiry.Store(time.AfterFunc(after, func() { _ = c.Conn.Close() }))
}

func (c *strangerConn) Close() error {
	if t := c.expiry.Load(); t != nil {
		t.Stop()
	}
	c.onClose()
	return c.Conn.Close()
}
