package cluster

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/containerd/errdefs"
)

// FuzzSnapshot writes into a snapshot's file, and cuts it: it is refused, or
// holds what it held.
func FuzzSnapshot(f *testing.F) {
	s := &snapshotStore{dir: f.TempDir(), key: testKey("n1"), retain: 1}
	state := bytes.Repeat([]byte("0123456789abcdef"), pieceSize/16+1)
	k, err := s.Create(1, 5, 1, (&Raft{nodeID: "n1"}).alone(), 1, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := k.Write(state); err != nil {
		f.Fatal(err)
	}
	if err := k.Close(); err != nil {
		f.Fatal(err)
	}
	id := k.ID()
	healthy, err := os.ReadFile(s.path(id))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(8), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0)) // the description's length
	f.Add(uint32(8), []byte{0, 0, 0, 0}, uint32(0))
	f.Add(uint32(12), []byte(`{"ClusterID":"c2"`), uint32(0))
	f.Add(uint32(20), []byte{}, uint32(len(healthy)-20))
	f.Add(uint32(0), []byte{}, uint32(sealedPiece))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		b := bytes.Clone(healthy)
		copy(b[min(int(at), len(b)):], patch)
		b = b[:len(b)-min(int(cut), len(b))]
		if err := os.WriteFile(s.path(id), b, 0o600); err != nil {
			t.Fatal(err)
		}
		var got []byte
		meta, r, err := s.Open(id)
		if err == nil {
			got, err = io.ReadAll(r)
			if cerr := r.Close(); cerr != nil {
				t.Fatal(cerr)
			}
		}
		switch {
		case err == nil && (!bytes.Equal(b, healthy) || !bytes.Equal(got, state) || meta.Index != 5):
			t.Fatalf("snapshot %+v with %d bytes was taken", meta, len(got))
		case err != nil && bytes.Equal(b, healthy):
			t.Fatal(err)
		case err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err):
			t.Fatalf("refused with %v", err)
		}
	})
}
