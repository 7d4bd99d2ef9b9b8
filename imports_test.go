package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parts says what each part of the house may know of the others. A part may
// always use what lies below its own folder, internal/api, and the leaves
// internal/atomicfile and internal/wake.
var parts = []struct {
	folder string
	may    []string
	why    string
}{
	{"internal/api", nil, "the nouns know nobody"},
	{"internal/atomicfile", nil, "a leaf: it knows files"},
	{"internal/build", nil, "a leaf: it knows what this program was built from"},
	{"internal/wake", nil, "a leaf: it knows nothing at all"},
	{"internal/netkit", nil, "a leaf: tools round the kernel's network"},
	{"internal/doctor", nil, "it judges facts, and gathers none"},
	{"internal/events", nil, "it tells what was changed, and asks nobody"},
	{"internal/store", nil, "the store is told what to hold, and knows nothing of raft"},
	{"cluster", []string{"internal/store"}, "agreement does not depend on what is agreed upon"},
	{"service", []string{"internal/store", "network/ipam"}, "the leader decides from the store alone"},
	{"internal/session", []string{"internal/store"}, "it carries, and does not decide"},
	{"internal/httpapi", []string{"internal/store", "internal/control", "internal/doctor", "internal/events", "internal/build", engine}, "the API speaks to the verbs, not past them"},
	{"internal/control", []string{"internal/store", "service", "internal/session", "cluster", "network/ipam"}, "verbs change the store; nodes follow by themselves"},
	{"task", nil, "a worker sees only what it was assigned"},
	{"task/docker", []string{"task", engine}, "the one place where a worker meets its engine"},
	{"network", []string{"internal/netkit"}, "the network is compiled from the node's state alone"},
	{"lb", []string{"internal/netkit"}, "the mesh is compiled from the node's state alone"},
	{"internal/compose", []string{"internal/nearest"}, "it turns files into specs, and asks nobody"},
	{"cli", []string{"internal/compose", "internal/daemon", "internal/doctor", "internal/nearest", "internal/build", engine}, "the command line is a client like any other"},
}

const (
	module = "shoal/"
	engine = "github.com/docker/docker/client"
)

// TestImportsGoOneWay reads the imports of every file but the tests, which may
// look at the house from outside.
func TestImportsGoOneWay(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := path.Dir(filepath.ToSlash(file))
		for _, imp := range f.Imports {
			to, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if to != engine && !strings.HasPrefix(to, module) {
				continue
			}
			checked++
			if why := forbidden(from, strings.TrimPrefix(to, module)); why != "" {
				t.Errorf("%s may not import %s: %s", file, to, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Fatal("no imports found: this test looks in the wrong place")
	}
}

// forbidden gives the reason why one package may not import another, or "".
func forbidden(from, to string) string {
	longest, why := "", ""
	var may []string
	for _, p := range parts {
		if within(from, p.folder) && len(p.folder) > len(longest) {
			longest, may, why = p.folder, p.may, p.why
		}
	}
	ok := longest == "" || to == "internal/api" || to == "internal/atomicfile" || to == "internal/wake" || within(to, longest) ||
		slices.ContainsFunc(may, func(m string) bool { return within(to, m) })
	if ok {
		return ""
	}
	return why
}

func within(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

func TestForbidden(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"task", engine}:                           true,
		{"task/docker", engine}:                    false,
		{"task", "task/docker"}:                    false,
		{"lb/nft", "network/overlay"}:              true,
		{"lb/nft", "lb"}:                           false,
		{"service", "network/ipam"}:                false,
		{"service/scheduler", "cluster"}:           true,
		{"internal/store", "internal/session"}:     true,
		{"internal/daemon", "service"}:             false,
		{"network/plugin", "internal/atomicfile"}:  false,
		{"internal/httpapi", "service"}:            true,
		{"internal/networkish", "network/overlay"}: false,
		{"cli", "internal/control"}:                true,
		{"network/overlay", "internal/netkit"}:     false,
		{"network/overlay", "internal/httpapi"}:    true,
	} {
		if got := forbidden(pair[0], pair[1]) != ""; got != want {
			t.Errorf("%s imports %s: forbidden=%v, want %v", pair[0], pair[1], got, want)
		}
	}
}
