package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"shoal/internal/api"
)

// A snapshot is a stream of JSON values: a header, every object, and an end
// that counts them, so that one cut short is noticed. Objects come one by one:
// no size limit follows from the size of the cluster.

// snapshotFormat changes when older versions could not read a snapshot.
const snapshotFormat = 1

type snapshotHeader struct {
	Format int
	Index  uint64
}

type snapshotLine struct {
	Kind   api.Kind        `json:",omitempty"`
	Object json.RawMessage `json:",omitempty"`
	End    bool            `json:",omitempty"`
	Count  int             `json:",omitempty"`
}

// Snapshot returns the state as of now, to be written later and concurrently
// with further changes.
func (s *Store) Snapshot() (io.WriterTo, error) { return s.View(), nil }

// WriteTo writes the view as a snapshot.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	c := &counter{w: w}
	b := bufio.NewWriter(c)
	enc := json.NewEncoder(b)
	if err := enc.Encode(snapshotHeader{Format: snapshotFormat, Index: v.Index}); err != nil {
		return c.n, fmt.Errorf("write snapshot: %w", err)
	}
	count := 0
	for _, t := range v.tables() {
		err := t.each(func(o api.Object) error {
			raw, err := json.Marshal(o)
			if err != nil {
				return err
			}
			count++
			return enc.Encode(snapshotLine{Kind: o.Kind(), Object: raw})
		})
		if err != nil {
			return c.n, fmt.Errorf("write snapshot: %w", err)
		}
	}
	if err := enc.Encode(snapshotLine{End: true, Count: count}); err != nil {
		return c.n, fmt.Errorf("write snapshot: %w", err)
	}
	if err := b.Flush(); err != nil {
		return c.n, fmt.Errorf("write snapshot: %w", err)
	}
	return c.n, nil
}

// Restore replaces the whole state by a snapshot. If that can not be read
// completely, the state stays as it was.
func (s *Store) Restore(r io.Reader) error {
	v, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = v
	s.view.Store(nil)
	s.notifyAll()
	return nil
}

func readSnapshot(r io.Reader) (*View, error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	var h snapshotHeader
	if err := dec.Decode(&h); err != nil {
		return nil, err
	}
	if h.Format != snapshotFormat {
		return nil, fmt.Errorf("format %d, but this version of shoal reads only %d", h.Format, snapshotFormat)
	}
	v := newView()
	v.Index = h.Index
	for count := 0; ; count++ {
		var line snapshotLine
		if err := dec.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if line.End {
			if line.Count != count {
				return nil, fmt.Errorf("%d objects instead of %d", count, line.Count)
			}
			return v, nil
		}
		t, err := v.table(line.Kind)
		if err != nil {
			return nil, err
		}
		o, err := t.decode(line.Object)
		if err != nil {
			return nil, err
		}
		if err := t.putAny(o); err != nil {
			return nil, err
		}
	}
}

// counter counts what passes, as io.WriterTo wants it told.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
