package proxy

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// dialTime bounds one try to reach a task. The next is tried then: where several
// serve, one that does not answer costs a client no more than this.
const dialTime = 3 * time.Second

// dialing is how a client's connection gets its task.
type dialing struct {
	round    *round
	task     netip.Addr // being tried
	tried    []netip.Addr
	failed   []error
	deadline time.Time
	listed   *list.Element // of the loop's
}

// tryNext begins to connect to a task that was not tried yet. Without one the
// client is reset, as if it had been refused.
func (c *conn) tryNext() {
	for {
		r := c.port.now.Load()
		task, ok := r.pick(c.dial.tried)
		if !ok {
			c.refuse(errors.Join(append(c.dial.failed, errNoBackend)...))
			return
		}
		c.dial.round, c.dial.task = r, task
		err := c.connect()
		if err == nil {
			c.dial.deadline = time.Now().Add(dialTime)
			c.dial.listed = c.loop.dialing.PushBack(c)
			return
		}
		c.blame(err)
	}
}

func (c *conn) refuse(err error) {
	c.port.plane.log.Debug("refused a client", zap.Stringer("client", peerOf(c.client.fd)), zap.Error(err))
	c.reset()
}

// connect starts a connection from where tasks see this node.
func (c *conn) connect() (err error) {
	if c.task.fd < 0 {
		if c.task.fd, err = tcpSocket(); err != nil {
			c.task.fd = -1
			return err
		}
	}
	fd, r := c.task.fd, c.dial.round
	if r.from.IsValid() {
		if err := bindLate(fd, r.from); err != nil {
			return err
		}
	}
	if c.up.held > 0 || r.ProxyProtocol {
		// Something follows, and the acknowledgement goes with it: a packet less.
		_ = setOption(fd, option{unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0})
	}
	if err := connect(fd, netip.AddrPortFrom(c.dial.task, r.Target)); err != nil {
		return err
	}
	c.task.room = true
	return c.loop.watch(fd, &c.task, reading|writing)
}

// blame notes that the task that was tried does not take the connection.
func (c *conn) blame(err error) {
	if c.dial.round == c.port.now.Load() { // else it may have another port by now
		c.dial.tried = append(c.dial.tried, c.dial.task)
		c.dial.failed = append(c.dial.failed, fmt.Errorf("connect to %s: %w", c.dial.task, err))
	}
	c.unlist()
	c.leaveTask()
}

func (c *conn) unlist() {
	if c.dial.listed != nil {
		c.loop.dialing.Remove(c.dial.listed)
		c.dial.listed = nil
	}
}

// endDial is for whenever the dial is over.
func (c *conn) endDial() {
	if c.dial != nil {
		c.unlist()
		c.dial = nil
	}
}

// dialFailed tries another task.
func (c *conn) dialFailed(err error) {
	c.blame(err)
	c.tryNext()
}

// redial tries again for those of a port who are being connected by backends that
// were replaced.
func (l *loop) redial(p *tcpPort) {
	now := p.now.Load()
	var again []*conn
	for e := l.dialing.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); c.port == p && c.dial.round != now {
			again = append(again, c)
		}
	}
	for _, c := range again {
		c.unlist()
		c.leaveTask()
		c.tryNext()
	}
}

// dialed goes on when a task has taken the connection, or refused it.
func (c *conn) dialed(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.dialFailed(socketError(c.task.fd))
		return
	}
	if events&unix.EPOLLOUT == 0 {
		return
	}
	if c.dial.round.ProxyProtocol {
		if err := c.introduce(); err != nil {
			c.dialFailed(err)
			return
		}
	}
	c.endDial()
	if err := c.loop.watch(c.client.fd, &c.client, reading); err != nil {
		c.refuse(err)
		return
	}
	c.down.writable = true
	c.task.ready(events)
}

// introduce tells a task who its client is. It is the first that is written, so
// there is room for it.
func (c *conn) introduce() error {
	raw, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(peerOf(c.client.fd)), net.TCPAddrFromAddrPort(hostOf(c.client.fd))).Format()
	if err != nil {
		return fmt.Errorf("tell it of its client: %w", err)
	}
	n, err := send(c.task.fd, raw, c.up.held > 0)
	if err == nil && n < len(raw) {
		err = fmt.Errorf("%d of %d bytes written", n, len(raw))
	}
	if err != nil {
		return fmt.Errorf("tell it of its client: %w", err)
	}
	return nil
}
