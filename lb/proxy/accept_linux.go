package proxy

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// acceptPause is how long a loop that can not accept waits for others' ends.
	acceptPause = 50 * time.Millisecond
	// sayEvery is how often it is said at most that clients of a port wait.
	sayEvery = time.Minute
	// acceptBatch is how many clients a loop takes before it looks after the others.
	acceptBatch = 4
)

// listener is an open port in the loop that accepts there, for all. A socket for
// each loop (SO_REUSEPORT) would be shared with any other process that asks for
// such a one, too: nobody would be told that the port is taken.
type listener struct {
	*loop
	port *tcpPort
}

// listen begins to accept.
func (l *loop) listen(p *tcpPort) error { return l.watch(p.socket, listener{l, p}, unix.EPOLLIN) }

// silence ends that.
func (l *loop) silence(p *tcpPort) {
	l.unwatch(p.socket)
	l.paused.ports = slices.DeleteFunc(l.paused.ports, func(one *tcpPort) bool { return one == p })
}

func (l listener) ready(uint32) {
	for range acceptBatch {
		client, task, err := l.accept(l.port)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue // the client is gone already
		case err != nil:
			l.pause(l.port, err)
			return
		}
		to := l.port.plane.loops.forClient(l.loop)
		to.load.Add(1)
		if to == l.loop {
			to.adopt(l.port, client, task)
		} else {
			to.call(func() { to.adopt(l.port, client, task) })
		}
	}
}

// accept takes a client, but only when there is a descriptor for its task, too.
func (l *loop) accept(p *tcpPort) (client, task int, err error) {
	if l.spare < 0 {
		if task, err = tcpSocket(); err != nil {
			return -1, -1, err
		}
		l.spare = task
	}
	if client, err = accept(p.socket); err != nil {
		return -1, -1, err
	}
	task, l.spare = l.spare, -1
	return client, task, nil
}

// paused are the ports where a loop does not accept for a moment.
type paused struct {
	ports []*tcpPort
	until time.Time // zero if there are none
}

// pause has the clients of a port wait: descriptors have run out, most likely,
// and those that are open have to end. Whatever else it is, it is said.
func (l *loop) pause(p *tcpPort, err error) {
	if time.Since(p.said) > sayEvery {
		p.said = time.Now()
		l.log.Warn("can not accept connections now; clients wait", zap.Uint16("port", p.number), zap.Error(err))
	}
	l.unwatch(p.socket)
	if l.paused.until.IsZero() {
		l.paused.until = time.Now().Add(acceptPause)
	}
	l.paused.ports = append(l.paused.ports, p)
}

// resume accepts again.
func (l *loop) resume() {
	ports := l.paused.ports
	l.paused = paused{}
	for _, p := range ports {
		if err := l.listen(p); err != nil {
			l.pause(p, err)
		}
	}
}
