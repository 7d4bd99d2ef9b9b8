package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v4"
)

const (
	// maxFile is far above any file that people write, and far below what hurts.
	maxFile = 4 << 20
	// maxNodes bounds what a file may become once its aliases are followed: a kilobyte can be made to mean a billion
	// entries.
	maxNodes = 200_000
	// maxDepth bounds recursion over what is nested.
	maxDepth = 200
)

// Pos is a place in a compose file.
type Pos struct {
	File string
	Line int
}

func (p Pos) String() string {
	if p.File == "" {
		return ""
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// source is one file as it was written.
type source struct {
	name    string // as the user called it
	content []byte
	docs    []*yaml.Node
}

// readFile reads at most maxFile bytes of a file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, path)
}

func readBounded(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxFile>>20)
	}
	return data, nil
}

// parse reads the YAML of a file, and refuses what would not fit into memory once its aliases are followed.
func parse(name string, content []byte) (*source, error) {
	s := &source{name: name, content: content}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s", name, countedLines(err.Error()))
		}
		m := measure{sizes: map[*yaml.Node]int{}}
		if n, err := m.size(&doc, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		} else if n > maxNodes {
			return nil, fmt.Errorf("%s: more than %d entries once its aliases are followed", name, maxNodes)
		}
		s.docs = append(s.docs, &doc)
	}
}

// where is how the YAML library names a place, with lines counted from 0.
var where = regexp.MustCompile(`line (\d+), column`)

// countedLines counts them from 1, as editors do.
func countedLines(text string) string {
	return where.ReplaceAllStringFunc(text, func(place string) string {
		n, err := strconv.Atoi(where.FindStringSubmatch(place)[1])
		if err != nil {
			return place
		}
		return fmt.Sprintf("line %d, column", n+1)
	})
}

// measure counts the nodes that a document has when every alias is followed, without following any of them twice.
type measure struct{ sizes map[*yaml.Node]int }

func (m measure) size(n *yaml.Node, depth int) (int, error) {
	const open = -1 // being measured: to meet it again is a circle
	switch known := m.sizes[n]; {
	case known == open:
		return 0, fmt.Errorf("line %d: an anchor contains itself", n.Line)
	case known > 0:
		return known, nil
	case depth > maxDepth:
		return 0, fmt.Errorf("line %d: nested more than %d deep", n.Line, maxDepth)
	}
	m.sizes[n] = open
	total := 1
	children := n.Content
	if n.Kind == yaml.AliasNode {
		children = []*yaml.Node{n.Alias}
	}
	for _, child := range children {
		size, err := m.size(child, depth+1)
		if err != nil {
			return 0, err
		}
		total = min(total+size, maxNodes+1)
	}
	m.sizes[n] = total
	return total, nil
}

func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// child is the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	n = follow(n)
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = follow(n.Content[0])
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 { // what is merged comes after what is written
		if !merges(n.Content[i]) {
			continue
		}
		from := []*yaml.Node{n.Content[i+1]}
		if list := follow(from[0]); list.Kind == yaml.SequenceNode {
			from = list.Content
		}
		for _, m := range from {
			if found := child(m, key); found != nil {
				return found
			}
		}
	}
	return nil
}

// merges tells whether a key merges another mapping into its own.
func merges(key *yaml.Node) bool {
	return key.Value == "<<" && (key.Tag == "!!merge" || key.Tag == "")
}

// shown is how a file is called in messages: as short as it can be said from where the user is.
func shown(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}
