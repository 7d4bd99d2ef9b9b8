package compose

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"shoal/internal/nearest"
)

// finding is a field that is not honoured.
type finding struct {
	pos     Pos
	path    string
	support Support
	note    string
}

const unknown = "there is no such field"

func (f finding) String() string {
	if strings.HasPrefix(f.note, unknown) {
		return fmt.Sprintf("%s: %s: %s", f.pos, f.path, f.note)
	}
	verb := "ignored"
	if f.support == Refused {
		verb = "not supported"
	}
	return fmt.Sprintf("%s: %s is %s: %s", f.pos, f.path, verb, f.note)
}

// service is the name of the service that the finding is about, or "".
func (f finding) service() string {
	rest, ok := strings.CutPrefix(f.path, "services.")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, ".")
	return name
}

// checker compares files with the table of support, and remembers where everything stands.
type checker struct {
	table    table
	places   map[string]Pos
	findings []finding
	// longEnvFiles are the files of env_file that a service names in the long form, and bases the services that it
	// extends, from which it has files, too.
	longEnvFiles, bases map[string][]string
	text                func(string) string // replaces variables
	// hosts are the lines of extra_hosts by service, in the order in which they stand, which is lost later.
	hosts map[string][]string
}

func newChecker(text func(string) string) *checker {
	return &checker{
		table: newTable(Fields), places: map[string]Pos{}, hosts: map[string][]string{},
		longEnvFiles: map[string][]string{}, bases: map[string][]string{}, text: text,
	}
}

// file checks a whole file. What a later file says of a field replaces where it stands.
func (c *checker) file(s *source) {
	for _, doc := range s.docs {
		c.walk(s, doc, "", "")
	}
}

// service checks one service of a file that another service extends.
func (c *checker) service(s *source, name string) {
	for _, doc := range s.docs {
		if n := child(child(doc, "services"), name); n != nil {
			c.walk(s, n, "services."+name, "services.*")
		}
	}
}

// walk visits what is below a node. Aliases are followed, and what is merged with "<<" counts as written there.
func (c *checker) walk(s *source, n *yaml.Node, path, pattern string) {
	n = follow(n)
	switch n.Kind {
	case yaml.DocumentNode:
		for _, child := range n.Content {
			c.walk(s, child, path, pattern)
		}
	case yaml.SequenceNode:
		for i, child := range n.Content {
			p := path + "[" + strconv.Itoa(i) + "]"
			c.places[p] = Pos{s.name, child.Line}
			c.walk(s, child, p, pattern+"[]")
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if merges(key) {
				c.merged(s, value, path, pattern)
				continue
			}
			if c.entry(s, key, value, path, pattern) {
				c.walk(s, value, join(path, key.Value), c.step(pattern, key.Value))
			}
		}
	}
}

func (c *checker) merged(s *source, n *yaml.Node, path, pattern string) {
	n = follow(n)
	if n.Kind != yaml.SequenceNode {
		c.walk(s, n, path, pattern)
		return
	}
	for _, child := range n.Content {
		c.walk(s, child, path, pattern)
	}
}

func (c *checker) step(pattern, key string) string {
	if c.table.named[pattern] {
		key = "*"
	}
	return join(pattern, key)
}

// entry judges one entry of a mapping, and reports whether there is anything to judge below it.
func (c *checker) entry(s *source, key, value *yaml.Node, path, pattern string) bool {
	p, q := join(path, key.Value), c.step(pattern, key.Value)
	pos := Pos{s.name, key.Line}
	if value.Tag == "!reset" { // it takes away what a file before said
		return false
	}
	c.places[p] = pos
	if c.table.named[pattern] {
		return c.table.parent[q]
	}
	if strings.HasPrefix(key.Value, "x-") {
		return false
	}
	switch q {
	case "services.*.env_file[].path":
		service := finding{path: p}.service()
		c.longEnvFiles[service] = append(c.longEnvFiles[service], c.text(follow(value).Value))
	case "services.*.extra_hosts":
		for _, line := range follow(value).Content {
			c.hosts[p] = append(c.hosts[p], follow(line).Value)
		}
	}
	field, known := c.table.field[q]
	switch {
	case !known:
		c.findings = append(c.findings, finding{pos, p, Refused, unknown + c.suggest(q)})
		return false
	case field.Support != Honoured:
		if !idle(value) {
			c.findings = append(c.findings, finding{pos, p, field.Support, field.Note})
		}
		return false
	}
	return c.table.parent[q]
}

// idle values ask for nothing: "privileged: false" is what happens anyway.
func idle(n *yaml.Node) bool {
	n = follow(n)
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value == "" || n.Tag == "!!null" || n.Value == "false"
	case yaml.MappingNode, yaml.SequenceNode:
		return len(n.Content) == 0
	}
	return false
}

// suggest names the field that was meant, if one differs by little.
func (c *checker) suggest(pattern string) string {
	parent, key := cutLast(pattern)
	var siblings []string
	for _, f := range Fields {
		if before, last := cutLast(f.Path); before == parent {
			siblings = append(siblings, last)
		}
	}
	best := nearest.Word(key, siblings)
	if best == "" {
		return ""
	}
	return "; is it " + best + "?"
}

// at is where a field stands, or what it is in.
func (c *checker) at(path string) Pos {
	for path != "" {
		if pos, ok := c.places[path]; ok {
			return pos
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return Pos{}
}

// errorAt says where a field stands that something is wrong with.
func (c *checker) errorAt(path, text string, args ...any) error {
	msg := fmt.Sprintf(text, args...)
	if pos := c.at(path); pos.File != "" {
		return fmt.Errorf("%s: %s: %s", pos, path, msg)
	}
	return fmt.Errorf("%s: %s", path, msg)
}

// locate puts the place in front of an error of which only the text is known, if that names a field of the file.
func (c *checker) locate(err error) (_ error, found bool) {
	text := inOurWords(err.Error())
	if text != err.Error() {
		err = errors.New(text)
	}
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" \t\n'\"`,:()", r) })
	slices.SortStableFunc(words, func(a, b string) int { return len(b) - len(a) })
	for _, word := range words {
		if pos, ok := c.places[strings.Trim(word, ".")]; ok && strings.Contains(word, ".") {
			return fmt.Errorf("%s: %w", pos, err), true
		}
	}
	return err, false
}

// libraryWords are errors of the library that speak of itself, and what they are to say.
var libraryWords = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`^decoding failed due to the following error\(s\):\s*`), ""},
	{regexp.MustCompile(`\b(services|networks|volumes|secrets|configs)\[([^\[\]]+)\]`), "$1.$2"},
	{regexp.MustCompile(`^error while interpolating (\S+): failed to cast to expected type: invalid boolean: (.*)$`), `$1: "$2" is neither true nor false`},
	{regexp.MustCompile(`^error while interpolating (\S+): failed to cast to expected type: strconv\.\w+: parsing (".*"): .*$`), "$1: $2 is not a number of this kind"},
}

func inOurWords(text string) string {
	for _, w := range libraryWords {
		text = w.what.ReplaceAllString(text, w.by)
	}
	return text
}

// judge splits the findings about services that are deployed into what ends the command and what is only told.
func (c *checker) judge(disabled func(service string) bool) (warnings []string, refused error) {
	var errs []string
	seen := map[string]bool{}
	slices.SortStableFunc(c.findings, func(a, b finding) int {
		if a.pos.File != b.pos.File {
			return 0
		}
		return a.pos.Line - b.pos.Line
	})
	for _, f := range c.findings {
		text := f.String()
		if seen[text] || f.service() != "" && disabled(f.service()) {
			continue
		}
		seen[text] = true
		if f.support == Refused {
			errs = append(errs, text)
		} else {
			warnings = append(warnings, text)
		}
	}
	if len(errs) > 0 {
		return warnings, fmt.Errorf("%s", strings.Join(errs, "\n"))
	}
	return warnings, nil
}
