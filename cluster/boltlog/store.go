package boltlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime/debug"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"shoal/cluster/seal"
)

// Store is raft's log store and stable store. A write that returns without an
// error has been fsynced. After a write has failed nobody can say what is on
// disk, so the store is finished: every later call returns that first failure,
// and the next Open decides from the file.
type Store struct {
	path   string
	key    *seal.Key
	file   *os.File
	db     *bolt.DB
	onFail func(error)

	// writing is held from the look at what is there until its successor is on
	// disk: raft compacts the log on one goroutine while it appends on another.
	writing sync.Mutex

	mu     sync.RWMutex
	bounds bounds
	stable stable
	failed error
}

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
)

// termKey is the one stable value whose failed write raft answers with a panic.
const termKey = "CurrentTerm"

// IsMonotonic tells raft that this log has no gaps, ever, so that it drops the
// old entries when a snapshot is installed instead of leaving a hole.
func (s *Store) IsMonotonic() bool { return true }

func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bounds.first, nil
}

func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bounds.last, nil
}

// GetLog reads one entry and checks it again: the file was sound when it was
// opened, but disks also rot under a running process.
func (s *Store) GetLog(index uint64, e *raft.Log) error {
	s.mu.RLock()
	b, failed := s.bounds, s.failed
	s.mu.RUnlock()
	if failed != nil {
		return failed
	}
	if b.last == 0 || index < b.first || index > b.last {
		return raft.ErrLogNotFound
	}
	gone := false
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			v := tx.Bucket([]byte(logBucket)).Get(indexKey(index))
			if v == nil {
				gone = true
				return fmt.Errorf("entry %d: missing", index)
			}
			return decodeEntry(s.key, index, v, e)
		})
	})
	if err == nil {
		return nil
	}
	if gone { // compacted between the two looks
		if first, _ := s.FirstIndex(); index < first {
			return raft.ErrLogNotFound
		}
	}
	return s.fail(&DamagedError{Path: s.path, Reason: err})
}

func (s *Store) StoreLog(e *raft.Log) error { return s.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries in one transaction, which is one fsync for all.
func (s *Store) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	next := s.bounds
	s.mu.RUnlock()
	for _, e := range entries {
		if next.last != 0 && e.Index != next.last+1 || e.Index == 0 {
			return s.fail(fmt.Errorf("append to raft log %s: entry %d does not follow entry %d: %w", s.path, e.Index, next.last, errdefs.ErrInternal))
		}
		if next.first == 0 {
			next.first = e.Index
		}
		next.last = e.Index
	}
	return s.write(next, func(b *bolt.Bucket) error {
		// Keys only ever grow, so a page that splits is never added to again
		// and may as well be left nearly full.
		b.FillPercent = 0.95
		for _, e := range entries {
			if err := b.Put(indexKey(e.Index), encodeEntry(s.key, e)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange removes entries at one end of the log: the oldest when a snapshot
// holds them, the newest when a leader overrules them.
func (s *Store) DeleteRange(low, high uint64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	have := s.bounds
	s.mu.RUnlock()
	low, high = max(low, have.first), min(high, have.last)
	if have.last == 0 || low > high {
		return nil
	}
	next := have
	switch {
	case low == have.first && high == have.last:
		next = bounds{}
	case low == have.first:
		next.first = high + 1
	case high == have.last:
		next.last = low - 1
	default:
		return s.fail(fmt.Errorf("raft log %s: removing entries %d to %d would leave a hole: %w", s.path, low, high, errdefs.ErrInternal))
	}
	return s.write(next, func(b *bolt.Bucket) error {
		for i := low; i <= high; i++ {
			if err := b.Delete(indexKey(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// write changes the entries and their bounds in one transaction. The caller
// holds s.writing.
func (s *Store) write(next bounds, change func(*bolt.Bucket) error) error {
	err := s.update(func(tx *bolt.Tx) error {
		if err := change(tx.Bucket([]byte(logBucket))); err != nil {
			return err
		}
		return s.put(tx.Bucket([]byte(metaBucket)), boundsKey, next.encode())
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.bounds = next
	s.mu.Unlock()
	return nil
}

// put seals a small value.
func (s *Store) put(b *bolt.Bucket, name string, value []byte) error {
	return b.Put([]byte(name), s.key.Seal(valuePlace(name), value))
}

// Set keeps one stable value.
func (s *Store) Set(key, value []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.set(string(key), value, func(*bolt.Tx) error { return nil })
}

// set keeps one stable value, in one transaction with what else is to change.
// The caller holds s.writing.
func (s *Store) set(key string, value []byte, also func(*bolt.Tx) error) error {
	s.mu.RLock()
	next := maps.Clone(s.stable)
	s.mu.RUnlock()
	next[key] = bytes.Clone(value)
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	err = s.update(func(tx *bolt.Tx) error {
		if err := also(tx); err != nil {
			return err
		}
		return s.put(tx.Bucket([]byte(metaBucket)), stableKey, data)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.stable = next
	s.mu.Unlock()
	return nil
}

// AppendInTerm adds one entry and moves to its term, both or neither. The entry
// follows the last one, or any snapshot if the log is empty.
func (s *Store) AppendInTerm(e *raft.Log) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	next := s.bounds
	s.mu.RUnlock()
	if next.last != 0 && e.Index != next.last+1 {
		return s.fail(fmt.Errorf("append to raft log %s: entry %d does not follow entry %d: %w", s.path, e.Index, next.last, errdefs.ErrInternal))
	}
	if next.first == 0 {
		next.first = e.Index
	}
	next.last = e.Index
	err := s.set(termKey, binary.BigEndian.AppendUint64(nil, e.Term), func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte(logBucket)).Put(indexKey(e.Index), encodeEntry(s.key, e)); err != nil {
			return err
		}
		return s.put(tx.Bucket([]byte(metaBucket)), boundsKey, next.encode())
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.bounds = next
	s.mu.Unlock()
	return nil
}

// Get returns a stable value, or nothing if it was never set.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]byte(nil), s.stable[string(key)]...), s.failed
}

// SetUint64 keeps one stable number.
//
// raft panics when a new term cannot be saved. On a store that has already
// failed the term is therefore waved through: nothing else can be saved any
// more, no vote and no entry, so the node can neither elect nor acknowledge
// anything in the term it only thinks it has, while its owner, told by onFail,
// brings it to an orderly end.
func (s *Store) SetUint64(key []byte, value uint64) error {
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if err != nil && string(key) == termKey {
		return nil
	}
	return err
}

// GetUint64 returns a stable number, or 0 if it was never set.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil || len(v) == 0 {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &DamagedError{Path: s.path, Reason: fmt.Errorf("%s: wrong length", key)}
	}
	return binary.BigEndian.Uint64(v), nil
}

// update runs one write transaction. Any failure is the end of the store.
func (s *Store) update(change func(*bolt.Tx) error) error {
	s.mu.RLock()
	failed := s.failed
	s.mu.RUnlock()
	if failed != nil {
		return failed
	}
	if err := guard(func() error { return s.db.Update(change) }); err != nil {
		return s.fail(fmt.Errorf("write raft log %s: %w", s.path, err))
	}
	return nil
}

// fail records the first failure, tells the owner, and returns it.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = err
	}
	err = s.failed
	s.mu.Unlock()
	if first && s.onFail != nil {
		s.onFail(err)
	}
	return err
}

// Close closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	failed := s.failed
	if failed == nil {
		s.failed = fmt.Errorf("raft log %s is closed: %w", s.path, fs.ErrClosed)
	}
	s.mu.Unlock()
	var p *panicError
	if errors.As(failed, &p) {
		// bbolt may have died holding its locks: closing it could wait for
		// ever. The file is what must be let go, with the lock on it.
		return s.file.Close()
	}
	if err := guard(s.db.Close); err != nil {
		return fmt.Errorf("close raft log: %w", err)
	}
	return nil
}

type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("bbolt gave up: %v", e.value) }

// guard turns a panic inside bbolt, and a fault on a mapped page (a disk that
// returns an error, a file cut short underneath us), into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return fn()
}

func keyIndex(key []byte) uint64 { return binary.BigEndian.Uint64(key) }
