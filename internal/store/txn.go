package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// Op says what a Change does.
type Op string

// The operations of a Change.
const (
	OpPut    Op = "put"
	OpDelete Op = "delete"
	OpCheck  Op = "check" // changes nothing, but the transaction fails if the version moved
)

// Change is one object's part in a transaction. It holds only while the object
// still has version PrevVersion (0: does not exist).
type Change struct {
	Kind        api.Kind
	Op          Op
	ID          string
	PrevVersion uint64
	Object      json.RawMessage `json:",omitempty"`
}

// Txn is what goes through raft: all of it takes effect, or none.
type Txn struct {
	At      time.Time // the leader's clock; applying looks at no other
	Changes []Change
}

// ErrConflict says that another transaction changed the same objects first.
// Update runs its function again by itself; only a caller that can not be run
// again sees this.
var ErrConflict = fmt.Errorf("changed by another request in the meantime: %w", errdefs.ErrConflict)

// Tx is a transaction in the making: a View that can be written. Reads see its
// own writes. It serves one goroutine, until the function it was given to
// returns.
type Tx struct {
	View
	base    *View
	changes []Change
	touched map[key]int // index into changes
}

type key struct {
	kind api.Kind
	id   string
}

// Put adds or replaces an object. Its Meta but for the ID is set on commit.
func (tx *Tx) Put(o api.Object) error {
	t, err := tx.table(o.Kind())
	if err != nil {
		return err
	}
	if o.Head().ID == "" {
		return fmt.Errorf("%s without ID", o.Kind())
	}
	if err := t.putAny(o); err != nil {
		return err
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", o.Kind(), o.Head().ID, err)
	}
	tx.record(Change{Kind: o.Kind(), Op: OpPut, ID: o.Head().ID, Object: raw})
	return nil
}

// Delete removes an object; one that does not exist is no error.
func (tx *Tx) Delete(kind api.Kind, id string) error {
	t, err := tx.table(kind)
	if err != nil {
		return err
	}
	if _, ok := t.get(id); !ok {
		return nil
	}
	t.remove(id)
	tx.record(Change{Kind: kind, Op: OpDelete, ID: id})
	return nil
}

// Check makes the transaction depend on an object that it read: if that changes
// before the commit, the transaction runs again.
func (tx *Tx) Check(o api.Object) {
	k := key{o.Kind(), o.Head().ID}
	if _, ok := tx.touched[k]; !ok {
		tx.record(Change{Kind: k.kind, Op: OpCheck, ID: k.id})
	}
}

// record keeps one change for each object: the last, against the version that
// the object had when the transaction began.
func (tx *Tx) record(c Change) {
	if t, err := tx.base.table(c.Kind); err == nil {
		if o, ok := t.get(c.ID); ok {
			c.PrevVersion = o.Head().Version
		}
	}
	k := key{c.Kind, c.ID}
	if i, ok := tx.touched[k]; ok {
		tx.changes[i] = c
		return
	}
	tx.touched[k] = len(tx.changes)
	tx.changes = append(tx.changes, c)
}

// writes tells whether committing would change anything.
func (tx *Tx) writes() bool {
	for _, c := range tx.changes {
		if c.Op == OpPut || c.Op == OpDelete && c.PrevVersion != 0 {
			return true
		}
	}
	return false
}
