// Package compose turns compose files into what a cluster is asked for. The result is the same as that of docker
// stack deploy wherever that has one, so that a stack may be deployed by either.
package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	interp "github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// Input is what a stack is made from.
type Input struct {
	// Name is the stack's. It may be empty where only the files matter.
	Name string
	// Files are paths, each changing what those before it say. "-" is Stdin.
	Files []string
	Stdin io.Reader
	// Dir is where relative paths start, and Env what variables are taken from.
	Dir string
	Env map[string]string
	// EnvFiles are files of variables that Env does not have.
	EnvFiles []string
	Profiles []string
	// Verbatim leaves variables as they are written.
	Verbatim bool
}

// Project is compose files, read, checked and merged.
type Project struct {
	model    *types.Project
	checker  *checker
	env      map[string]string
	Warnings []string
	// refused says that the project has fields which are refused: it is converted
	// for what else is wrong alone.
	refused bool
}

// Load reads the files. A field that is not honoured is an error, or a line in the project's warnings, as Fields says.
func Load(ctx context.Context, in Input) (*Project, error) {
	sources, dir, err := open(in)
	if err != nil {
		return nil, err
	}
	env, err := environment(in)
	if err != nil {
		return nil, err
	}
	p := &Project{env: env}
	missing := map[string]bool{}
	lookup := func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
	r := reader{in: in, lookup: lookup, done: map[string]bool{}}
	p.checker = newChecker(r.text)
	r.checker = p.checker
	details := types.ConfigDetails{WorkingDir: dir, Environment: maps.Clone(env)}
	for _, s := range sources {
		if err := r.check(s, dir, dir); err != nil {
			return nil, err
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.name, Content: s.content})
	}

	if p.model, err = load(ctx, details, in, lookup, missing); err != nil {
		// What the table knows is said first: it is what the user can act upon. What
		// the library says beside that may only follow from it: from a field that
		// neither knows, or from one of no file, such as a service that it made up.
		_, refused := p.checker.judge(func(string) bool { return false })
		located, found := p.checker.locate(err)
		if refused != nil && (!found || strings.Contains(err.Error(), "additional properties")) {
			return nil, refused
		}
		return nil, errors.Join(refused, located)
	}
	var refused error
	p.Warnings, refused = p.checker.judge(func(service string) bool {
		_, disabled := p.model.DisabledServices[service]
		return disabled
	})
	if refused != nil {
		p.refused = true
		_, more := p.Stack(cmp.Or(in.Name, "stack"))
		return nil, errors.Join(refused, more)
	}
	if !in.Verbatim {
		p.warnMissing(missing, dir)
	}
	if name := r.projectName; name != "" && in.Name != "" && name != in.Name {
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s: name is ignored: the stack is called %s", p.checker.at("name"), in.Name))
	}
	return p, nil
}

// open reads the files that the user named. The first one's folder is where relative paths in all of them start.
func open(in Input) (sources []*source, dir string, err error) {
	if len(in.Files) == 0 {
		return nil, "", errors.New("please specify a Compose file (with --compose-file)")
	}
	for i, file := range in.Files {
		var content []byte
		name, folder := file, in.Dir
		switch {
		case file == "-":
			name = "<stdin>"
			content, err = readBounded(in.Stdin, name)
		default:
			path := file
			if !filepath.IsAbs(path) {
				path = filepath.Join(in.Dir, path)
			}
			folder = filepath.Dir(path)
			content, err = readFile(path)
		}
		if err != nil {
			return nil, "", err
		}
		if i == 0 {
			dir = folder
		}
		s, err := parse(name, content)
		if err != nil {
			return nil, "", err
		}
		sources = append(sources, s)
	}
	return sources, dir, nil
}

// load lets the library of the compose specification do its part: merge, extend, include, interpolate, and read the
// many forms of each field. Names, defaults and environments are done here, as docker stack deploy does them.
func load(ctx context.Context, details types.ConfigDetails, in Input, lookup interp.LookupValue, missing map[string]bool) (model *types.Project, err error) {
	// The library talks past its caller, to the logger of the whole process: that "version" is obsolete, or what is
	// said here with file and line.
	std := logrus.StandardLogger()
	out := std.Out
	std.SetOutput(io.Discard)
	defer std.SetOutput(out)
	// It asserts types that its own schema does not assure.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file can not be understood: %v", r)
		}
	}()
	return loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName("stack", true) // only the names made here count
		o.SkipNormalization = true
		o.SkipConsistencyCheck = true
		o.SkipDefaultValues = true
		o.SkipResolveEnvironment = true
		o.SkipInterpolation = in.Verbatim
		o.Profiles = in.Profiles
		o.Interpolate.LookupValue = lookup
		o.Interpolate.Substitute = func(text string, mapping template.Mapping) (string, error) {
			for _, match := range plainVariable.FindAllStringSubmatch(text, -1) {
				if name := match[1] + match[2]; name != "" {
					if _, ok := lookup(name); !ok {
						missing[name] = true
					}
				}
			}
			return template.SubstituteWithOptions(text, mapping, template.WithoutLogging)
		}
	})
}

// plainVariable matches variables that have no default, and escaped dollars, which are none.
var plainVariable = regexp.MustCompile(`\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)

// YAML is the project as one file. What secrets hold is not in it.
func (p *Project) YAML() ([]byte, error) {
	model := *p.model
	model.Name = ""
	return model.MarshalYAML()
}

// warnMissing tells of variables that became nothing, and where they might have been meant to come from.
func (p *Project) warnMissing(missing map[string]bool, dir string) {
	dotenv, _ := readEnvFile(filepath.Join(dir, ".env"))
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		text := fmt.Sprintf("the variable %s is not set: it is replaced by nothing", name)
		if _, ok := dotenv[name]; ok {
			text += "; .env sets it, which is only read with --env-file .env"
		}
		p.Warnings = append(p.Warnings, text)
	}
}
