package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"

	"shoal/cluster/seal"
	"shoal/internal/atomicfile"
)

// snapshotStore keeps raft's snapshots, one file each:
//
//	magic 8 | length of the description 4 | description, JSON | its seal 40 | state, in sealed pieces
//
// The description is in the clear but vouched for: its seal holds nothing and
// belongs to this very text. The pieces belong to this file by the random mark
// in the description, each to its place in it; the last one is known as such.
//
// raft's own FileSnapshotStore guards only the state. A damaged description
// makes it pass the snapshot over without a word, or believe another index.
type snapshotStore struct {
	dir string
	key *seal.Key
	// past tells whether a snapshot is one that a leader sends, and raft has
	// applied what follows it; nil while raft does not run.
	past func(index uint64) bool

	mu     sync.Mutex // guards what follows, and the removal of old snapshots
	retain int
}

const (
	snapshotMagic  = "SHOALSN2"
	snapshotSuffix = ".snap"
	snapshotTemp   = ".tmp"

	// maxDescription bounds what a damaged length can make us read. A
	// description of a hundred managers has about 10 KB.
	maxDescription = 1 << 20

	// pieceSize is how much of the state is sealed at once.
	pieceSize   = 64 << 10
	sealedPiece = pieceSize + seal.Overhead
)

// description is the part of a snapshot that is about it.
type description struct {
	ClusterID string
	Mark      string            // tells this file from every other
	Meta      raft.SnapshotMeta // ID and Size are not in it: the file has them
}

func snapshotID(term, index uint64) string { return fmt.Sprintf("%020d-%020d", term, index) }

func headPlace(text []byte) seal.Place {
	sum := sha256.Sum256(text)
	return seal.Place{Kind: seal.KindSnapshotHead, Name: string(sum[:])}
}

func piecePlace(mark string, n uint64, last bool) seal.Place {
	if last {
		mark += " end"
	}
	return seal.Place{Kind: seal.KindSnapshot, Name: mark, Index: n}
}

// open makes the directory and removes what a crash left half-written.
func (s *snapshotStore) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make snapshot directory: %w", err)
	}
	stale, err := filepath.Glob(filepath.Join(s.dir, "*"+snapshotTemp))
	if err != nil {
		return err
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	return nil
}

// ids lists the finished snapshots, newest first. Term and index come first in
// the name, in fixed width, so that names sort by age.
func (s *snapshotStore) ids() ([]string, error) {
	files, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, f := range files {
		if id, ok := strings.CutSuffix(f.Name(), snapshotSuffix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}

func (s *snapshotStore) path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

// List shows raft the newest snapshot alone. Given an older one it would fall
// back to it when the newest is damaged; but the log in between is gone, and
// raft panics over the gap. The older ones are kept for people.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock() // or a newer one might have it removed before it is read
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	f, meta, _, err := s.describe(ids[0])
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, f.Close()
}

// Open is raft's. The whole file is checked before a byte of it is handed out.
func (s *snapshotStore) Open(id string) (_ *raft.SnapshotMeta, _ io.ReadCloser, err error) {
	f, meta, r, err := s.describe(id)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	check := *r
	if _, err := io.Copy(io.Discard, &check); err != nil {
		if errors.Is(err, seal.ErrSealed) {
			return nil, nil, s.damaged(id, err.Error())
		}
		return nil, nil, fmt.Errorf("read snapshot: %w", err)
	}
	type reader struct {
		io.Reader
		io.Closer
	}
	return meta, reader{r, f}, nil
}

// describe reads the head of a snapshot and returns how to read its state.
func (s *snapshotStore) describe(id string) (_ *os.File, _ *raft.SnapshotMeta, _ *pieceReader, err error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	var head [len(snapshotMagic) + 4]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, nil, nil, s.damaged(id, "not a snapshot")
	}
	length := int64(binary.BigEndian.Uint32(head[len(snapshotMagic):]))
	start := int64(len(head)) + length + seal.Overhead
	sealed := info.Size() - start
	if length > maxDescription || sealed < seal.Overhead {
		return nil, nil, nil, s.damaged(id, "cut short")
	}
	text := make([]byte, length+seal.Overhead)
	if _, err := io.ReadFull(f, text); err != nil {
		return nil, nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	text, vouched := text[:length], text[length:]
	var d description
	if err := json.Unmarshal(text, &d); err == nil && d.ClusterID != s.key.Owner().ClusterID {
		return nil, nil, nil, fmt.Errorf("snapshot %s is of cluster %s, this is cluster %s; remove it: %w", s.path(id), d.ClusterID, s.key.Owner().ClusterID, errdefs.ErrFailedPrecondition)
	}
	if _, err := s.key.Open(headPlace(text), vouched); err != nil {
		return nil, nil, nil, s.damaged(id, err.Error())
	}
	if id != snapshotID(d.Meta.Term, d.Meta.Index) {
		return nil, nil, nil, s.damaged(id, "it was taken at another point")
	}
	pieces := (sealed + sealedPiece - 1) / sealedPiece
	if sealed-(pieces-1)*sealedPiece < seal.Overhead {
		return nil, nil, nil, s.damaged(id, "cut short")
	}
	d.Meta.ID = id
	d.Meta.Size = sealed - pieces*seal.Overhead
	return f, &d.Meta, &pieceReader{key: s.key, mark: d.Mark, file: io.NewSectionReader(f, start, sealed), pieces: uint64(pieces)}, nil
}

// pieceReader reads the state of a snapshot. A copy of an unused one reads it
// again.
type pieceReader struct {
	key    *seal.Key
	mark   string
	file   *io.SectionReader
	pieces uint64
	next   uint64
	plain  []byte
}

func (r *pieceReader) Read(b []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.next == r.pieces {
			return 0, io.EOF
		}
		at := int64(r.next) * sealedPiece
		sealed := make([]byte, min(sealedPiece, r.file.Size()-at))
		if _, err := r.file.ReadAt(sealed, at); err != nil {
			return 0, err
		}
		plain, err := r.key.Open(piecePlace(r.mark, r.next, r.next+1 == r.pieces), sealed)
		if err != nil {
			return 0, err
		}
		r.plain = plain
		r.next++
	}
	n := copy(b, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

func (s *snapshotStore) damaged(id, why string) error {
	return fmt.Errorf("snapshot %s is damaged (%s); move the data directory away and join again, or restore a backup: %w", s.path(id), why, errdefs.ErrDataLoss)
}

// newest verifies the newest snapshot and returns its index, 0 if there is none.
func (s *snapshotStore) newest() (uint64, error) {
	ids, err := s.ids()
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	meta, r, err := s.Open(ids[0])
	if err != nil {
		return 0, err
	}
	return meta.Index, r.Close()
}

// Create is raft's: the beginning of a snapshot.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (_ raft.SnapshotSink, err error) {
	// At most one of a kind is being written: raft takes them one by one, and
	// one that is installed replaces an equal one that we took.
	if err := s.overtaken(index); err != nil {
		return nil, err
	}
	id := snapshotID(term, index)
	mark := rand.Text()
	text, err := json.Marshal(description{
		ClusterID: s.key.Owner().ClusterID,
		Mark:      mark,
		Meta: raft.SnapshotMeta{
			Version: version, Index: index, Term: term,
			Configuration: configuration, ConfigurationIndex: configurationIndex,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("describe snapshot: %w", err)
	}
	f, err := os.CreateTemp(s.dir, id+".*"+snapshotTemp) // 0600
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	sink := &snapshotSink{store: s, id: id, index: index, mark: mark, file: f, plain: make([]byte, 0, pieceSize)}
	head := binary.BigEndian.AppendUint32([]byte(snapshotMagic), uint32(len(text)))
	head = append(append(head, text...), s.key.Seal(headPlace(text), nil)...)
	if _, err := f.Write(head); err != nil {
		return nil, errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink, nil
}

// overtaken refuses a snapshot that was long on its way. raft would go back to it
// and apply again what follows; entries of which a newer snapshot, finished here or
// about to be, has no need any more. It panics when it does not find one.
func (s *snapshotStore) overtaken(index uint64) error {
	if s.past != nil && s.past(index) {
		return fmt.Errorf("snapshot at entry %d comes too late: what follows it is applied already", index)
	}
	found, err := s.List()
	if err != nil || len(found) == 0 || found[0].Index <= index {
		return nil // a damaged one is best replaced
	}
	return fmt.Errorf("snapshot at entry %d comes too late: there is one at entry %d", index, found[0].Index)
}

type snapshotSink struct {
	store  *snapshotStore
	id     string
	index  uint64
	mark   string
	file   *os.File
	plain  []byte // of the next piece
	pieces uint64
	failed error
	done   bool
}

func (k *snapshotSink) ID() string { return k.id }

// Write keeps back a full piece until there is more: only then it is known not
// to be the last.
func (k *snapshotSink) Write(b []byte) (int, error) {
	if k.failed != nil {
		return 0, k.failed
	}
	n := 0
	for n < len(b) {
		if len(k.plain) == pieceSize {
			if err := k.flush(false); err != nil {
				return n, err
			}
		}
		m := min(len(b)-n, pieceSize-len(k.plain))
		k.plain = append(k.plain, b[n:n+m]...)
		n += m
	}
	return n, nil
}

func (k *snapshotSink) flush(last bool) error {
	if _, err := k.file.Write(k.store.key.Seal(piecePlace(k.mark, k.pieces, last), k.plain)); err != nil {
		k.failed = fmt.Errorf("write snapshot: %w", err)
		return k.failed
	}
	k.plain = k.plain[:0]
	k.pieces++
	return nil
}

// Close finishes the snapshot: it exists from here on, or not at all. One that
// this member takes may have been overtaken by a leader's meanwhile; raft would
// believe that its log ends where the older one does, and vote by that.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	if k.failed != nil {
		return errors.Join(k.failed, k.Cancel())
	}
	if err := k.store.overtaken(k.index); err != nil {
		return errors.Join(err, k.Cancel())
	}
	if err := k.flush(true); err != nil {
		return errors.Join(err, k.Cancel())
	}
	if err := k.file.Sync(); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), k.Cancel())
	}
	k.done = true
	if err := k.file.Close(); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), os.Remove(k.file.Name()))
	}
	if err := os.Rename(k.file.Name(), k.store.path(k.id)); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	if err := atomicfile.SyncDir(k.store.dir); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	return k.store.reap()
}

// Cancel throws the snapshot away.
func (k *snapshotSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.file.Close(), os.Remove(k.file.Name()))
}

// keep changes how many snapshots stay.
func (s *snapshotStore) keep(n int) error {
	s.mu.Lock()
	s.retain = n
	s.mu.Unlock()
	return s.reap()
}

// reap removes all but the newest snapshots.
func (s *snapshotStore) reap() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for _, id := range ids[min(len(ids), s.retain):] {
		if err := os.Remove(s.path(id)); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return nil
}
