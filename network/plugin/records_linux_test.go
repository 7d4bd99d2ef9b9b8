package plugin

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
)

// TestRecordsThatCanNotBeWritten: what is not on disk is not answered from.
func TestRecordsThatCanNotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "network")
	path := filepath.Join(dir, "plugin.json")
	r := newRecords(path, zap.NewNop())
	add := func(id string) error {
		return r.change(func(c *content) { c.Networks[id] = Network{ID: "net-" + id} })
	}
	if err := add("a"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory can be made here
		t.Fatal(err)
	}
	if err := add("b"); err == nil {
		t.Fatal("nothing was written, and nothing said")
	}
	if _, ok := r.network("b"); ok {
		t.Error("what could not be written is answered")
	}
	if n, ok := r.network("a"); !ok || n.ID != "net-a" {
		t.Errorf("what was written before is lost: %+v, %v", n, ok)
	}
}
