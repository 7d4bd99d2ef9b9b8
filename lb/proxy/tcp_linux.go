package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/lb"
)

// dialTime bounds one try to reach a task. The next is tried then: where several
// serve, one that does not answer costs a client no more than this.
const dialTime = 3 * time.Second

// acceptPause is how long a port that can not accept waits for others' ends.
const acceptPause = 50 * time.Millisecond

// tcpPort is one open TCP port.
type tcpPort struct {
	backends
	plane    *Plane
	listener *net.TCPListener
	era      int // of the plane's connections
	closed   chan struct{}
}

func (p *Plane) openTCP(port uint16) (server, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	s := &tcpPort{plane: p, listener: l, era: p.conns.now(), closed: make(chan struct{})}
	s.backends.set(lb.Port{}, netip.Addr{}) // the real ones come before anybody can be accepted
	p.work.Go(s.accept)
	return s, nil
}

func (s *tcpPort) set(p lb.Port, from netip.Addr) { s.backends.set(p, from) }

// close takes no more clients. Those that are there stay.
func (s *tcpPort) close() {
	close(s.closed)
	_ = s.listener.Close()
}

func (s *tcpPort) accept() {
	said := false
	for {
		c, err := s.listener.AcceptTCP()
		if err != nil {
			if isClosed(err) {
				return
			}
			// Out of descriptors, most likely: those that are open have to end.
			if !said {
				said = true
				s.plane.log.Warn("can not accept connections now; clients wait", zap.Stringer("address", s.listener.Addr()), zap.Error(err))
			}
			select {
			case <-s.closed:
			case <-time.After(acceptPause):
			}
			continue
		}
		said = false
		s.plane.work.Go(func() { s.handle(c) })
	}
}

// handle carries one client's connection.
func (s *tcpPort) handle(client *net.TCPConn) {
	defer client.Close()
	release, ok := s.plane.conns.hold(client, s.era)
	if !ok {
		return
	}
	defer release()
	task, err := s.connect(client)
	if err != nil {
		reset(client) // as if it had been refused
		s.plane.log.Debug("refused a client", zap.Stringer("client", client.RemoteAddr()), zap.Error(err))
		return
	}
	defer task.Close()
	if release, ok = s.plane.conns.hold(task, s.era); !ok {
		return
	}
	defer release()
	var both sync.WaitGroup
	both.Go(func() { carry(task, client) })
	carry(client, task)
	both.Wait()
}

// connect finds a task for a client, and tells it of the client if it wants to
// know.
func (s *tcpPort) connect(client *net.TCPConn) (task *net.TCPConn, err error) {
	err = s.dial(func(r *round, a netip.Addr) error {
		ctx, cancel := context.WithTimeout(r.ctx, dialTime)
		defer cancel()
		d := net.Dialer{Control: lateBind}
		if r.from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.from, 0))
		}
		c, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(a, r.Target).String())
		if err != nil {
			return err
		}
		task = c.(*net.TCPConn)
		if !r.ProxyProtocol {
			return nil
		}
		h := proxyproto.HeaderProxyFromAddrs(2, client.RemoteAddr(), client.LocalAddr())
		if _, err := h.WriteTo(task); err != nil {
			_ = task.Close()
			return fmt.Errorf("tell %s of its client: %w", a, err)
		}
		return nil
	})
	return task, err
}

// lateBind leaves the choice of the local port to connect, which may use one for
// many destinations. At bind it would have to be free altogether, and some
// 28,000 connections would be all there can be.
func lateBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); e != nil {
		return e
	}
	return err
}

// carry moves one direction of a connection, in the kernel (splice), and passes
// on how it ends: an end as an end, with the other direction going on, and a
// reset as a reset.
func carry(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}

// reset closes a connection so that its peer can not take it for an end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
