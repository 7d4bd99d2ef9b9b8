package boltlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"shoal/cluster/seal"
	"shoal/internal/atomicfile"
)

const (
	logBucket  = "log"
	metaBucket = "meta"

	stampKey  = "stamp"
	stableKey = "stable"
	boundsKey = "bounds"
)

// DamagedError says that a file cannot be trusted, and what to do.
type DamagedError struct {
	Path   string
	Reason error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("raft log %s is damaged (%v); move the data directory away and join again, or restore a backup", e.Path, e.Reason)
}

func (e *DamagedError) Unwrap() []error { return []error{e.Reason, errdefs.ErrDataLoss} }

// Create makes a new log file of the node that has this data key. fill, if not nil, writes its first content. The
// file appears under its name when all of that is on disk: a log that exists
// has been made to the end, and an empty or missing one is a fault and never
// taken for a new node's.
func Create(path string, key *seal.Key, fill func(*Store) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create raft log %s: %w", path, errdefs.ErrAlreadyExists)
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create raft log: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("create raft log %s: %w", path, err)
			_ = os.Remove(tmp) // left over at worst, and removed by the next attempt
		}
	}()

	s := &Store{path: tmp, key: key, stable: stable{}}
	if err := s.openBolt(func(*os.File) error { return nil }); err != nil {
		return err
	}
	mark, err := json.Marshal(stampOf(key))
	if err == nil {
		err = s.update(func(tx *bolt.Tx) error {
			if _, err := tx.CreateBucket([]byte(logBucket)); err != nil {
				return err
			}
			b, err := tx.CreateBucket([]byte(metaBucket))
			if err != nil {
				return err
			}
			if err := b.Put([]byte(stampKey), guardStamp(mark)); err != nil {
				return err
			}
			if err := s.put(b, stableKey, []byte("{}")); err != nil {
				return err
			}
			return s.put(b, boundsKey, bounds{}.encode())
		})
	}
	if err == nil && fill != nil {
		err = fill(s)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// Open opens the log of the node that has this data key. The file is read and checked as a whole
// before bbolt sees it; onFail is told once, should a write fail later.
func Open(path string, key *seal.Key, onFail func(error)) (*Store, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("raft log %s does not exist: %w", path, errdefs.ErrNotFound)
	}
	s := &Store{path: path, key: key, onFail: onFail}
	err := s.openBolt(func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		c, err := inspect(f, info.Size(), path, key)
		if err != nil {
			return err
		}
		s.bounds, s.stable = c.bounds, c.stable
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (have stamp) check(path string, key *seal.Key) error {
	want := stampOf(key)
	switch {
	case have.Format != want.Format:
		return fmt.Errorf("raft log %s has format %d, this release reads format %d; run the release that wrote it: %w",
			path, have.Format, want.Format, errdefs.ErrFailedPrecondition)
	case have.ClusterID != want.ClusterID || have.NodeID != want.NodeID:
		return fmt.Errorf("raft log %s is of node %s in cluster %s, this is node %s in cluster %s; move the data directory away, or give each daemon its own --data-dir: %w",
			path, have.NodeID, have.ClusterID, want.NodeID, want.ClusterID, errdefs.ErrFailedPrecondition)
	case have.KeyID != want.KeyID:
		return fmt.Errorf("raft log %s is sealed with data key %s, the one beside it is %s; restore the data directory from one backup, or move it away and join again: %w",
			path, have.KeyID, want.KeyID, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// openBolt opens the file with bbolt. check runs on the very file that bbolt is
// about to use, under bbolt's own lock and before bbolt reads a byte of it.
func (s *Store) openBolt(check func(*os.File) error) error {
	err := guard(func() error {
		db, err := bolt.Open(s.path, 0o600, &bolt.Options{
			// The free list is found by a walk at open instead of being
			// written with every commit: one page less to write, and one
			// page less that can be wrong.
			NoFreelistSync: true,
			FreelistType:   bolt.FreelistMapType,
			NoStatistics:   true,
			Timeout:        1, // do not wait: the lock below has the answer
			OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(path, flag, mode)
				if err != nil {
					return nil, err
				}
				s.file = f
				free, err := lock(f)
				if err != nil {
					return nil, err
				}
				if !free {
					return nil, fmt.Errorf("raft log %s is in use by another process: %w", path, errdefs.ErrFailedPrecondition)
				}
				if err := check(f); err != nil {
					return nil, err
				}
				return f, nil
			},
		})
		s.db = db
		return err
	})
	if err == nil {
		return nil
	}
	if s.file != nil {
		// bbolt closes it only on its own errors, not on a panic or on ours.
		if cerr := s.file.Close(); cerr != nil && !errors.Is(cerr, fs.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	var p *panicError
	if errors.As(err, &p) {
		return &DamagedError{Path: s.path, Reason: err}
	}
	return err
}

// contents is what a whole and healthy file holds, the entries aside.
type contents struct {
	stable stable
	bounds bounds
}

// inspect reads all of a file and vouches for every entry in it. It goes twice:
// what is sealed can be judged once it is known that this is its key.
func inspect(r io.ReaderAt, size int64, path string, key *seal.Key) (contents, error) {
	mark, err := findStamp(r, size)
	if err != nil {
		return contents{}, &DamagedError{Path: path, Reason: err}
	}
	if err := mark.check(path, key); err != nil {
		return contents{}, err
	}
	c, err := unsealAll(r, size, key)
	if err != nil {
		return contents{}, &DamagedError{Path: path, Reason: err}
	}
	return c, nil
}

func findStamp(r io.ReaderAt, size int64) (mark stamp, err error) {
	found := false
	err = walkFile(r, size, func(bucket string, key, value []byte) error {
		if bucket != metaBucket || string(key) != stampKey {
			return nil
		}
		found = true
		mark, err = readStamp(value)
		return err
	}, logBucket, metaBucket)
	if err == nil && !found {
		err = fmt.Errorf("%s: missing", stampKey)
	}
	return mark, err
}

func unsealAll(r io.ReaderAt, size int64, key *seal.Key) (contents, error) {
	var (
		c     contents
		small = map[string][]byte{}
		seen  bounds
	)
	err := walkFile(r, size, func(bucket string, name, value []byte) error {
		switch bucket {
		case metaBucket:
			if string(name) == stampKey {
				return nil
			}
			v, err := key.Open(valuePlace(string(name)), value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			small[string(name)] = v
			return nil
		case logBucket:
			if len(name) != 8 {
				return fmt.Errorf("entry with a malformed index")
			}
			index := keyIndex(name)
			if seen.last != 0 && index != seen.last+1 {
				return fmt.Errorf("entry %d: missing", seen.last+1)
			}
			if seen.first == 0 {
				seen.first = index
			}
			seen.last = index
			return decodeEntry(key, index, value, new(raft.Log))
		}
		return fmt.Errorf("unknown bucket %q", bucket)
	}, logBucket, metaBucket)
	if err != nil {
		return contents{}, err
	}
	for _, name := range []string{stableKey, boundsKey} {
		if _, ok := small[name]; !ok {
			return contents{}, fmt.Errorf("%s: missing", name)
		}
	}
	if err := json.Unmarshal(small[stableKey], &c.stable); err != nil {
		return contents{}, fmt.Errorf("%s: %w", stableKey, err)
	}
	if c.bounds, err = decodeBounds(small[boundsKey]); err != nil {
		return contents{}, err
	}
	if c.bounds != seen {
		return contents{}, fmt.Errorf("entries %d to %d found, %d to %d expected", seen.first, seen.last, c.bounds.first, c.bounds.last)
	}
	return c, nil
}
