package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/cli/spec"
)

// fileNoun is what the commands for secrets and for configs do not share: how to ask the daemon.
type fileNoun struct {
	kind    string // secret or config
	create  func(ctx context.Context, in input, data []byte) (id string, err error)
	list    func(ctx context.Context, which filters.Args) ([]file, error)
	inspect func(ctx context.Context, name string) (file, []byte, error)
	remove  func(ctx context.Context, name string) error
}

// file is a secret or config.
type file struct {
	object any // Docker's own type
	id     string
	swarm.Meta
	swarm.Annotations
	driver string
	data   []byte // of a config
}

// labels are the flag --label as the API wants them.
func labels(in input) map[string]string {
	m := map[string]string{}
	for _, label := range in.List("label") {
		key, value, _ := strings.Cut(label, "=")
		m[key] = value
	}
	return m
}

func templating(in input) *swarm.Driver {
	if name := in.Text("template-driver"); name != "" {
		return &swarm.Driver{Name: name}
	}
	return nil
}

func (s *session) fileCommands(n fileNoun, create leaf) []leaf {
	upper := strings.ToUpper(n.kind)
	return []leaf{
		create,
		{
			name: "inspect", args: upper + " [" + upper + "...]", usage: "Display detailed information on one or more " + n.kind + "s",
			flags: inspectFlags(), arity: atLeastOne, run: func(ctx context.Context, in input) error { return s.fileInspect(ctx, n, in) },
		},
		{
			name: "ls", aliases: []string{"list"}, usage: "List " + n.kind + "s",
			flags: listFlags(), arity: none, run: func(ctx context.Context, in input) error { return s.fileList(ctx, n, in) },
		},
		{
			name: "rm", aliases: []string{"remove"}, args: upper + " [" + upper + "...]", usage: "Remove one or more " + n.kind + "s",
			arity: atLeastOne, run: func(ctx context.Context, in input) error { return s.fileRemove(ctx, n, in) },
		},
		{
			name: "update", args: upper + " file|-", usage: "Make a new version of a " + n.kind + " and roll the services that use it",
			flags: fileFlags(n.kind), arity: arity{2, 2},
			run: func(ctx context.Context, in input) error { return s.fileUpdate(ctx, n, in) },
		},
	}
}

// fileCreate is called with the name of a file, - for stdin.
func (s *session) fileCreate(ctx context.Context, n fileNoun, in input, from string) error {
	data, err := s.content(from)
	if err != nil {
		return err
	}
	id, err := n.create(ctx, in, data)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, id)
	return nil
}

// fileUpdate gives a secret or config other data. What Docker's API has for that, changes of labels, is left alone.
func (s *session) fileUpdate(ctx context.Context, n fileNoun, in input) error {
	data, err := s.content(in.args[1])
	if err != nil {
		return err
	}
	spec := swarm.ConfigSpec{Data: data, Templating: templating(in)}
	if in.Changed("label") {
		spec.Labels = labels(in)
	}
	if in.Changed("template-driver") && spec.Templating == nil {
		spec.Templating = &swarm.Driver{} // none any more
	}
	var made struct {
		ID       string
		Version  uint64
		Services []string
	}
	if err := s.ask(ctx, http.MethodPost, "/shoal/"+n.kind+"s/"+url.PathEscape(in.args[0])+"/replace", spec, &made); err != nil {
		return err
	}
	fmt.Fprintln(s.out, made.ID)
	if len(made.Services) == 0 {
		fmt.Fprintf(s.err, "%s is at version %d; no service has to change\n", in.args[0], made.Version)
	} else {
		fmt.Fprintf(s.err, "%s is at version %d; updating %s\n", in.args[0], made.Version, strings.Join(made.Services, ", "))
	}
	return nil
}

// content reads a file, or stdin for -.
func (s *session) content(from string) (data []byte, err error) {
	if from == "-" {
		data, err = readBounded(s.in)
	} else {
		data, err = readFile(from)
	}
	if err != nil {
		return nil, fmt.Errorf("error reading content from %q: %w", from, err)
	}
	return data, nil
}

// maxRead is more than a swarm takes, which says so itself; a device that never ends is not read for ever.
const maxRead = 2 << 20

func readBounded(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, maxRead)) }

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// withVersions lists secrets or configs, with those versions of them that newer ones have replaced. Docker's client knows
// of none.
func (s *session) withVersions(ctx context.Context, kinds string, which filters.Args, into any) error {
	text, err := filters.ToJSON(which)
	if err != nil {
		return err
	}
	query := url.Values{"versions": {"1"}, "filters": {text}}
	return s.ask(ctx, http.MethodGet, "/"+kinds+"?"+query.Encode(), nil, into)
}

func (s *session) fileList(ctx context.Context, n fileNoun, in input) error {
	files, err := n.list(ctx, in.Filters())
	if err != nil {
		return err
	}
	slices.SortStableFunc(files, func(a, b file) int { return naturally(a.Name, b.Name) })
	table := fileTable(n.kind, files)
	if in.Bool("quiet") && !in.Changed("format") {
		return table.Write(s.out, "{{.ID}}")
	}
	return table.Write(s.out, in.Text("format"))
}

func fileTable(kind string, files []file) format.Table {
	t := format.Table{
		Headers: map[string]string{"ID": "ID", "Name": "NAME", "CreatedAt": "CREATED", "UpdatedAt": "UPDATED", "Labels": "LABELS"},
		Default: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
	}
	if kind == "secret" {
		t.Headers["Driver"] = "DRIVER"
		t.Default = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}"
	}
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }
	for _, f := range files {
		row := format.Row{
			"ID": f.id, "Name": f.Name, "CreatedAt": ago(f.CreatedAt), "UpdatedAt": ago(f.UpdatedAt),
			"Labels": format.Labels(f.Labels),
		}
		if kind == "secret" {
			row["Driver"] = f.driver
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (s *session) fileInspect(ctx context.Context, n fileNoun, in input) error {
	if in.Bool("pretty") && in.Changed("format") {
		return errors.New("--format is incompatible with human friendly format")
	}
	if !in.Bool("pretty") {
		return format.Inspect(s.out, in.args, in.Text("format"), func(name string) (format.Object, error) {
			f, raw, err := n.inspect(ctx, name)
			return format.Object{Value: f.object, Raw: raw}, err
		})
	}
	var failed []error
	for _, name := range in.args {
		f, _, err := n.inspect(ctx, name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if err := printFile(s.out, n.kind, f); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// printFile is inspect --pretty, with Docker's blanks.
func printFile(w io.Writer, kind string, f file) error {
	gap, at := "              ", "        "
	if kind == "config" {
		gap, at = "\t\t\t", "            \t"
	}
	var p page
	p.line("ID:%s%s", gap, f.id)
	p.line("Name:%s%s", gap, f.Name)
	p.labels(" - ", f.Labels)
	if kind == "secret" {
		p.line("Driver:            %s", f.driver)
	}
	p.line("Created at:%s%s", at, strings.ToLower(f.CreatedAt.String()))
	p.line("Updated at:%s%s", at, strings.ToLower(f.UpdatedAt.String()))
	if kind == "config" {
		p.line("Data:\n%s", f.data)
	}
	return p.flush(w)
}

func (s *session) fileRemove(ctx context.Context, n fileNoun, in input) error {
	var failed []error
	for _, name := range in.args {
		if err := n.remove(ctx, name); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(s.out, name)
	}
	return errors.Join(failed...)
}

func fileFlags(kind string) flags.Set {
	return flags.Set{
		flags.Many("label", "l", "list", format.Title(kind)+" labels", spec.ParseLabel),
		flags.Text("template-driver", "", "Template driver"),
	}
}
