package proxy

import (
	"container/list"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// maxEvents is how many events are taken at a time.
	maxEvents = 256
	// bufferSize is the most that is copied at once. Whoever fills it has more to
	// say, and is worth a pipe. What a slow reader does not take is kept, so it is
	// also what such a one costs.
	bufferSize = 32 << 10
)

// source is a descriptor that a loop watches.
type source interface {
	// ready says what happened, as EPOLL flags.
	ready(events uint32)
}

// loop serves connections on one goroutine: it waits for events of any of its
// descriptors and does what can be done without waiting. What it has is touched
// by nobody else, but for what says so.
type loop struct {
	log    *zap.Logger
	poller *poller
	bell   int // an eventfd: there is something in calls

	sources map[int]source // by descriptor
	conns   map[*conn]struct{}
	dialing list.List // of *conn that have no task yet, the oldest first
	busy    []*conn   // have more to do than one turn is long
	paused  paused    // ports
	dead    []int     // descriptors to close, see drop
	spare   int       // a socket for the next client's task, or -1
	pipes   pipes
	buf     []byte
	ended   bool

	load atomic.Int32 // how many conns there are or will be, for all to see

	mu    sync.Mutex
	calls []func() // of other goroutines
}

func newLoop(log *zap.Logger) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &loop{log: log, poller: p, spare: -1, sources: map[int]source{}, conns: map[*conn]struct{}{}, buf: make([]byte, bufferSize)}
	if l.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		p.close()
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	if err := l.watch(l.bell, bell{l}, unix.EPOLLIN); err != nil {
		l.free()
		return nil, err
	}
	return l, nil
}

// run serves until a call sets ended.
func (l *loop) run() {
	defer l.free()
	events := make([]unix.EpollEvent, maxEvents)
	for !l.ended {
		for _, e := range events[:l.wait(events)] {
			if s := l.sources[int(e.Fd)]; s != nil { // it may be gone, by an event before this one
				s.ready(e.Events)
			}
		}
		l.continueBusy()
		l.expire()
		l.bury()
	}
}

// wait gives the next events. There may be none, when it is time for something.
func (l *loop) wait(events []unix.EpollEvent) int {
	if len(l.busy) > 0 {
		return l.poller.now(events)
	}
	until := l.paused.until
	if e := l.dialing.Front(); e != nil {
		if d := e.Value.(*conn).dial.deadline; until.IsZero() || d.Before(until) {
			until = d
		}
	}
	return l.poller.wait(events, until)
}

// continueBusy gives another turn to those that had more to do.
func (l *loop) continueBusy() {
	busy := l.busy
	l.busy = nil
	for _, c := range busy {
		c.busy = false
		if _, open := l.conns[c]; open {
			c.carry()
		}
	}
}

// expire gives up dials that have taken too long, and accepts again after a pause.
func (l *loop) expire() {
	if l.dialing.Len() == 0 && l.paused.until.IsZero() {
		return
	}
	now := time.Now()
	for e := l.dialing.Front(); e != nil && now.After(e.Value.(*conn).dial.deadline); e = l.dialing.Front() {
		e.Value.(*conn).dialFailed(unix.ETIMEDOUT)
	}
	if !l.paused.until.IsZero() && now.After(l.paused.until) {
		l.resume()
	}
}

// watch has a source told of events.
func (l *loop) watch(fd int, s source, events uint32) error {
	if err := l.poller.add(fd, events); err != nil {
		return err
	}
	l.sources[fd] = s
	return nil
}

// unwatch ends that, for a descriptor that stays open.
func (l *loop) unwatch(fd int) {
	if l.sources[fd] != nil {
		delete(l.sources, fd)
		l.poller.remove(fd)
	}
}

// drop closes a descriptor when the events at hand are through: until then no
// other may have its number, or it would get what was meant for this one.
func (l *loop) drop(fd int) {
	delete(l.sources, fd)
	l.dead = append(l.dead, fd)
}

func (l *loop) bury() {
	for _, fd := range l.dead {
		closeFD(fd)
	}
	l.dead = l.dead[:0]
}

// call has the loop do something, and does not wait for it. Any goroutine may.
func (l *loop) call(f func()) {
	l.mu.Lock()
	l.calls = append(l.calls, f)
	first := len(l.calls) == 1
	l.mu.Unlock()
	if first {
		ring(l.bell)
	}
}

// bell is where a loop hears that it was called.
type bell struct{ *loop }

func (l bell) ready(uint32) {
	hush(l.bell)
	l.mu.Lock()
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// cut ends every connection.
func (l *loop) cut() {
	for c := range l.conns {
		c.close()
	}
	l.bury()
}

// free lets go of all that the loop has.
func (l *loop) free() {
	l.cut()
	l.pipes.close()
	if l.spare >= 0 {
		closeFD(l.spare)
	}
	closeFD(l.bell)
	l.poller.close()
}
