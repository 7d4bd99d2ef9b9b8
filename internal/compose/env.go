package compose

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
)

// environment is what variables in the files are replaced from: the environment of the command, and then what files
// named on its command line say. A .env file is not read by itself, as docker stack deploy does not.
func environment(in Input) (map[string]string, error) {
	env := maps.Clone(in.Env)
	if env == nil {
		env = map[string]string{}
	}
	// Later files win over earlier ones, the environment over all.
	for _, file := range slices.Backward(in.EnvFiles) {
		path := file
		if !filepath.IsAbs(path) {
			path = filepath.Join(in.Dir, path)
		}
		values, err := interpreted(path, env)
		if err != nil {
			return nil, err
		}
		for key, value := range values {
			if _, ok := env[key]; !ok {
				env[key] = value
			}
		}
	}
	return env, nil
}

// interpreted reads a file of variables as Compose does: quotes, escapes and variables mean something.
func interpreted(path string, env map[string]string) (map[string]string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	values, err := dotenv.UnmarshalWithLookup(string(data), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return values, nil
}

// readEnvFile reads a file of variables as docker stack deploy reads those of env_file: lines of KEY=VALUE, of which
// nothing is interpreted. A key alone has no value: it is nil.
func readEnvFile(path string) (map[string]*string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	values := map[string]*string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(lines.Text(), "\uFEFF"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, hasValue := strings.Cut(line, "=")
		switch {
		case key == "":
			return nil, fmt.Errorf("%s:%d: no variable name on line '%s'", path, n, line)
		case strings.ContainsAny(key, " \t"):
			return nil, fmt.Errorf("%s:%d: variable '%s' contains whitespaces", path, n, key)
		case hasValue:
			values[key] = &value
		default:
			values[key] = nil
		}
	}
	return values, lines.Err()
}

// serviceEnv is a service's environment: that of its files, then its own, later ones winning. What has no value, or an
// empty one, is taken from the environment of the command if that has it.
func (p *Project) serviceEnv(name string, s types.ServiceConfig) (map[string]*string, error) {
	env := map[string]*string{}
	take := func(values map[string]*string) {
		for key, value := range values {
			if given, ok := p.env[key]; ok && (value == nil || *value == "") {
				value = &given
			}
			env[key] = value
		}
	}
	for i, file := range s.EnvFiles {
		values, err := p.envFile(name, file)
		if errors.Is(err, fs.ErrNotExist) && !bool(file.Required) {
			continue
		}
		if err != nil {
			return nil, p.checker.errorAt(fmt.Sprintf("services.%s.env_file[%d]", name, i), "%v", err)
		}
		take(values)
	}
	take(s.Environment)
	return env, nil
}

// envFile reads a file of env_file. The long form, which docker stack deploy does not know, is Compose's, and so is what
// it means, unless it says "raw".
func (p *Project) envFile(service string, file types.EnvFile) (map[string]*string, error) {
	switch file.Format {
	case "raw":
		return readEnvFile(file.Path)
	case "":
	default:
		return nil, fmt.Errorf("format %q is not known: it is raw, or left out", file.Format)
	}
	if !p.checker.longEnvFile(service, file.Path) {
		return readEnvFile(file.Path)
	}
	values, err := interpreted(file.Path, p.env)
	if err != nil {
		return nil, err
	}
	pointers := map[string]*string{}
	for key, value := range values {
		pointers[key] = &value
	}
	return pointers, nil
}

// longEnvFile tells whether a service, or one that it extends, names the file in the long form. What it starts at is
// known to the library alone: the end of the path is as it was written.
func (c *checker) longEnvFile(service, path string) bool {
	todo, done := []string{service}, map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		if todo = todo[1:]; done[name] {
			continue
		}
		done[name] = true
		todo = append(todo, c.bases[name]...)
		for _, written := range c.longEnvFiles[name] {
			end := filepath.Clean(written)
			for strings.HasPrefix(end, "../") {
				end = end[len("../"):]
			}
			if path == end || strings.HasSuffix(path, "/"+strings.TrimPrefix(end, "/")) {
				return true
			}
		}
	}
	return false
}
