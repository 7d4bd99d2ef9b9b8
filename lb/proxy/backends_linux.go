package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"shoal/lb"
)

// backends are what a port leads to, as of now.
type backends struct {
	mu  sync.Mutex
	now *round
}

// round is one table's backends of a port, and the dials under way to them.
type round struct {
	lb.Port
	from    netip.Addr
	ctx     context.Context
	end     context.CancelFunc
	dialing sync.WaitGroup
}

var errNoBackend = errors.New("no task can take the connection")

// set replaces the backends and waits until nobody dials by the old ones.
func (b *backends) set(p lb.Port, from netip.Addr) {
	next := &round{Port: p, from: from}
	next.ctx, next.end = context.WithCancel(context.Background())
	b.mu.Lock()
	old := b.now
	b.now = next
	b.mu.Unlock()
	if old == nil {
		return
	}
	// A dial that has not come through is made again, by the new ones.
	old.end()
	old.dialing.Wait()
}

// dial tries the backends in random order until one takes it.
func (b *backends) dial(try func(r *round, a netip.Addr) error) error {
	var (
		failed []error
		tried  []netip.Addr
	)
	for {
		b.mu.Lock()
		r := b.now
		r.dialing.Add(1)
		b.mu.Unlock()
		left := slices.DeleteFunc(slices.Clone(r.Backends), func(a netip.Addr) bool { return slices.Contains(tried, a) })
		if len(left) == 0 {
			r.dialing.Done()
			return errors.Join(append(failed, errNoBackend)...)
		}
		a := left[rand.IntN(len(left))]
		err := try(r, a)
		replaced := r.ctx.Err() != nil
		r.dialing.Done()
		switch {
		case err == nil:
			return nil
		case replaced: // it says nothing of the backend
		default:
			tried, failed = append(tried, a), append(failed, err)
		}
	}
}
