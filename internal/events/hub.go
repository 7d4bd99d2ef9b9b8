// Package events tells what happens to the cluster's objects, in the words of
// Docker's events. It is given each change that is applied, so that every
// manager tells the same, with the same times.
package events

import (
	"errors"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"

	"shoal/internal/api"
)

// Kept is how many events are remembered for those who ask what happened before,
// and how far a reader may fall behind. It bounds the memory, however many read.
const Kept = 1024

// ErrBehind tells a reader that it missed events.
var ErrBehind = errors.New("the reader of events is too slow: some were missed")

// Hub remembers the last events and wakes who waits for the next. All methods
// are safe for concurrent use.
type Hub struct {
	mu   sync.Mutex
	ring [Kept]events.Message
	next uint64 // number of the next event; the oldest kept is next-Kept
	wake chan struct{}
}

// NewHub returns a hub that has seen nothing.
func NewHub() *Hub { return &Hub{wake: make(chan struct{})} }

// Observe notes a change of an object: old is nil if it is new, now is nil if it
// is gone. It does not block.
func (h *Hub) Observe(at time.Time, old, now api.Object) {
	if m, ok := describe(at, old, now); ok {
		h.tell(m)
	}
}

// Leads notes that another manager leads. Who does is agreed upon before anything
// is applied, so that each manager tells it when it hears of it.
func (h *Hub) Leads(at time.Time, was, is *api.Node) {
	if was != nil {
		h.tell(leads(at, was, false))
	}
	if is != nil {
		h.tell(leads(at, is, true))
	}
}

func (h *Hub) tell(m events.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[h.next%Kept] = m
	h.next++
	close(h.wake)
	h.wake = make(chan struct{})
}

// Now is the place in the stream of events after the last one.
func (h *Hub) Now() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next
}

// Before gives the events that are remembered from before a place, oldest first.
func (h *Hub) Before(place uint64) []events.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []events.Message
	for n := h.next - min(h.next, Kept); n < place; n++ {
		out = append(out, h.ring[n%Kept])
	}
	return out
}

// From gives the event at a place. If it is yet to happen, ready is closed when
// there is one.
func (h *Hub) From(place uint64) (m events.Message, ready <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case place >= h.next:
		return m, h.wake, nil
	case h.next-place > Kept:
		return m, nil, ErrBehind
	}
	return h.ring[place%Kept], nil, nil
}
