package boltlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// This file reads bbolt's file format (stable since 2014) with plain reads and
// checks every offset before it is used. What passes is a tree that bbolt can
// be trusted with.

const (
	pageHeader = 16
	metaSize   = 64
	elemSize   = 16

	flagBranch = 0x01
	flagLeaf   = 0x02
	flagMeta   = 0x04

	elemBucket = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	maxDepth = 32
)

type meta struct {
	pageSize, root, freelist, pages, txid uint64
}

// bucketWalk is called for every key of every top-level bucket, in order.
type bucketWalk func(bucket string, key, value []byte) error

type tree struct {
	r     io.ReaderAt
	meta  meta
	seen  []bool // by page: pages reached so far
	visit bucketWalk
}

// walkFile checks the structure of a bbolt file of the given size, which must
// have the given top-level buckets, and hands out its content.
func walkFile(r io.ReaderAt, size int64, visit bucketWalk, buckets ...string) error {
	m, err := readMetas(r, size)
	if err != nil {
		return err
	}
	if m.pages < 4 || int64(m.pages) > size/int64(m.pageSize) {
		return fmt.Errorf("file is cut short: %d bytes, %d pages in use", size, m.pages)
	}
	t := &tree{r: r, meta: m, seen: make([]bool, m.pages), visit: visit}
	t.seen[0], t.seen[1] = true, true
	found := map[string]bool{}
	err = t.page(m.root, nil, nil, 0, func(key, value []byte, flags uint32) error {
		if flags != elemBucket {
			return fmt.Errorf("%q is not a bucket", key)
		}
		found[string(key)] = true
		return t.bucket(string(key), value)
	})
	for _, name := range buckets {
		if err == nil && !found[name] {
			err = fmt.Errorf("bucket %s: missing", name)
		}
	}
	return err
}

// readMetas returns the newest of the two meta pages and insists that both are
// intact and successive. bbolt is content with either, and would silently go
// back to the state before the last commit, which somebody was promised.
func readMetas(r io.ReaderAt, size int64) (meta, error) {
	first, err := readMeta(r, 0, 0)
	if err != nil {
		return meta{}, err
	}
	second, err := readMeta(r, 1, int64(first.pageSize))
	if err != nil {
		return meta{}, err
	}
	if second.pageSize != first.pageSize {
		return meta{}, fmt.Errorf("meta pages disagree on the page size")
	}
	if second.txid == first.txid+1 {
		return second, nil
	}
	if first.txid == second.txid+1 {
		return first, nil
	}
	return meta{}, fmt.Errorf("meta pages are not successive (%d and %d)", first.txid, second.txid)
}

func readMeta(r io.ReaderAt, id uint64, offset int64) (meta, error) {
	var b [pageHeader + metaSize]byte
	if _, err := r.ReadAt(b[:], offset); err != nil {
		return meta{}, fmt.Errorf("meta page %d: %w", id, err)
	}
	order := binary.NativeEndian
	body := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(body[:56])
	switch {
	case order.Uint64(b[:]) != id || order.Uint16(b[8:]) != flagMeta:
		return meta{}, fmt.Errorf("meta page %d: bad header", id)
	case order.Uint32(body) != boltMagic:
		return meta{}, fmt.Errorf("meta page %d: bad magic", id)
	case order.Uint32(body[4:]) != boltVersion:
		return meta{}, fmt.Errorf("meta page %d: unknown version", id)
	case order.Uint64(body[56:]) != sum.Sum64():
		return meta{}, fmt.Errorf("meta page %d: checksum mismatch", id)
	}
	m := meta{
		pageSize: uint64(order.Uint32(body[8:])),
		root:     order.Uint64(body[16:]),
		freelist: order.Uint64(body[32:]),
		pages:    order.Uint64(body[40:]),
		txid:     order.Uint64(body[48:]),
	}
	if m.pageSize < 1024 || m.pageSize > 1<<16 || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, fmt.Errorf("meta page %d: page size %d", id, m.pageSize)
	}
	if m.freelist != noFreelist && m.txid > 1 {
		return meta{}, fmt.Errorf("meta page %d: unexpected free list", id)
	}
	return m, nil
}

func (t *tree) bucket(name string, value []byte) error {
	if len(value) < 16 {
		return fmt.Errorf("bucket %s: cut short", name)
	}
	leaf := func(key, value []byte, flags uint32) error {
		if flags != 0 {
			return fmt.Errorf("bucket %s: unexpected flags on a key", name)
		}
		return t.visit(name, key, value)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return t.page(root, nil, nil, 0, leaf)
	}
	inline := value[16:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return fmt.Errorf("bucket %s: damaged inline page", name)
	}
	return t.leaves(inline, nil, nil, leaf)
}

type leafFunc func(key, value []byte, flags uint32) error

// page walks one page whose keys must lie in [low, high); nil is no limit.
func (t *tree) page(id uint64, low, high []byte, depth int, leaf leafFunc) error {
	if id < 2 || id >= t.meta.pages || depth > maxDepth {
		return fmt.Errorf("page %d: out of bounds", id)
	}
	head := make([]byte, pageHeader)
	if _, err := t.r.ReadAt(head, int64(id*t.meta.pageSize)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	order := binary.NativeEndian
	overflow := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || id+overflow >= t.meta.pages {
		return fmt.Errorf("page %d: bad header", id)
	}
	for p := id; p <= id+overflow; p++ {
		if t.seen[p] {
			return fmt.Errorf("page %d: used twice", p)
		}
		t.seen[p] = true
	}
	b := make([]byte, (overflow+1)*t.meta.pageSize)
	if _, err := t.r.ReadAt(b, int64(id*t.meta.pageSize)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	var err error
	switch order.Uint16(b[8:]) {
	case flagLeaf:
		err = t.leaves(b, low, high, leaf)
	case flagBranch:
		err = t.branches(b, low, high, depth, leaf)
	default:
		err = fmt.Errorf("bad type")
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (t *tree) leaves(b, low, high []byte, leaf leafFunc) error {
	order := binary.NativeEndian
	var prev []byte
	return elements(b, func(elem []byte, at uint64) error {
		flags, pos := order.Uint32(elem), uint64(order.Uint32(elem[4:]))
		ksize, vsize := uint64(order.Uint32(elem[8:])), uint64(order.Uint32(elem[12:]))
		start := at + pos
		if start+ksize+vsize > uint64(len(b)) || ksize == 0 {
			return fmt.Errorf("key out of bounds")
		}
		key := b[start : start+ksize]
		if err := ordered(prev, key, low, high); err != nil {
			return err
		}
		prev = key
		return leaf(key, b[start+ksize:start+ksize+vsize], flags)
	})
}

func (t *tree) branches(b, low, high []byte, depth int, leaf leafFunc) error {
	order := binary.NativeEndian
	type child struct {
		key []byte
		id  uint64
	}
	var children []child
	err := elements(b, func(elem []byte, at uint64) error {
		start, ksize := at+uint64(order.Uint32(elem)), uint64(order.Uint32(elem[4:]))
		if start+ksize > uint64(len(b)) || ksize == 0 {
			return fmt.Errorf("key out of bounds")
		}
		key := b[start : start+ksize]
		var prev []byte
		if len(children) > 0 {
			prev = children[len(children)-1].key
		}
		if err := ordered(prev, key, low, high); err != nil {
			return err
		}
		children = append(children, child{key, order.Uint64(elem[8:])})
		return nil
	})
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return fmt.Errorf("branch without children")
	}
	for i, c := range children {
		next := high
		if i+1 < len(children) {
			next = children[i+1].key
		}
		if err := t.page(c.id, c.key, next, depth+1, leaf); err != nil {
			return err
		}
	}
	return nil
}

// elements calls fn with every element header of a page and its offset.
func elements(b []byte, fn func(elem []byte, at uint64) error) error {
	count := uint64(binary.NativeEndian.Uint16(b[10:]))
	if pageHeader+count*elemSize > uint64(len(b)) {
		return fmt.Errorf("too many keys")
	}
	for i := range count {
		at := pageHeader + i*elemSize
		if err := fn(b[at:at+elemSize], at); err != nil {
			return err
		}
	}
	return nil
}

func ordered(prev, key, low, high []byte) error {
	if (prev != nil && bytes.Compare(prev, key) >= 0) ||
		(low != nil && bytes.Compare(key, low) < 0) ||
		(high != nil && bytes.Compare(key, high) >= 0) {
		return fmt.Errorf("keys out of order")
	}
	return nil
}
