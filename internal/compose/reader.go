package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	interp "github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

// reader follows a file to those that it includes and extends, so that they are checked, too.
type reader struct {
	in          Input
	checker     *checker
	lookup      interp.LookupValue
	done        map[string]bool
	projectName string
}

// check checks a file. Files that it includes are relative to dir, and those that it extends to base.
func (r *reader) check(s *source, dir, base string) error {
	r.checker.file(s)
	for _, doc := range s.docs {
		if n := child(doc, "name"); n != nil {
			r.projectName = r.text(n.Value)
		}
		if err := r.included(child(doc, "include"), dir); err != nil {
			return err
		}
		services := child(doc, "services")
		if services == nil || services.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(services.Content); i += 2 {
			if err := r.extended(s, services.Content[i].Value, services.Content[i+1], base); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) included(list *yaml.Node, dir string) error {
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil
	}
	for _, entry := range list.Content {
		entry = follow(entry)
		paths, folder := []*yaml.Node{entry}, ""
		if entry.Kind == yaml.MappingNode {
			paths = nil
			if p := child(entry, "path"); p != nil {
				paths = []*yaml.Node{p}
				if p.Kind == yaml.SequenceNode {
					paths = p.Content
				}
			}
			if p := child(entry, "project_directory"); p != nil {
				folder = absolute(dir, r.text(p.Value))
			}
		}
		for _, p := range paths {
			path := absolute(dir, r.text(p.Value))
			s, err := r.open(path)
			if err != nil {
				return err
			}
			if s == nil {
				continue
			}
			if folder == "" {
				folder = filepath.Dir(path)
			}
			if err := r.check(s, folder, folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// extended follows what a service of a file extends: another of the same file, or one of another file, of which only
// that is checked.
func (r *reader) extended(in *source, service string, n *yaml.Node, base string) error {
	extends := child(n, "extends")
	if extends == nil {
		return nil
	}
	name, file := extends, child(extends, "file")
	if extends.Kind == yaml.MappingNode {
		name = child(extends, "service")
	}
	if name == nil || name.Kind != yaml.ScalarNode {
		return nil
	}
	other := r.text(name.Value)
	r.checker.bases[service] = append(r.checker.bases[service], other)
	if file != nil {
		path := absolute(base, r.text(file.Value))
		content, err := readFile(path)
		if err != nil {
			return nil //nolint:nilerr // whether it is needed, and what is wrong with it, is said when it is loaded
		}
		if in, err = parse(shown(r.in.Dir, path), content); err != nil {
			return err
		}
		base = filepath.Dir(path)
	}
	key := in.name + "#" + other
	if r.done[key] {
		return nil
	}
	r.done[key] = true
	r.checker.service(in, other)
	for _, doc := range in.docs {
		if n := child(child(doc, "services"), other); n != nil {
			if err := r.extended(in, other, n, base); err != nil {
				return err
			}
		}
	}
	return nil
}

// open reads an included file once. One that is not there is nil.
func (r *reader) open(path string) (*source, error) {
	if r.done[path] {
		return nil, nil
	}
	r.done[path] = true
	content, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // said when it is loaded
	}
	if err != nil {
		return nil, err
	}
	return parse(shown(r.in.Dir, path), content)
}

// text replaces variables in a name of a file.
func (r *reader) text(s string) string {
	if replaced, err := template.SubstituteWithOptions(s, template.Mapping(r.lookup), template.WithoutLogging); err == nil && !r.in.Verbatim {
		return replaced
	}
	return s
}

func absolute(dir, path string) string {
	if strings.HasPrefix(path, "~") || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
