package proxy

import (
	"testing"

	"pgregory.net/rapid"
)

// ends are a source and a sink as the kernel has them: they tell once when they
// become ready.
type ends struct {
	t     *rapid.T
	d     direction
	there int  // bytes that came and were not read
	mark  int  // reads stop at this many of them, if any: an urgent byte is behind
	over  bool // the source said its end
	room  int  // of the sink
	full  bool // a write found no room, and is to be told of some
	came  int  // bytes in all
	taken int
}

func (e *ends) come(n int, urgent bool) {
	if urgent {
		e.mark = e.there + n/2
		e.d.thorough = true
	}
	e.there += n
	e.came += n
	e.d.readable = true
}

func (e *ends) end() {
	e.over = true
	e.d.readable, e.d.thorough = true, true
}

func (e *ends) take(n int) {
	e.room += n
	if e.full && e.room > 0 {
		e.full = false
		e.d.writable = true
	}
}

// read is a call for as much as there is room for.
func (e *ends) read() {
	room := 8
	n := min(e.there, room)
	if e.d.bulk {
		room = 1 << 20
		if n = e.there; n > 1 {
			n = rapid.IntRange(1, n).Draw(e.t, "splice")
		}
	}
	if e.mark > 0 {
		n = min(n, e.mark)
		e.mark -= n
	}
	switch {
	case n > 0:
		e.there -= n
		e.d.didRead(n, room)
	case e.over:
		e.d.didRead(0, room)
	default:
		e.d.sourceEmpty()
	}
}

func (e *ends) write() {
	n := min(e.d.held, e.room)
	if n == 0 {
		e.full = true
		e.d.sinkFull()
		return
	}
	n = rapid.IntRange(1, n).Draw(e.t, "written")
	e.room -= n
	e.taken += n
	e.d.didWrite(n)
}

// run does what can be done.
func (e *ends) run() {
	for {
		switch e.d.next() {
		case read:
			if e.d.held > 0 {
				e.t.Fatal("reads before all of before was taken")
			}
			e.read()
		case write:
			e.write()
		case finish:
			if e.d.held > 0 || e.there > 0 || !e.over {
				e.t.Fatalf("ends with %d bytes held and %d there", e.d.held, e.there)
			}
			e.d.didFinish()
		case rest:
			if e.full { // nothing but room can help
				return
			}
			if e.there > 0 || e.d.held > 0 || e.over && !e.d.done {
				e.t.Fatalf("stands still: %+v, %d bytes there, end said: %v", e.d, e.there, e.over)
			}
			return
		}
	}
}

// TestDirection: whatever comes when, in whichever pieces: everything is passed
// on, then the end, and nothing waits for what was told already.
func TestDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &ends{t: t}
		e.d.writable = true
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0, 1:
				if !e.over {
					e.come(rapid.IntRange(1, 20).Draw(t, "bytes"), false)
				}
			case 2:
				if !e.over {
					e.come(rapid.IntRange(2, 20).Draw(t, "bytes"), true)
				}
			case 3, 4:
				e.take(rapid.IntRange(1, 20).Draw(t, "room"))
			case 5:
				if !e.over && rapid.Bool().Draw(t, "end") {
					e.end()
				}
			}
			if rapid.Bool().Draw(t, "run") { // events may come together
				e.run()
			}
		}
		if !e.over {
			e.end()
		}
		e.take(1 << 20)
		e.run()
		if !e.d.done || e.taken != e.came {
			t.Fatalf("%d of %d bytes taken; %+v", e.taken, e.came, e.d)
		}
	})
}
