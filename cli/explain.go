package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/docker/docker/pkg/stringid"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/api"
)

func (s *session) explainCommand() leaf {
	return leaf{
		name: "explain", args: "SERVICE|TASK", usage: "Say why tasks do not run, and of each node why not there",
		flags: flags.Set{flags.Text("format", "f", format.InspectUsage)}, arity: one, run: s.whyNot,
	}
}

func (s *session) whyNot(ctx context.Context, in input) error {
	var e api.Explanation
	if err := s.ask(ctx, http.MethodGet, "/shoal/explain/"+url.PathEscape(in.args[0]), nil, &e); err != nil {
		return err
	}
	if in.Changed("format") {
		return format.Inspect(s.out, in.args, in.Text("format"), func(string) (format.Object, error) {
			return format.Object{Value: e}, nil
		})
	}
	return explanation(e).flush(s.out)
}

func explanation(e api.Explanation) *page {
	var p page
	switch { // that nothing is missing comes before whatever else there is to say
	case len(e.Tasks) == 0 && e.Running == 0:
		p.line("%s: no task is wanted now", e.Name)
	case len(e.Tasks) == 0 && e.Outdated > 0:
		p.line("%s: all of its tasks run (%d), %d of them not of its present revision", e.Name, e.Running, e.Outdated)
	case len(e.Tasks) == 0:
		p.line("%s: all of its tasks run (%d)", e.Name, e.Running)
	}
	for _, note := range e.Notes {
		p.line("%s", note)
	}
	for _, t := range e.Tasks {
		on := ""
		if t.Node != "" {
			on = " on " + t.Node
		}
		why := ""
		if t.Why != "" {
			why = ": " + t.Why
		}
		p.line("%s (%s) %s%s%s", t.Name, stringid.TruncateID(t.ID), t.State, on, why)
	}
	if len(e.Nodes) == 0 {
		return &p
	}
	p.line("")
	p.line("Would a node take one more task?")
	for _, n := range e.Nodes {
		verdict := "yes"
		if n.Why != "" {
			verdict = "no: " + n.Why
		}
		has := ""
		if n.Tasks > 0 {
			has = fmt.Sprintf(" (has %d)", n.Tasks)
		}
		p.line("  %s%s  %s", n.Hostname, has, verdict)
	}
	return &p
}
