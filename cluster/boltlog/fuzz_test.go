package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"
)

// FuzzOpen writes into a healthy file, and cuts it: it is refused by name, or is
// complete, right, and able to take more. bbolt's meta pages get the checksum of
// what they say then, so they may also say to go back to an earlier state: no
// seal shows that.
func FuzzOpen(f *testing.F) {
	dir := fastDir(f)
	path := filepath.Join(dir, "raft.db")
	s := newStore(f, path)
	type state struct {
		log    []*raft.Log
		values map[string]string
	}
	var states []state
	note := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
		log, values, err := content(s)
		if err != nil {
			f.Fatal(err)
		}
		states = append(states, state{log, values})
	}
	note(nil)
	note(s.StoreLogs(entries(rand.New(rand.NewPCG(1, 1)), 1, 40, 600)))
	note(s.SetUint64([]byte("CurrentTerm"), 9))
	mustClose(f, s)
	healthy, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	pageSize := os.Getpagesize()
	f.Add(uint32(0), []byte{}, uint32(0))
	for page := range len(healthy) / pageSize {
		f.Add(uint32(page*pageSize+8), []byte{flagLeaf, 0, 1, 0}, uint32(0))         // type and number of keys
		f.Add(uint32(page*pageSize+12), []byte{1}, uint32(0))                        // overflow
		f.Add(uint32(page*pageSize+pageHeader), []byte{0, 0, 0, 0, 255}, uint32(16)) // the first key
	}
	for meta := range 2 {
		for field := range 7 {
			f.Add(uint32(meta*pageSize+pageHeader+8*field), []byte{3}, uint32(0))
		}
	}
	victim := filepath.Join(dir, "victim.db")
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		b := bytes.Clone(healthy)
		copy(b[min(int(at), len(b)):], patch)
		for meta := range 2 {
			body := b[meta*pageSize+pageHeader:]
			sum := fnv.New64a()
			sum.Write(body[:56])
			binary.NativeEndian.PutUint64(body[56:], sum.Sum64())
		}
		b = b[:len(b)-min(int(cut), len(b))]
		if err := os.WriteFile(victim, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(victim, who, nil)
		if err != nil {
			var d *DamagedError
			if !errors.As(err, &d) && !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		last, err := s.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		term, err := s.GetUint64([]byte("CurrentTerm"))
		if err != nil {
			t.Fatal(err)
		}
		want := states[0]
		if term > 0 {
			want = states[2]
		} else if last > 0 {
			want = states[1]
		}
		if err := sameAndWritable(s, victim, want.log, want.values); err != nil {
			t.Fatalf("opened, but %v", err)
		}
	})
}
