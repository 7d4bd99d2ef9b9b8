package proxy

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller tells of events of many descriptors, by epoll.
//
// Nobody waits in epoll_wait: a thread that does so keeps its processor from the
// rest of the daemon until the runtime takes it away, which costs more than what
// is done here. Go's own poller watches the epoll descriptor instead.
type poller struct {
	fd    int
	file  *os.File // of fd; closing it is closing fd
	raw   syscall.RawConn
	armed time.Time // when a wait ends by itself; zero for never
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or Go does not take it for one to watch
		closeFD(fd)
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // which says whether it is watched
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make an event loop: %w", err), p.file.Close())
	}
	return p, nil
}

// add begins to watch a descriptor.
func (p *poller) add(fd int, events uint32) error { return p.control(unix.EPOLL_CTL_ADD, fd, events) }

// change has other events told. Those that are so already are told, too.
func (p *poller) change(fd int, events uint32) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, events)
}

// remove ends watching one that stays open.
func (p *poller) remove(fd int) { _ = p.control(unix.EPOLL_CTL_DEL, fd, 0) }

func (p *poller) control(op, fd int, events uint32) error {
	if err := pollControl(p.fd, op, fd, events); err != nil {
		return fmt.Errorf("watch a descriptor: %w", err)
	}
	return nil
}

// wait gives what has happened. It waits for something to happen, but only until
// a time, unless that is zero; then, and at times before, there is nothing.
func (p *poller) wait(into []unix.EpollEvent, until time.Time) (n int) {
	if n = p.now(into); n > 0 {
		return n
	}
	// Setting a deadline is not for free, and one that is too early does no harm.
	if !until.IsZero() && (p.armed.IsZero() || until.Before(p.armed)) {
		p.arm(until)
	}
	err := p.raw.Read(func(uintptr) bool {
		n = p.now(into)
		return n > 0
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.arm(time.Time{})
	case err != nil:
		panic(fmt.Errorf("wait for events: %w", err))
	}
	return n
}

func (p *poller) arm(until time.Time) {
	p.armed = until
	if err := p.file.SetReadDeadline(until); err != nil {
		panic(fmt.Errorf("wait for events: %w", err))
	}
}

// now gives what has happened already.
func (p *poller) now(into []unix.EpollEvent) int {
	n, err := pollNow(p.fd, into)
	if err != nil {
		panic(fmt.Errorf("wait for events: %w", err)) // nothing but a bug gives one
	}
	return n
}

func (p *poller) close() { _ = p.file.Close() }
