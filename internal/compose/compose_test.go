package compose

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

// corpus has files after the shapes seen in the wild, each with what it becomes.
var corpus = []string{"voting", "proxy", "monitoring", "database", "v2", "current"}

var testEnv = map[string]string{"FROM_SHELL": "the shell's", "EMPTY": "", "TOKEN": "s3cret", "GREETING": "good day"}

func loadStack(t *testing.T, in Input) (*Stack, *Project) {
	t.Helper()
	p, err := Load(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := p.Stack(in.Name)
	if err != nil {
		t.Fatal(err)
	}
	return stack, p
}

func testDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCorpus(t *testing.T) {
	dir := testDir(t)
	for _, name := range corpus {
		t.Run(name, func(t *testing.T) {
			stack, p := loadStack(t, Input{Name: "st", Files: []string{name + ".yml"}, Dir: dir, Env: testEnv})
			golden(t, filepath.Join(dir, name+".golden"), struct {
				Warnings []string
				Stack    *Stack
			}{p.Warnings, stack}, dir)
		})
	}
}

// golden compares a value with what a file wants, the place of the files left out.
func golden(t *testing.T, file string, value any, dir string) {
	t.Helper()
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(data), dir, "DIR") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("other than in %s (-want +got):\n%s", file, diff)
	}
}
