package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

const docs = "../../docs/compose.md"

// TestDocsShowTheTable keeps docs/compose.md what the code does.
func TestDocsShowTheTable(t *testing.T) {
	const begin, end = "<!-- fields -->\n", "<!-- end of fields -->"
	data, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docs)
	}
	var table strings.Builder
	table.WriteString("| field | | |\n|---|---|---|\n")
	for _, f := range Fields {
		support := f.Support.String()
		if f.Support != Honoured {
			support = "**" + support + "**"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Path, support, strings.ReplaceAll(f.Note, "|", "\\|"))
	}
	want := before + begin + table.String() + end + after
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatalf("%s does not show the table: run go test ./internal/compose -update", docs)
	}
	if err := os.WriteFile(docs, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTableKnowsTheSpecification compares the table with the schema, so that no field is forgotten when the library
// learns a new one.
func TestTableKnowsTheSpecification(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		t.Fatal(err)
	}
	s := specification{root: root, table: newTable(Fields), seen: map[string]bool{}}
	s.properties(root, "", 0)
	for path := range s.seen {
		if _, ok := s.table.field[path]; !ok {
			t.Errorf("%s is in the specification, and not in the table", path)
		}
	}
	for _, f := range Fields {
		if !s.seen[f.Path] {
			t.Errorf("%s is in the table, and not in the specification", f.Path)
		}
	}
	if len(s.seen) < 200 {
		t.Fatalf("only %d fields found: this test looks in the wrong place", len(s.seen))
	}
}

// specification walks the JSON schema as far as the table goes.
type specification struct {
	root  map[string]any
	table table
	seen  map[string]bool
}

func (s specification) properties(n map[string]any, path string, depth int) {
	if depth > 40 {
		return
	}
	if ref, ok := n["$ref"].(string); ok {
		target := any(s.root)
		for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			target = target.(map[string]any)[step]
		}
		s.properties(target.(map[string]any), path, depth+1)
	}
	for _, key := range []string{"oneOf", "anyOf", "allOf"} {
		list, _ := n[key].([]any)
		for _, one := range list {
			if one, ok := one.(map[string]any); ok {
				s.properties(one, path, depth+1)
			}
		}
	}
	properties, _ := n["properties"].(map[string]any)
	for name, child := range properties {
		p := join(path, name)
		s.seen[p] = true
		if f, ok := s.table.field[p]; ok && f.Support != Honoured {
			continue // what is below goes with it
		}
		if child, ok := child.(map[string]any); ok {
			s.properties(child, p, depth+1)
		}
	}
	patterns, _ := n["patternProperties"].(map[string]any)
	for pattern, child := range patterns {
		if child, ok := child.(map[string]any); ok && !strings.HasPrefix(pattern, "^x-") {
			s.properties(child, path+".*", depth+1)
		}
	}
	if child, ok := n["additionalProperties"].(map[string]any); ok {
		s.properties(child, path+".*", depth+1)
	}
	if child, ok := n["items"].(map[string]any); ok {
		s.properties(child, path+"[]", depth+1)
	}
}
