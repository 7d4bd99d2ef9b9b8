package cluster

import (
	"context"
	"sync"
	"time"
)

// leadership is what raft last said about this node leading. Every change is
// signalled, so that "lost and regained within a moment" is seen as what it is:
// another leadership, whose predecessor's work must end first.
type leadership struct {
	mu      sync.Mutex
	leading bool
	changed signal
}

func (l *leadership) set(leading bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading = leading
	l.changed.fire()
}

// get returns whether this node leads, and a channel that closes at the next
// change, be it to the same.
func (l *leadership) get() (leading bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading, l.changed.next()
}

// signal wakes everybody who waits for its next firing.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// runAsLeader is RunAsLeader over an abstract barrier.
func (l *leadership) runAsLeader(ctx context.Context, barrier, fn func(context.Context) error, failed func(error)) error {
	pause := minLeadPause
	for {
		leading, changed := l.get()
		if !leading {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := l.lead(ctx, changed, barrier, fn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			pause = minLeadPause
			continue
		}
		// Most likely leadership is about to be lost: raft refuses proposals
		// before it says so. What else it may be, the daemon does not die of it.
		failed(err)
		select {
		case <-changed:
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, maxLeadPause)
	}
}

// Bounds of the pause before a leader's work is tried again that failed while
// it led.
const (
	minLeadPause = 100 * time.Millisecond
	maxLeadPause = 5 * time.Second
)

// lead serves one leadership and returns when it is over and fn has returned.
func (l *leadership) lead(ctx context.Context, changed <-chan struct{}, barrier func(context.Context) error, fn func(context.Context) error) error {
	term, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-changed:
			cancel()
		case <-term.Done():
		}
	}()
	defer func() {
		cancel()
		<-watched
	}()

	if err := barrier(term); err != nil {
		return nil // only when leadership is, see Raft.barrierUntil
	}
	err := fn(term)
	if term.Err() != nil {
		return nil // told to stop: how it put that is of no interest
	}
	if err != nil {
		return err
	}
	<-term.Done() // done for this time, and not again before the next
	return nil
}
