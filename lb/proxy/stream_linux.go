package proxy

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// stream is a direction with what it moves.
type stream struct {
	direction
	from, to *end
	kept     []byte // what is held, unless the pipe has it
	pipe     *pipe  // while much goes this way
}

// advance does the next step, if there is one. An error is for both directions:
// the connection is broken.
func (s *stream) advance(l *loop) (moved bool, err error) {
	switch s.next() {
	case read:
		if s.bulk && s.pipe == nil {
			s.pipe = l.pipes.get() // nil if there is none to be had
		}
		if s.pipe == nil {
			return true, s.copy(l.buf)
		}
		err = s.fill()
		if s.held == 0 {
			l.pipes.put(s.pipe)
			s.pipe = nil
		}
		return true, err
	case write:
		if s.pipe == nil {
			return true, s.flush()
		}
		return true, s.drain()
	case finish:
		s.didFinish()
		if !s.from.conn.done() { // else both are closed, which says the same
			shutdown(s.to.fd)
		}
		return true, nil
	}
	return false, nil
}

// copy moves what is there through a buffer that is the stream's only as long as
// the call lasts.
func (s *stream) copy(buf []byte) error {
	err := s.load(buf)
	if s.held == 0 {
		return err
	}
	// What was said before the connection broke is passed on first.
	err = errors.Join(s.flush(), err)
	s.kept = slices.Clone(s.kept)
	return err
}

// load reads what is there, and the end with it if that is known to come: both
// can then go in one packet.
func (s *stream) load(buf []byte) error {
	for s.readable && s.held < len(buf) {
		n, err := receive(s.from.fd, buf[s.held:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			s.sourceEmpty()
		case err != nil:
			s.kept = buf[:s.held]
			return err
		default:
			s.didRead(n, len(buf)-s.held)
		}
	}
	s.kept = buf[:s.held]
	return nil
}

// flush writes what is kept.
func (s *stream) flush() error {
	n, err := send(s.to.fd, s.kept, s.ended)
	switch {
	case errors.Is(err, unix.EAGAIN):
		s.sinkFull()
		return s.to.watchRoom()
	case err != nil:
		return err
	}
	s.didWrite(n)
	s.kept = s.kept[n:]
	if s.held == 0 {
		s.kept = nil
	}
	return nil
}

// fill moves what is there into the pipe, which is empty.
func (s *stream) fill() error {
	n, err := splice(s.from.fd, s.pipe.w)
	switch {
	case errors.Is(err, unix.EAGAIN):
		s.sourceEmpty()
		return nil
	case err != nil:
		return err
	}
	s.didRead(n, maxSplice)
	return nil
}

// drain moves on what is in the pipe.
func (s *stream) drain() error {
	n, err := splice(s.pipe.r, s.to.fd)
	switch {
	case errors.Is(err, unix.EAGAIN):
		s.sinkFull()
		return s.to.watchRoom()
	case err != nil:
		return err
	}
	s.didWrite(n)
	return nil
}
