package proxy

import (
	"slices"

	"golang.org/x/sys/unix"
)

// turn is how many steps of each direction a connection takes before others have
// their turn.
const turn = 16

// conn is a client's connection and its task's. Its loop alone touches it.
type conn struct {
	loop     *loop
	port     *tcpPort
	client   end
	task     end
	up, down stream   // to the task, to the client
	dial     *dialing // while there is no task yet
	busy     bool     // among the loop's
}

// end is one of the two sockets.
type end struct {
	conn  *conn
	fd    int
	says  *stream // what comes from it
	hears *stream // what goes to it
	room  bool    // we are told when it takes something again
}

// adopt begins to serve a client, with a socket for its task.
func (l *loop) adopt(p *tcpPort, client, task int) {
	c := &conn{loop: l, port: p, dial: &dialing{}}
	c.client = end{conn: c, fd: client, says: &c.up, hears: &c.down}
	c.task = end{conn: c, fd: task, says: &c.down, hears: &c.up}
	c.up.from, c.up.to = &c.client, &c.task
	c.down.from, c.down.to = &c.task, &c.client
	l.conns[c] = struct{}{}
	// Most clients speak first, and have done so by now.
	c.up.readable = true
	if err := c.up.load(l.buf); err != nil {
		c.reset()
		return
	}
	c.up.kept = slices.Clone(c.up.kept)
	c.tryNext()
}

// What an end is watched for; a change is told once.
const (
	reading = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	writing = unix.EPOLLOUT
)

// ready notes what happened at an end, and does what can be done now.
func (e *end) ready(events uint32) {
	c := e.conn
	if c.dial != nil {
		c.dialed(events)
		return
	}
	const broken = unix.EPOLLHUP | unix.EPOLLERR // any call may say more
	if events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|broken) != 0 {
		e.says.readable = true
	}
	if events&(unix.EPOLLPRI|unix.EPOLLRDHUP|broken) != 0 {
		e.says.thorough = true
	}
	if events&(unix.EPOLLOUT|broken) != 0 {
		e.hears.writable = true
	}
	c.carry()
}

// watchRoom has us told when an end takes something again. Most always do.
func (e *end) watchRoom() error {
	if e.room {
		return nil
	}
	e.room = true
	return e.conn.loop.poller.change(e.fd, reading|writing)
}

// carry moves what can be moved, and passes on how a direction ends: an end as an
// end, with the other direction going on, and a reset as a reset.
func (c *conn) carry() {
	for range turn {
		up, err := c.up.advance(c.loop)
		if err != nil {
			c.reset()
			return
		}
		down, err := c.down.advance(c.loop)
		if err != nil {
			c.reset()
			return
		}
		if c.done() {
			c.close()
			return
		}
		if !up && !down {
			return
		}
	}
	if !c.busy {
		c.busy = true
		c.loop.busy = append(c.loop.busy, c)
	}
}

// done tells whether both directions have ended.
func (c *conn) done() bool { return c.up.done && c.down.done }

// close ends both connections.
func (c *conn) close() {
	c.endDial()
	for _, s := range []*stream{&c.up, &c.down} {
		if s.pipe != nil { // something may be in it
			s.pipe.close()
			s.pipe = nil
		}
	}
	c.loop.drop(c.client.fd)
	c.leaveTask()
	delete(c.loop.conns, c)
	c.loop.load.Add(-1)
}

// leaveTask gives up the socket to the task.
func (c *conn) leaveTask() {
	if c.task.fd >= 0 {
		c.loop.drop(c.task.fd)
		c.task.fd = -1
	}
}

// reset closes both so that no peer can take it for an end.
func (c *conn) reset() {
	for _, fd := range []int{c.client.fd, c.task.fd} {
		if fd >= 0 {
			setLinger(fd)
		}
	}
	c.close()
}
