package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

// Placeholders are what a service's spec may refer to, as {{.Service.Name}} and
// so on. The names are Docker Swarm's; Node.Labels is an addition.
type Placeholders struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     struct{ Architecture, OS string }
		Labels       map[string]string
	}
	Task struct{ ID, Name, Slot string }
}

// PlaceholdersOf gives the values for a task with a given spec. The node may be
// unknown.
func PlaceholdersOf(spec *swarm.ServiceSpec, t *Task, n *Node) *Placeholders {
	v := &Placeholders{}
	v.Service.ID, v.Service.Name, v.Service.Labels = t.ServiceID, spec.Name, spec.Labels
	v.Node.ID = t.NodeID
	if n != nil {
		v.Node.Hostname, v.Node.Labels = n.Description.Hostname, n.Spec.Labels
		v.Node.Platform.Architecture, v.Node.Platform.OS = n.Description.Platform.Architecture, n.Description.Platform.OS
	}
	v.Task.ID, v.Task.Name = t.ID, TaskName(spec.Name, t)
	// A task that is tied to its node rather than to a slot is counted by it.
	v.Task.Slot = t.NodeID
	if t.Slot != 0 {
		v.Task.Slot = strconv.Itoa(t.Slot)
	}
	return v
}

// Hostname fills in the placeholders of a container's hostname alone.
func (p *Placeholders) Hostname(text string) (string, error) {
	x := filler{values: p, missing: "missingkey=error"}
	return x.text("hostname", text), x.err
}

// Fill gives a copy of a container's spec with its placeholders filled in. They
// may be in the hostname, in the values of the environment and in mounts. A
// label that does not exist is an error. Errors name what is wrong but repeat
// none of it, as values are often secrets.
func (p *Placeholders) Fill(c *swarm.ContainerSpec) (*swarm.ContainerSpec, error) {
	x := filler{values: p, missing: "missingkey=error"}
	return x.fill(c), x.err
}

// CheckPlaceholders tells whether a spec's placeholders can be filled in at
// all. Which labels there are is known only where the task is made.
func CheckPlaceholders(c *swarm.ContainerSpec) error {
	// As long as they can be, so that taking a part of one succeeds.
	id, name := strings.Repeat("x", idLen), strings.Repeat("x", 63)
	p := &Placeholders{}
	p.Service.ID, p.Service.Name = id, name
	p.Node.ID, p.Node.Hostname, p.Node.Platform.Architecture, p.Node.Platform.OS = id, name, "amd64", "linux"
	p.Task.ID, p.Task.Name, p.Task.Slot = id, name+".1."+id, "1"
	x := filler{values: p, missing: "missingkey=zero"}
	x.fill(c)
	return x.err
}

// filler fills in placeholders. The first failure stays in err.
type filler struct {
	values  *Placeholders
	missing string // template option for labels that do not exist
	err     error
}

func (x *filler) fill(in *swarm.ContainerSpec) *swarm.ContainerSpec {
	c := *in
	c.Hostname = x.text("hostname", c.Hostname)
	c.Env = x.environment(c.Env)
	c.Mounts = x.mounts(c.Mounts)
	return &c
}

// functions are those that placeholders may use.
var functions = template.FuncMap{
	"join": func(sep string, parts ...string) string { return strings.Join(parts, sep) },
}

// text fills in the placeholders of one value; what names it in an error.
func (x *filler) text(what, text string) string {
	if !strings.Contains(text, "{{") {
		return text
	}
	t, err := template.New("").Funcs(functions).Option(x.missing).Parse(text)
	if err != nil {
		x.fail(what, "malformed placeholder") // the error quotes the text
		return ""
	}
	var b strings.Builder
	if err := t.Execute(&b, x.values); err != nil {
		var exec template.ExecError
		if errors.As(err, &exec) {
			err = exec.Err
		}
		x.fail(what, err.Error())
	}
	return b.String()
}

func (x *filler) fail(what, why string) {
	if x.err == nil {
		x.err = fmt.Errorf("%s: %s", what, why)
	}
}

// environment fills in the values, never the names.
func (x *filler) environment(env []string) []string {
	out := make([]string, len(env))
	for i, e := range env {
		name, value, ok := strings.Cut(e, "=")
		if out[i] = e; ok {
			out[i] = name + "=" + x.text("environment variable "+name, value)
		}
	}
	return out
}

func (x *filler) mounts(ms []mount.Mount) []mount.Mount {
	out := slices.Clone(ms)
	for i := range out {
		m := &out[i]
		what := "mount " + m.Target
		m.Source, m.Target = x.text(what, m.Source), x.text(what, m.Target)
		if m.VolumeOptions == nil {
			continue
		}
		v := *m.VolumeOptions
		v.Labels = x.all(what, v.Labels)
		if v.DriverConfig != nil {
			v.DriverConfig = &mount.Driver{Name: v.DriverConfig.Name, Options: x.all(what, v.DriverConfig.Options)}
		}
		m.VolumeOptions = &v
	}
	return out
}

func (x *filler) all(what string, m map[string]string) map[string]string {
	m = maps.Clone(m)
	for k, v := range m {
		m[k] = x.text(what, v)
	}
	return m
}
