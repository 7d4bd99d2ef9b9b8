package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

const (
	port = netkit.NamesPort
	// maxAtOnce bounds the questions that are with the host's servers, and the
	// connections of containers; maxPerAsker those of one container among them.
	maxAtOnce   = 512
	maxPerAsker = 64
	// retryEvery is how often the port is tried when somebody else has it.
	retryEvery = 2 * time.Second
	idle       = 8 * time.Second
)

// serve answers on the containers' gateway until ctx ends. The port not being
// there to be had is no reason for a node to fail: it is said, and tried again.
func (s *Server) serve(ctx context.Context) error {
	for {
		err := s.serveOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		text := fmt.Sprintf("%v%s", err, owner(err))
		if old := s.trouble.Swap(&text); old == nil || *old != text {
			s.log.Error("containers can not ask for names; it is tried again", zap.String("why", text))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
	}
}

// owner says who has the port, if that is what is wrong.
func owner(err error) string {
	if !errors.Is(err, unix.EADDRINUSE) {
		return ""
	}
	for _, protocol := range []string{"udp", "tcp"} {
		if o, ok, err := netkit.PortOwner(protocol, port); err == nil && ok {
			return fmt.Sprintf(": %s has port %d/%s on every address of this host; let it listen on its own address alone", o, port, protocol)
		}
	}
	return ""
}

// serveOnce listens and serves. The address may not be there yet, and may go
// and come back.
func (s *Server) serveOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at := netip.AddrPortFrom(netkit.Gateway, port).String()
	conf := net.ListenConfig{Control: freebind}
	packets, err := conf.ListenPacket(ctx, "udp4", at)
	if err != nil {
		return err
	}
	conns, err := conf.Listen(ctx, "tcp4", at)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	servers := []*dns.Server{
		{PacketConn: packets, DecorateReader: func(r dns.Reader) dns.Reader { return &reader{r, s} }},
		{Listener: &listener{conns, s}, IdleTimeout: func() time.Duration { return idle }, ReadTimeout: idle},
	}
	var g errgroup.Group
	for _, srv := range servers {
		srv.Handler = s
		g.Go(func() error {
			defer cancel() // one does not go on without the other
			return srv.ActivateAndServe()
		})
	}
	if s.trouble.Swap(nil) != nil {
		s.log.Info("containers can ask for names again")
	}
	<-ctx.Done()
	for _, srv := range servers {
		_ = srv.Shutdown() // that it has not begun yet is an error, too: hence the rest
	}
	_, _ = packets.Close(), conns.Close()
	if err := g.Wait(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// freebind lets a socket have an address that is not there yet.
func freebind(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(cerr, err)
}

// reader gives the server the datagrams of containers alone. Whoever else sends
// one gets no answer, not even that it is malformed: the sender may be a lie.
type reader struct {
	dns.Reader
	s *Server
}

// ReadUDP implements dns.Reader.
func (r *reader) ReadUDP(conn *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		b, from, err := r.Reader.ReadUDP(conn, timeout)
		if err != nil {
			return nil, nil, err
		}
		if _, ok := r.s.asker(from.RemoteAddr()); ok {
			return b, from, nil
		}
	}
}

// listener takes the connections of containers alone, and only so many.
type listener struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addrOf(c.RemoteAddr())
		if _, ok := l.s.asker(c.RemoteAddr()); ok && l.s.conns.enter(from) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.s.conns.leave(from) })}, nil
		}
		_ = c.Close()
	}
}

// conn is a container's connection that counts until it is closed.
type conn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// asker finds the container that an address is of.
func (s *Server) asker(from net.Addr) (Asker, bool) {
	z := s.zone.Load()
	if z == nil {
		return Asker{}, false
	}
	a, ok := z.Askers[addrOf(from)]
	return a, ok
}

func addrOf(from net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	asker, ok := s.asker(w.RemoteAddr())
	if !ok {
		_ = w.Close()
		return
	}
	network := w.RemoteAddr().Network()
	reply := s.zone.Load().answer(asker, query)
	if reply == nil {
		reply = s.forward(asker, addrOf(w.RemoteAddr()), network, query)
	}
	if network == "udp" {
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // an asker that is gone needs none
}

// forward asks the host's servers. What went wrong is said, since engines wait
// for an answer, and pass none on if there is none.
func (s *Server) forward(a Asker, from netip.Addr, network string, query *dns.Msg) *dns.Msg {
	failure := new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	failure.RecursionAvailable = true
	if a.OwnServers {
		return failure // the engine asks them next
	}
	if !s.forwards.enter(from) {
		return failure
	}
	defer s.forwards.leave(from)
	reply, err := s.upstream.ask(s.ctx, network, query)
	if err != nil {
		s.log.Debug("no name server of the host answers", zap.String("name", query.Question[0].Name), zap.Error(err))
		return failure
	}
	reply.Id, reply.Compress = query.Id, true
	return reply
}

// turnstile counts what is under way.
type turnstile struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]int
}

func (t *turnstile) enter(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= maxAtOnce || t.by[a] >= maxPerAsker {
		return false
	}
	if t.by == nil {
		t.by = map[netip.Addr]int{}
	}
	t.all++
	t.by[a]++
	return true
}

func (t *turnstile) leave(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.by[a]--; t.by[a] == 0 {
		delete(t.by, a)
	}
}

func (t *turnstile) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}

// Trouble says why containers can not ask; "" if they can.
func (s *Server) Trouble() string {
	if t := s.trouble.Load(); t != nil {
		return *t
	}
	return ""
}
