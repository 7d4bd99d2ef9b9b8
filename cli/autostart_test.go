package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNewLog starts three daemons: the logs of the last two stay.
func TestNewLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	for _, line := range []string{"first", "second", "third"} {
		f, err := newLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{path: "third", path + ".1": "second"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
}
