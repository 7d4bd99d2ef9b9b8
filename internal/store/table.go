package store

import (
	"fmt"
	"iter"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/tidwall/btree"

	"shoal/internal/api"
)

// Index is a second way into a table: Keys gives the values an object is found
// under. A unique index refuses a second object with the same key.
type Index[T api.Object] struct {
	Name   string
	Unique bool
	Keys   func(T) []string
}

// Table is one kind of object, in order of ID, with its indexes.
type Table[T api.Object] struct {
	kind    api.Kind
	rows    *btree.Map[string, T]
	indexes []Index[T]
	entries []*btree.Map[string, T] // per index: key, NUL, object ID
}

func newTable[T api.Object](kind api.Kind, indexes ...Index[T]) *Table[T] {
	t := &Table[T]{kind: kind, rows: new(btree.Map[string, T]), indexes: indexes}
	for range indexes {
		t.entries = append(t.entries, new(btree.Map[string, T]))
	}
	return t
}

// copy shares all nodes with the original until one of the two writes. It
// changes bookkeeping in the original, so it needs the store's write lock.
func (t *Table[T]) copy() *Table[T] {
	c := &Table[T]{kind: t.kind, rows: t.rows.Copy(), indexes: t.indexes}
	for _, e := range t.entries {
		c.entries = append(c.entries, e.Copy())
	}
	return c
}

// Get finds an object by its whole ID.
func (t *Table[T]) Get(id string) (T, bool) { return t.rows.Get(id) }

// Len is the number of objects.
func (t *Table[T]) Len() int { return t.rows.Len() }

// All runs over the objects in order of ID.
func (t *Table[T]) All() iter.Seq[T] { return t.Prefix("") }

// Prefix runs over the objects whose ID begins with p.
func (t *Table[T]) Prefix(p string) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.rows.Ascend(p, func(id string, o T) bool {
			return strings.HasPrefix(id, p) && yield(o)
		})
	}
}

// By runs over the objects that an index holds under key, in order of ID. An
// index that does not exist is a mistake in the program: By panics.
func (t *Table[T]) By(index, key string) iter.Seq[T] {
	e := t.entries[t.index(index)]
	from := key + "\x00"
	return func(yield func(T) bool) {
		e.Ascend(from, func(k string, o T) bool {
			return strings.HasPrefix(k, from) && yield(o)
		})
	}
}

// One finds an object through an index, the first in order of ID.
func (t *Table[T]) One(index, key string) (T, bool) {
	for o := range t.By(index, key) {
		return o, true
	}
	var none T
	return none, false
}

func (t *Table[T]) index(name string) int {
	for i := range t.indexes {
		if t.indexes[i].Name == name {
			return i
		}
	}
	panic(fmt.Sprintf("store: table %s has no index %q", t.kind, name))
}

// put replaces or adds an object, or says which unique key stands in the way.
func (t *Table[T]) put(o T) error {
	id := o.Head().ID
	for i := range t.indexes {
		if !t.indexes[i].Unique {
			continue
		}
		for _, key := range t.indexes[i].Keys(o) {
			if other, ok := t.One(t.indexes[i].Name, key); ok && other.Head().ID != id {
				return fmt.Errorf("%s %s %q: %w", t.kind, t.indexes[i].Name, key, errdefs.ErrAlreadyExists)
			}
		}
	}
	old, replaced := t.rows.Set(id, o)
	for i := range t.indexes {
		if replaced {
			t.unindex(i, old)
		}
		for _, key := range t.indexes[i].Keys(o) {
			t.entries[i].Set(key+"\x00"+id, o)
		}
	}
	return nil
}

func (t *Table[T]) remove(id string) {
	old, ok := t.rows.Delete(id)
	if !ok {
		return
	}
	for i := range t.indexes {
		t.unindex(i, old)
	}
}

func (t *Table[T]) unindex(i int, o T) {
	for _, key := range t.indexes[i].Keys(o) {
		t.entries[i].Delete(key + "\x00" + o.Head().ID)
	}
}
