package httpapi

import (
	"context"
	"time"

	"shoal/internal/api"
	"shoal/internal/control"
)

// A log that is followed outlives what carries it: the leader that passes it on,
// the node's daemon and its engine may all begin anew. It is taken up where it
// broke off, without a line lost or told twice.

const (
	// breakTime is how long a followed log may be interrupted with nobody told:
	// what a change of leaders takes, or a daemon that starts again.
	breakTime = 10 * time.Second
	// resumeMin and resumeMax are the pauses between two tries.
	resumeMin = 100 * time.Millisecond
	resumeMax = 2 * time.Second
)

// place is how far a log has been read: the time of the last message, and how
// many of that time there were. Parts of a long line share one.
type place struct {
	at    string
	count int
	skip  int // messages of that time that are about to come once more

	opened bool // the last try began
}

// options are those to read on with.
func (p *place) options(o api.LogOptions) api.LogOptions {
	o.Timestamps = true // to put the lines in order
	if p.at != "" {
		o.Since, o.Tail, p.skip = p.at, "all", p.count
	}
	return o
}

// pass tells whether a message is news.
func (p *place) pass(m message) bool {
	switch {
	case m.at == "" || m.at > p.at:
		if m.at != "" {
			p.at, p.count, p.skip = m.at, 1, 0
		}
		return true
	case m.at < p.at: // a clock went back; nothing from before is told once more
		return true
	case p.skip > 0:
		p.skip--
		return false
	}
	p.count++
	return true
}

// keepReading follows a source until it ends, whatever breaks off meanwhile. One
// that stays away costs a line of warning.
func (m *logMerger) keepReading(ctx context.Context, src control.LogSource, ch chan<- message) error {
	var (
		p      place
		broken time.Time // since when nothing can be read; zero while it can
		warned bool
		pause  = resumeMin
	)
	for {
		p.opened = false
		err := m.readFrom(ctx, src, &p, ch)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if p.opened || broken.IsZero() {
			broken, warned, pause = now, false, resumeMin
		}
		known := true
		if src, known = m.source(src.TaskID); !known {
			return err // what it still had to say is lost
		}
		if !warned && (src.Down || now.Sub(broken) >= breakTime) {
			warned = true
			select {
			case ch <- warning(src, err):
			case <-ctx.Done():
				return nil
			}
		}
		if warned && src.Ended {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, resumeMax)
	}
}
