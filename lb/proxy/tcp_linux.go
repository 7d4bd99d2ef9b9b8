package proxy

import (
	"net/netip"
	"time"

	"shoal/lb"
)

// tcpPort is one open TCP port.
type tcpPort struct {
	backends
	plane  *Plane
	number uint16
	socket int
	home   *loop     // that accepts here
	said   time.Time // that clients have to wait; home's alone
}

func (p *Plane) openTCP(port lb.Port, from netip.Addr) (server, error) {
	if p.loops == nil {
		started, err := startLoops(p.log)
		if err != nil {
			return nil, err
		}
		p.loops = started
	}
	fd, err := listenSocket(port.Published)
	if err != nil {
		return nil, err
	}
	s := &tcpPort{plane: p, number: port.Published, socket: fd, home: p.loops.forPort()}
	s.backends.replace(port, from)
	s.atHome(func(l *loop) { err = l.listen(s) })
	if err != nil {
		closeFD(fd)
		return nil, err
	}
	return s, nil
}

func (s *tcpPort) atHome(f func(*loop)) { do([]*loop{s.home}, f) }

// set replaces the backends. A dial that has not come through is made again, by
// the new ones.
func (s *tcpPort) set(p lb.Port, from netip.Addr) {
	if s.backends.replace(p, from) {
		s.plane.loops.each(func(l *loop) { l.redial(s) })
	}
}

// close takes no more clients. Those that have a task keep it; the others get none
// any more.
func (s *tcpPort) close() {
	s.atHome(func(l *loop) { l.silence(s) })
	s.set(lb.Port{}, netip.Addr{})
	closeFD(s.socket)
}
