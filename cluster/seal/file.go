package seal

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// formatVersion is raised when a file that this release writes could not be
// read by the one before.
const formatVersion = 1

// Lock says how data keys lie on the managers' disks.
type Lock struct {
	// Epoch counts the changes of the lock, so that a manager which replays an
	// old one does not go back to it.
	Epoch uint64
	// Key seals the data key; nil leaves it in the clear.
	Key *UnlockKey
}

// File is the file that holds a manager's data key.
type File struct {
	path   string
	owner  Owner
	epoch  uint64
	keyID  string
	locked bool
	data   []byte // the data key, sealed if locked
}

// content is what the file holds.
type content struct {
	Format    int
	ClusterID string
	NodeID    string
	Epoch     uint64
	KeyID     string
	Locked    bool
	Key       []byte
}

// guarded is content with its checksum: a file that was damaged must not look
// like one that somebody tries to open with a wrong key.
type guarded struct {
	Content json.RawMessage
	Sum     string
}

// Create writes a data key that is new, and thereby begins to be used.
func Create(path string, k *Key, lock Lock) (*File, error) {
	f := &File{path: path, owner: k.owner}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory for the data key: %w", err)
	}
	return f, f.Rewrap(k, lock)
}

// Load reads the file of a node. One that is missing is errdefs.ErrNotFound.
func Load(path string, owner Owner) (*File, error) {
	if err := discard(path + suffixNew); err != nil {
		return nil, fmt.Errorf("remove unfinished data key: %w", err)
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data key %s does not exist: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	c, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("data key %s is damaged (%w); move the data directory away and join again, or restore a backup: %w", path, err, errdefs.ErrDataLoss)
	}
	switch {
	case c.Format != formatVersion:
		return nil, fmt.Errorf("data key %s has format %d, this release reads format %d; run the release that wrote it: %w", path, c.Format, formatVersion, errdefs.ErrFailedPrecondition)
	case c.ClusterID != owner.ClusterID || c.NodeID != owner.NodeID:
		return nil, fmt.Errorf("data key %s is of node %s in cluster %s, this is node %s in cluster %s; move the data directory away and join again, or restore all of it from one backup: %w",
			path, c.NodeID, c.ClusterID, owner.NodeID, owner.ClusterID, errdefs.ErrFailedPrecondition)
	}
	return &File{path: path, owner: owner, epoch: c.Epoch, keyID: c.KeyID, locked: c.Locked, data: c.Key}, nil
}

func decode(raw []byte) (content, error) {
	var (
		g guarded
		c content
	)
	if err := json.Unmarshal(raw, &g); err != nil {
		return c, err
	}
	if g.Sum != checksum(g.Content) {
		return c, errors.New("checksum mismatch")
	}
	if err := json.Unmarshal(g.Content, &c); err != nil {
		return c, err
	}
	size := KeySize
	if c.Locked {
		size += Overhead
	}
	if c.Format == formatVersion && len(c.Key) != size {
		return c, errors.New("the key has a wrong length")
	}
	return c, nil
}

func checksum(b []byte) string {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// Locked tells whether the data key can only be had with the unlock key.
func (f *File) Locked() bool { return f.locked }

// Epoch is that of the lock which is on disk.
func (f *File) Epoch() uint64 { return f.epoch }

// errWrongKey is what Open says of a key that does not fit.
var errWrongKey = errdefs.ErrUnauthenticated.WithMessage("invalid key provided")

// Open gives the data key. unlock is needed if it is locked, and is not looked
// at otherwise. A wrong one is errdefs.ErrUnauthenticated.
func (f *File) Open(unlock *UnlockKey) (*Key, error) {
	var raw [KeySize]byte
	if !f.locked {
		copy(raw[:], f.data)
	} else {
		if unlock == nil {
			return nil, errWrongKey
		}
		plain, err := keyOf(*unlock, f.owner).Open(f.place(), f.data)
		if err != nil || len(plain) != KeySize {
			return nil, errWrongKey
		}
		copy(raw[:], plain)
	}
	k := keyOf(raw, f.owner)
	if k.id != f.keyID {
		return nil, fmt.Errorf("data key %s is damaged (it is another key); move the data directory away and join again, or restore a backup: %w", f.path, errdefs.ErrDataLoss)
	}
	return k, nil
}

func (f *File) place() Place { return Place{Kind: kindDataKey, Name: f.keyID, Index: f.epoch} }

// Rewrap puts the data key under another lock. After a crash at any moment the
// file holds the old one or the new one.
func (f *File) Rewrap(k *Key, lock Lock) error {
	next := File{path: f.path, owner: k.owner, epoch: lock.Epoch, keyID: k.id, locked: lock.Key != nil}
	next.data = k.raw[:]
	if lock.Key != nil {
		next.data = keyOf(*lock.Key, k.owner).Seal(next.place(), k.raw[:])
	}
	body, err := json.Marshal(content{
		Format: formatVersion, ClusterID: k.owner.ClusterID, NodeID: k.owner.NodeID,
		Epoch: next.epoch, KeyID: next.keyID, Locked: next.locked, Key: next.data,
	})
	if err != nil {
		return fmt.Errorf("encode data key: %w", err)
	}
	raw, err := json.Marshal(guarded{Content: body, Sum: checksum(body)})
	if err != nil {
		return fmt.Errorf("encode data key: %w", err)
	}
	if err := replace(f.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write data key: %w", err)
	}
	*f = next
	return nil
}

// suffixNew is of a file that is being written. It has one name for all
// attempts: what a crash leaves behind may hold a key in the clear, and has to
// be found again.
const suffixNew = ".new"

func discard(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	wipe(f)
	return errors.Join(f.Close(), os.Remove(path))
}

// replace puts a new file in place of the old one and then wipes what the old
// one held: it may be the key in the clear. Where the disk or its filesystem
// does not write in place, that does not help.
func replace(path string, data []byte) (err error) {
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old != nil {
		defer func() { err = errors.Join(err, old.Close()) }()
	}
	tmp, err := os.OpenFile(path+suffixNew, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if old != nil {
		wipe(old)
	}
	return nil
}

// wipe overwrites a file that has lost its name. It is a courtesy: nothing
// depends on it, so its errors do not matter.
func wipe(f *os.File) {
	info, err := f.Stat()
	if err != nil {
		return
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err == nil {
		_ = f.Sync()
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
