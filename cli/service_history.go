package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/api"
)

func (s *session) historyCommand() leaf {
	return leaf{
		name: "history", args: "SERVICE", usage: "List the revisions of a service, and what each changed", arity: one, run: s.serviceHistory,
		flags: flags.Set{
			flags.Text("format", "", format.Usage),
			flags.Bool("no-trunc", "", "Do not truncate output"),
		},
	}
}

func (s *session) serviceHistory(ctx context.Context, in input) error {
	var revisions []api.RevisionSummary
	if err := s.ask(ctx, http.MethodGet, "/shoal/services/"+url.PathEscape(in.args[0])+"/history", nil, &revisions); err != nil {
		return err
	}
	return historyTable(revisions, in.Bool("no-trunc")).Write(s.out, in.Text("format"))
}

func historyTable(revisions []api.RevisionSummary, full bool) format.Table {
	t := format.Table{
		Headers: map[string]string{
			"Revision": "REVISION", "Name": "NAME", "Created": "CREATED", "Tasks": "RUNNING", "From": "FROM",
			"Image": "IMAGE", "Changes": "CHANGES", "Current": "CURRENT", "Mark": "",
		},
		Default: "{{.Revision}}{{.Mark}}\t{{.Name}}\t{{.Created}}\t{{.Tasks}}\t{{.Changes}}",
	}
	for _, r := range revisions {
		changes, from := strings.Join(r.Changes, ", "), fmt.Sprint(r.From)
		switch {
		case r.From == 0:
			changes, from = "created with image "+r.Image, ""
		case changes == "":
			changes = "nothing that shows"
		}
		image := r.Image
		if !full {
			changes, image = shorten(withoutDigests(changes), 80), withoutDigest(image)
		}
		if r.From != 0 && r.From != r.Number-1 {
			changes = fmt.Sprintf("(from %d) %s", r.From, changes)
		}
		mark := ""
		if r.Current {
			mark = " *"
		}
		t.Rows = append(t.Rows, format.Row{
			"Revision": r.Number, "Name": r.Name, "Current": r.Current, "Mark": mark, "From": from, "Image": image, "Changes": changes,
			"Created": units.HumanDuration(time.Since(r.CreatedAt)) + " ago", "Tasks": r.Tasks,
		})
	}
	return t
}

// withoutDigests shortens the images in a text that have both a tag and a digest.
func withoutDigests(text string) string {
	words := strings.Split(text, " ")
	for i, w := range words {
		if at := strings.Index(w, "@sha256:"); at > 0 && strings.Contains(w[strings.LastIndex(w[:at], "/")+1:at], ":") {
			words[i] = w[:at] + strings.TrimLeft(w[at+len("@sha256:"):], "0123456789abcdef")
		}
	}
	return strings.Join(words, " ")
}
