package proxy

// direction is one of the two of a connection: what is known of its two ends, and
// so what is to be done next. It does nothing itself. The kernel says only once
// that an end has become ready, so that is kept here until a call finds otherwise.
type direction struct {
	readable bool // the source may have something
	thorough bool // a short read says nothing: an end or an urgent byte is behind it
	writable bool // the sink may take something
	held     int  // bytes that were read and not taken yet
	bulk     bool // much comes: it goes through a pipe, without being copied
	ended    bool // the end of the source was read
	done     bool // and passed on
}

// step is what a direction can do next.
type step int

const (
	rest   step = iota // nothing, before an end becomes ready
	read               // from the source
	write              // to the sink, of what is held
	finish             // tell the sink that this was all
)

// next tells what to do. Nothing is read before all of before was taken, or when
// the sink takes nothing: it stays with the sender, which has to wait, too.
func (d *direction) next() step {
	switch {
	case d.done, !d.writable:
		return rest
	case d.held > 0:
		return write
	case d.ended:
		return finish
	case d.readable:
		return read
	}
	return rest
}

// didRead says that a read with this much room gave n bytes; none are the end.
func (d *direction) didRead(n, room int) {
	d.held += n
	switch {
	case n == 0:
		d.readable, d.ended, d.bulk = false, true, false
	case n == room:
		d.bulk = true
	case !d.bulk && !d.thorough:
		// That was all, and we are told when more comes. What a pipe takes is no sign.
		d.readable = false
	}
}

// sourceEmpty says that there was nothing to read.
func (d *direction) sourceEmpty() { d.readable, d.bulk = false, false }

// didWrite says that n bytes of those held were taken. That it was not all does
// not mean that the sink is full: only then are we told when it is not any more.
func (d *direction) didWrite(n int) { d.held -= n }

// sinkFull says that nothing was taken.
func (d *direction) sinkFull() { d.writable = false }

// didFinish says that the sink knows of the end.
func (d *direction) didFinish() { d.done = true }
