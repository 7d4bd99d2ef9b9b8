package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"shoal/internal/api"
	"shoal/internal/wake"
)

// Dirty names an object that changed since the last Take.
type Dirty struct {
	Kind api.Kind
	ID   string
	// Old is the object as it was at the last Take; nil if it did not exist.
	// What it is now is in the View: nothing, if it was deleted.
	Old api.Object
}

// Feed collects which objects changed. It is a set, not a queue: however slow
// the reader, it holds an object once.
type Feed struct {
	store *Store
	kinds map[api.Kind]bool

	mu    sync.Mutex
	dirty map[key]Dirty
	all   bool
	ready wake.Bell
}

// Watch returns a feed of changes to objects of these kinds, which begins with
// All set, so that the reader starts from a View. Close it when done.
func (s *Store) Watch(kinds ...api.Kind) *Feed {
	f := &Feed{store: s, kinds: map[api.Kind]bool{}, dirty: map[key]Dirty{}, all: true, ready: wake.NewBell()}
	for _, k := range kinds {
		f.kinds[k] = true
	}
	f.ready <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeds = append(s.feeds, f)
	return f
}

// Ready receives when there is something to Take.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Take empties the feed. If all is true everything may have changed (at the
// start, and after a restored snapshot) and dirty says nothing. A View taken
// afterwards holds at least these changes.
func (f *Feed) Take() (dirty []Dirty, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirty = make([]Dirty, 0, len(f.dirty))
	for _, d := range f.dirty {
		dirty = append(dirty, d)
	}
	all, f.all = f.all, false
	clear(f.dirty)
	select {
	case <-f.ready:
	default:
	}
	if all {
		return nil, true
	}
	return dirty, false
}

// Tend calls do at once, after every change to objects of these kinds, and again
// after the time that do returns, if it is not 0; until ctx ends.
func (s *Store) Tend(ctx context.Context, do func() (again time.Duration), kinds ...api.Kind) error {
	feed := s.Watch(kinds...)
	defer feed.Close()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-feed.Ready():
			feed.Take()
		case <-again:
		}
		again = nil
		if wait := do(); wait > 0 {
			again = time.After(wait)
		}
	}
}

// Close ends the feed.
func (f *Feed) Close() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.feeds = slices.DeleteFunc(f.store.feeds, func(o *Feed) bool { return o == f })
}

// notify runs under the store's lock.
func (s *Store) notify(kind api.Kind, id string, old api.Object) {
	for _, f := range s.feeds {
		if !f.kinds[kind] {
			continue
		}
		f.mu.Lock()
		k := key{kind, id}
		if _, ok := f.dirty[k]; !ok {
			f.dirty[k] = Dirty{Kind: kind, ID: id, Old: old}
		}
		f.ready.Ring()
		f.mu.Unlock()
	}
}

// notifyAll runs under the store's lock.
func (s *Store) notifyAll() {
	for _, f := range s.feeds {
		f.mu.Lock()
		f.all = true
		f.ready.Ring()
		f.mu.Unlock()
	}
}
