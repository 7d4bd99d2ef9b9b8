package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/lb"
)

const (
	// flowIdle is how long a client of a UDP port may be silent until its task is
	// forgotten, and unansweredIdle, if the task never answered it: the kernel's
	// own times for an exchange of datagrams.
	flowIdle       = 2 * time.Minute
	unansweredIdle = 30 * time.Second
	// maxFlows bounds the clients of one port. Each costs a socket, and anybody
	// can pretend to be many.
	maxFlows = 4096
	// maxDatagram is the largest there is.
	maxDatagram = 64 << 10
)

// udpPort is one open UDP port.
type udpPort struct {
	backends
	plane *Plane
	conn  *net.UDPConn

	mu    sync.Mutex
	flows map[flowKey]*flow
	full  bool // it was said that there are too many
}

// flowKey is a client, and the address of this host that it asked: it expects
// the answer from there.
type flowKey struct {
	client netip.AddrPort
	asked  netip.Addr
}

// flow is one client's exchange with its task.
type flow struct {
	key  flowKey
	task netip.Addr
	conn *net.UDPConn
	last atomic.Int64 // Unix nanoseconds
	// answered is for answer alone.
	answered bool
}

func (p *Plane) openUDP(port lb.Port, from netip.Addr) (server, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(port.Published)})
	if err != nil {
		return nil, err
	}
	if err := tellAsked(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &udpPort{plane: p, conn: c, flows: map[flowKey]*flow{}}
	s.backends.replace(port, from)
	p.work.Go(s.receive)
	return s, nil
}

// tellAsked has each datagram come with the address that it was sent to.
func tellAsked(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}); err != nil {
		return err
	}
	return set
}

// set replaces the backends; clients of one that left get another with their
// next datagram.
func (s *udpPort) set(p lb.Port, from netip.Addr) {
	s.backends.replace(p, from)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, f := range s.flows {
		if !slices.Contains(p.Backends, f.task) {
			_ = f.conn.Close()
			delete(s.flows, k)
		}
	}
}

// close ends the exchanges as well: without the port nobody could be answered.
func (s *udpPort) close() {
	_ = s.conn.Close()
	s.cut()
}

func (s *udpPort) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, f := range s.flows {
		_ = f.conn.Close()
		delete(s.flows, k)
	}
}

func (s *udpPort) receive() {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if isClosed(err) {
				s.cut()
				return
			}
			continue // an earlier answer could not be delivered
		}
		k := flowKey{client: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), asked: asked(oob[:oobn])}
		f, err := s.flow(k)
		if err != nil {
			s.plane.log.Debug("dropped a datagram", zap.Stringer("client", from), zap.Error(err))
			continue
		}
		f.last.Store(time.Now().UnixNano())
		_, _ = f.conn.Write(buf[:n]) // a datagram may be lost
	}
}

// flow finds a client's exchange, or begins one.
func (s *udpPort) flow(k flowKey) (*flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flows[k]; f != nil {
		return f, nil
	}
	if n := len(s.flows); n >= maxFlows {
		if !s.full {
			s.full = true
			s.plane.log.Warn("a UDP port has too many clients; new ones are dropped until others are silent", zap.Stringer("address", s.conn.LocalAddr()), zap.Int("clients", n))
		}
		return nil, errors.New("too many clients")
	}
	s.full = false
	f, err := s.begin(k)
	if err != nil {
		return nil, err
	}
	f.last.Store(time.Now().UnixNano())
	s.flows[k] = f
	s.plane.work.Go(func() { s.answer(f) })
	return f, nil
}

// begin finds a task for a client. No packet is sent for that, so nothing is waited
// for, and set can be held up: it must not miss a flow to a task that left.
func (s *udpPort) begin(k flowKey) (*flow, error) {
	var (
		tried  []netip.Addr
		failed []error
	)
	for {
		r := s.now.Load()
		a, ok := r.pick(tried)
		if !ok {
			return nil, errors.Join(append(failed, errNoBackend)...)
		}
		d := net.Dialer{Control: lateBind}
		if r.from.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.from, 0))
		}
		c, err := d.Dial("udp4", netip.AddrPortFrom(a, r.Target).String())
		if err == nil {
			return &flow{key: k, task: a, conn: c.(*net.UDPConn)}, nil
		}
		tried, failed = append(tried, a), append(failed, err)
	}
}

// lateBind is late for a Dialer.
func lateBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = setOptions(int(fd), late) }); e != nil {
		return e
	}
	return err
}

// answer passes on what a task says, until its client has been silent for long.
func (s *udpPort) answer(f *flow) {
	defer s.forget(f)
	raw, err := f.conn.SyscallConn()
	if err != nil {
		return
	}
	oob := answerFrom(f.key.asked)
	for {
		idle := unansweredIdle
		if f.answered {
			idle = flowIdle
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(idle))
		if err := s.pass(raw, f, oob); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, f.last.Load())) < idle {
				continue
			}
			return // also when nobody listens there: the next datagram tries anew
		}
	}
}

// pass waits for one datagram of a task and gives it to its client. A flow that
// only waits has no buffer: there may be thousands.
func (s *udpPort) pass(raw syscall.RawConn, f *flow, oob []byte) error {
	var failed error
	err := raw.Read(func(fd uintptr) (done bool) {
		buf := s.plane.buffers.Get().(*[maxDatagram]byte)
		defer s.plane.buffers.Put(buf)
		n, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
		for errors.Is(err, unix.EINTR) {
			n, _, err = unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			failed = err
			return true
		}
		f.answered = true
		f.last.Store(time.Now().UnixNano())
		_, _, _ = s.conn.WriteMsgUDPAddrPort(buf[:n], oob, f.key.client) // may be lost
		return true
	})
	return errors.Join(err, failed)
}

func (s *udpPort) forget(f *flow) {
	_ = f.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flows[f.key] == f {
		delete(s.flows, f.key)
	}
}

// asked reads the address that a datagram was sent to.
func asked(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return netip.AddrFrom4(info.Spec_dst)
		}
	}
	return netip.Addr{}
}

// answerFrom has an answer leave from an address.
func answerFrom(a netip.Addr) []byte {
	if !a.Is4() {
		return nil
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
