package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The table of support is held against what happens: testdata/fields has a file for each kind of field, in which all
// of that kind occur.

// occurrence is a field in a file.
type occurrence struct {
	in    *yaml.Node // the mapping that has it
	path  string
	line  int
	field Field
}

// occurrences finds all fields of the table that a file has.
func occurrences(n *yaml.Node, path, pattern string, t table) (found []occurrence) {
	switch n.Kind {
	case yaml.DocumentNode:
		return occurrences(n.Content[0], path, pattern, t)
	case yaml.SequenceNode:
		for i, child := range n.Content {
			found = append(found, occurrences(child, fmt.Sprintf("%s[%d]", path, i), pattern+"[]", t)...)
		}
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			step := key.Value
			if t.named[pattern] {
				step = "*"
			}
			if f, ok := t.field[join(pattern, step)]; ok {
				found = append(found, occurrence{n, join(path, key.Value), key.Line, f})
			}
			found = append(found, occurrences(n.Content[i+1], join(path, key.Value), join(pattern, step), t)...)
		}
	}
	return found
}

// fieldsFile is a file of testdata/fields, and the fields of the kind that it is about: all of them.
func fieldsFile(t *testing.T, name string, kind Support) (*yaml.Node, []occurrence) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/fields", name))
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	table := newTable(Fields)
	found := slices.DeleteFunc(occurrences(&doc, "", "", table), func(o occurrence) bool { return o.field.Support != kind })
	for _, f := range Fields {
		if f.Support == kind && !slices.ContainsFunc(found, func(o occurrence) bool { return o.field == f }) {
			t.Errorf("%s has no %s", name, f.Path)
		}
	}
	return &doc, found
}

// outcome is what becomes of a file: a stack and warnings, or an error.
func outcome(t *testing.T, file string) (stack string, warnings []string, err error) {
	t.Helper()
	dir, err := filepath.Abs("testdata/fields")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(t.Context(), Input{Name: "st", Files: []string{file}, Dir: dir, Env: map[string]string{"GIVEN": "given"}})
	if err != nil {
		return "", nil, err
	}
	made, err := p.Stack("st")
	if err != nil {
		return "", nil, err
	}
	raw, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), p.Warnings, nil
}

// TestHonoured takes each honoured field out of a file that has them all. Something else must come of it.
func TestHonoured(t *testing.T) {
	doc, found := fieldsFile(t, "every.yml", Honoured)
	stack, warnings, err := outcome(t, "every.yml")
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "name is ignored: the stack is called st") {
		t.Errorf("warnings: %q", warnings)
	}
	matters := map[string]bool{"version": true} // but this one, as the table says
	temp := filepath.Join("testdata/fields", fmt.Sprintf("without-%d.yml", os.Getpid()))
	defer os.Remove(temp)
	for _, o := range found {
		if matters[o.field.Path] {
			continue
		}
		was := slices.Clone(o.in.Content)
		i := slices.IndexFunc(o.in.Content, func(n *yaml.Node) bool { return n.Line == o.line && strings.HasSuffix("."+o.path, "."+n.Value) })
		o.in.Content = slices.Delete(o.in.Content, i, i+2)
		data, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		o.in.Content = was
		if err := os.WriteFile(temp, data, 0o600); err != nil {
			t.Fatal(err)
		}
		without, told, err := outcome(t, filepath.Base(temp))
		matters[o.field.Path] = err != nil || without != stack || len(told) != len(warnings)
	}
	for _, f := range Fields {
		if f.Support == Honoured && !matters[f.Path] {
			t.Errorf("%s is honoured, says the table, and nothing changes without it", f.Path)
		}
	}
}

// TestIgnored: each field that is left out is told with its place, and changes nothing.
func TestIgnored(t *testing.T) {
	doc, found := fieldsFile(t, "ignored.yml", Warned)
	stack, warnings, err := outcome(t, "ignored.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		want := fmt.Sprintf("ignored.yml:%d: %s is ignored: %s", o.line, o.path, o.field.Note)
		if !slices.Contains(warnings, want) {
			t.Errorf("not told: %s", want)
		}
		i := slices.IndexFunc(o.in.Content, func(n *yaml.Node) bool { return n.Line == o.line && strings.HasSuffix("."+o.path, "."+n.Value) })
		o.in.Content = slices.Delete(o.in.Content, i, i+2)
	}
	if len(warnings) != len(found) {
		t.Errorf("%d warnings for %d fields: %q", len(warnings), len(found), warnings)
	}
	data, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(t.TempDir(), "without.yml")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		t.Fatal(err)
	}
	without, told, err := outcome(t, temp)
	if err != nil || len(told) > 0 || without != stack {
		t.Errorf("without them: %v, %q\n%s\n%s", err, told, without, stack)
	}
}

// TestNotSupported: each field that is refused is told with its place, all of them at once.
func TestNotSupported(t *testing.T) {
	_, found := fieldsFile(t, "refused.yml", Refused)
	_, _, err := outcome(t, "refused.yml")
	if err == nil {
		t.Fatal("accepted")
	}
	said := strings.Split(err.Error(), "\n")
	for _, o := range found {
		want := fmt.Sprintf("refused.yml:%d: %s is not supported: %s", o.line, o.path, o.field.Note)
		if !slices.Contains(said, want) {
			t.Errorf("not told: %s", want)
		}
	}
	if len(said) != len(found) {
		t.Errorf("%d errors for %d fields: %q", len(said), len(found), said)
	}
	if !regexp.MustCompile(`^refused\.yml:2: jobs is not supported`).MatchString(said[0]) {
		t.Errorf("in the order of the file, the first is %q", said[0])
	}
}
