package control

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func secret(name string, data []byte) swarm.SecretSpec {
	return swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: data}
}

func config(name string, data []byte) swarm.ConfigSpec {
	return swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: data}
}

// TestSizeOfFiles: Swarm's limits hold, although none of the largest files would
// fit into one raft entry.
func TestSizeOfFiles(t *testing.T) {
	w := newWorld(t)
	large := bytes.Repeat([]byte("0123456789"), 100<<10)
	for size, good := range map[int]bool{0: false, 1: true, 200 << 10: true, 500<<10 - 1: true, 500 << 10: false} {
		id, err := w.CreateSecret(t.Context(), secret("s", large[:size]))
		if (err == nil) != good {
			t.Fatalf("secret of %d bytes: %v", size, err)
		}
		if !good {
			continue
		}
		f, _ := w.View().Secrets.Get(id)
		if got := fileData(w.View(), f); !bytes.Equal(got, large[:size]) {
			t.Fatalf("secret of %d bytes came back as %d", size, len(got))
		}
		if err := w.RemoveFile(t.Context(), api.KindSecret, "s"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.CreateConfig(t.Context(), config("c", large[:1000<<10-1])); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateConfig(t.Context(), config("d", large[:1000<<10])); err == nil {
		t.Fatal("a config that is too large was taken")
	}
	got, err := w.Config("c")
	if err != nil || !bytes.Equal(got.Spec.Data, large[:1000<<10-1]) {
		t.Fatalf("config: %d bytes, %v", len(got.Spec.Data), err)
	}
	if err := w.RemoveFile(t.Context(), api.KindConfig, "c"); err != nil {
		t.Fatal(err)
	}
	if n := w.View().Pieces.Len(); n != 0 {
		t.Fatalf("%d pieces are left of files that are gone", n)
	}
}

// TestHalfWrittenFile: data whose file does not come to be goes away, at once or
// when it is found.
func TestHalfWrittenFile(t *testing.T) {
	w := newWorld(t)
	f := newFile(api.KindConfig, config("c", nil))
	taken := errors.New("taken")
	if err := w.putFile(t.Context(), f, make([]byte, 3*api.PieceSize), func(*store.Tx) error { return taken }); !errors.Is(err, taken) {
		t.Fatal(err)
	}
	if n := w.View().Pieces.Len(); n != 0 {
		t.Fatalf("%d pieces are left", n)
	}
	w.put(&api.Piece{Meta: api.Meta{ID: "orphan"}, FileID: "nobody", Data: []byte("x")})
	if wait, err := w.tendFiles(t.Context()); err != nil || wait <= 0 || w.View().Pieces.Len() != 1 {
		t.Fatalf("a piece that is young may still get its file: wait %s, %v", wait, err)
	}
	w.now = func() time.Time { return time.Now().Add(orphanAge + time.Second) }
	if wait, err := w.tendFiles(t.Context()); err != nil || wait != 0 || w.View().Pieces.Len() != 0 {
		t.Fatalf("an orphan stayed: wait %s, %v", wait, err)
	}
}

func TestFileNames(t *testing.T) {
	w := newWorld(t)
	for name, good := range map[string]bool{
		"a": true, "A-b_c.d": true, strings.Repeat("x", 64): true, "": false, "-a": false, "a-": false, "a b": false,
		"a@1": false, strings.Repeat("x", 65): false, "ä": false,
	} {
		if _, err := w.CreateConfig(t.Context(), config(name, []byte("x"))); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestFileLabels(t *testing.T) {
	w := newWorld(t)
	if _, err := w.CreateSecret(t.Context(), secret("s", []byte("x"))); err != nil {
		t.Fatal(err)
	}
	update := func(change func(s *swarm.ConfigSpec)) error {
		s, err := w.Secret("s")
		if err != nil {
			t.Fatal(err)
		}
		spec := secretSpec(s.Spec)
		change(&spec)
		return w.UpdateFile(t.Context(), api.KindSecret, s.ID, s.Version.Index, spec)
	}
	if err := update(func(s *swarm.ConfigSpec) { s.Name = "other" }); err == nil || err.Error() != "only updates to Labels are allowed" {
		t.Errorf("another name: %v", err)
	}
	if err := update(func(s *swarm.ConfigSpec) { s.Data, s.Labels = []byte("x"), map[string]string{"a": "b"} }); err != nil {
		t.Fatal(err)
	}
	found, err := w.Secrets(filters.NewArgs(filters.Arg("label", "a=b")), false)
	if err != nil || len(found) != 1 || found[0].Spec.Data != nil || found[0].Shoal != nil {
		t.Fatalf("%+v, %v", found, err)
	}
	for i, step := range []struct {
		change    func(*swarm.ConfigSpec)
		data      string
		templated bool
	}{
		{func(s *swarm.ConfigSpec) { s.Templating = &swarm.Driver{Name: "golang"} }, "x", true},
		{func(s *swarm.ConfigSpec) { s.Data = []byte("y") }, "y", true},
		{func(s *swarm.ConfigSpec) { s.Data, s.Templating = []byte("z"), nil }, "z", false},
	} {
		if err := update(step.change); err != nil {
			t.Fatal(err)
		}
		f, err := findFile(w.View(), api.KindSecret, "s")
		if err != nil || f.Number != uint64(i+2) || string(fileData(w.View(), f)) != step.data || (f.Spec.Templating != nil) != step.templated || f.Spec.Labels["a"] != "b" {
			t.Errorf("step %d: %+v, %v", i, f, err)
		}
	}
}

func TestTendFilesEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.TendFiles(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
