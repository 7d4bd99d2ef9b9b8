// Package store keeps the cluster's objects in memory, indexed, with snapshots
// that cost nothing and a feed of what changed. It knows nothing of raft: what
// it is given to Apply is what counts, and a Proposer carries a transaction
// there. Without a Proposer a transaction is applied at once, so that all that
// builds on the store is tested without a cluster.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// MaxTxn bounds an encoded transaction, in bytes. Raft copies an entry to every
// manager within a heartbeat's time; a larger one would delay the heartbeats
// behind it.
const MaxTxn = 512 << 10

// conflictRetries bounds how often Update runs its function again. Each retry
// means that somebody else made progress.
const conflictRetries = 50

// Proposer carries an encoded transaction to Apply on every manager, and
// returns what Apply returned here. An error of kind errdefs.ErrUnknown says
// that nobody knows whether the transaction takes effect, now or later; after
// any other it does not.
type Proposer interface {
	Apply(ctx context.Context, data []byte) error
}

// Store is the replicated state. All methods are safe for concurrent use.
type Store struct {
	proposer Proposer // nil applies locally
	now      func() time.Time

	mu    sync.Mutex // guards live, and the copying of it
	live  *View
	view  atomic.Pointer[View] // copy of live; nil when live has moved on
	feeds []*Feed

	observe Observer // nil if nobody does
}

// Observer is told of each change of an object, in the order of the log: old is
// nil if it is new, now is nil if it is gone. It runs under the store's lock: it
// must be quick, and must not call the store.
type Observer func(at time.Time, old, now api.Object)

// New returns an empty store that applies its transactions locally.
func New() *Store {
	return &Store{now: time.Now, live: newView()}
}

// Connect sends the transactions of Update through p from now on. It is called
// once, before the first Update.
func (s *Store) Connect(p Proposer) { s.proposer = p }

// Observe sets who is told of changes from now on. It is called once, before the
// first Apply. What comes with a snapshot is not told.
func (s *Store) Observe(o Observer) { s.observe = o }

// View returns the state as of now.
func (s *Store) View() *View {
	if v := s.view.Load(); v != nil {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewLocked()
}

func (s *Store) viewLocked() *View {
	v := s.view.Load()
	if v == nil {
		v = s.live.copy()
		s.view.Store(v)
	}
	return v
}

// begin gives a transaction its own writable copy.
func (s *Store) begin() *Tx {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.viewLocked()
	return &Tx{View: *s.live.copy(), base: base, touched: map[key]int{}}
}

// Update runs fn and commits what it wrote, all or nothing, and returns after
// the change was applied here. If another transaction gets in between, fn runs
// again on the newer state, so it must have no effects of its own. An error of
// fn is returned as it is, and nothing is written.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	var err error
	for range conflictRetries {
		if err = s.try(ctx, fn); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return err
}

func (s *Store) try(ctx context.Context, fn func(tx *Tx) error) error {
	tx := s.begin()
	if err := fn(tx); err != nil {
		return err
	}
	if !tx.writes() {
		return nil
	}
	data, err := json.Marshal(Txn{At: s.now().UTC(), Changes: tx.changes})
	if err != nil {
		return fmt.Errorf("encode transaction: %w", err)
	}
	if len(data) > MaxTxn {
		return fmt.Errorf("%w: %d bytes in %d changes, limit %d", ErrTooLarge, len(data), len(tx.changes), MaxTxn)
	}
	if s.proposer == nil {
		return s.apply(data, func() uint64 { return s.live.Index + 1 })
	}
	return s.proposer.Apply(ctx, data)
}

// ErrTooLarge says that a transaction does not fit into one raft entry. Bulk
// writers split theirs; a single object of that size is refused.
var ErrTooLarge = errdefs.ErrInvalidArgument.WithMessage("transaction too large")

// Apply carries out a committed transaction: raft calls it in the order of the
// log, the same on every manager, so nothing in it depends on time or chance.
// A transaction that does not hold any more changes nothing; the error goes to
// its proposer and is no failure of the log.
func (s *Store) Apply(index uint64, data []byte) error {
	return s.apply(data, func() uint64 { return index })
}

// apply asks for the index under the lock.
func (s *Store) apply(data []byte, next func() uint64) error {
	var txn Txn
	if err := json.Unmarshal(data, &txn); err != nil {
		return &unreadable{fmt.Errorf("decode transaction: %w", err)}
	}
	objects, err := s.decode(&txn)
	if err != nil {
		return &unreadable{err}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	index := next()
	defer func() { s.live.Index = index }()
	// Before the first notify: a reader that hears of the change and asks for a
	// view has to wait for the lock, and must not be given the old one.
	s.view.Store(nil)
	if err := s.check(&txn); err != nil {
		return err
	}
	undo := make([]func(), 0, len(txn.Changes))
	olds := make([]api.Object, len(txn.Changes))
	for i, c := range txn.Changes {
		if t, err := s.live.table(c.Kind); err == nil {
			olds[i], _ = t.get(c.ID)
		}
		back, err := s.change(index, txn.At, c, objects[i])
		if err != nil {
			for j := len(undo) - 1; j >= 0; j-- {
				undo[j]()
			}
			return err
		}
		undo = append(undo, back)
	}
	if s.observe == nil {
		return nil
	}
	for i, c := range txn.Changes {
		if c.Op != OpCheck && (olds[i] != nil || objects[i] != nil) {
			s.observe(txn.At, olds[i], objects[i])
		}
	}
	return nil
}

// unreadable says that what was committed can not be understood. To go on
// without it would make this manager's state another than the others'.
type unreadable struct{ error }

// Unreadable marks the error for whoever applies the log.
func (*unreadable) Unreadable() {}

func (u *unreadable) Unwrap() error { return u.error }

func (s *Store) decode(txn *Txn) ([]api.Object, error) {
	objects := make([]api.Object, len(txn.Changes))
	for i, c := range txn.Changes {
		t, err := s.live.table(c.Kind) // the set of tables never changes
		if err != nil {
			return nil, err
		}
		switch c.Op {
		case OpPut:
			if objects[i], err = t.decode(c.Object); err != nil {
				return nil, err
			}
		case OpDelete, OpCheck:
		default:
			return nil, fmt.Errorf("unknown operation %q on %s %s", c.Op, c.Kind, c.ID)
		}
	}
	return objects, nil
}

func (s *Store) check(txn *Txn) error {
	for _, c := range txn.Changes {
		t, err := s.live.table(c.Kind)
		if err != nil {
			return err
		}
		var version uint64
		if o, ok := t.get(c.ID); ok {
			version = o.Head().Version
		}
		if version != c.PrevVersion {
			return ErrConflict
		}
	}
	return nil
}

// change carries out one change and returns what takes it back.
func (s *Store) change(index uint64, at time.Time, c Change, o api.Object) (undo func(), err error) {
	t, err := s.live.table(c.Kind)
	if err != nil {
		return nil, err
	}
	old, existed := t.get(c.ID)
	switch c.Op {
	case OpPut:
		h := o.Head()
		h.Version, h.CreatedAt, h.UpdatedAt = index, at, at
		if existed {
			h.CreatedAt = old.Head().CreatedAt
		}
		if err := t.putAny(o); err != nil {
			return nil, err
		}
	case OpDelete:
		t.remove(c.ID)
	case OpCheck:
		return func() {}, nil
	}
	s.notify(c.Kind, c.ID, old)
	return func() {
		if existed {
			_ = t.putAny(old) // it was there a moment ago: nothing can stand in its way
		} else {
			t.remove(c.ID)
		}
	}, nil
}
