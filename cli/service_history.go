package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/api"
	"shoal/internal/compose"
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
	if err := historyTable(revisions, in.Bool("no-trunc")).Write(s.out, in.Text("format")); err != nil || in.Changed("format") {
		return err
	}
	return s.unlisted(ctx, in.args[0])
}

// unlisted tells of changes that make no revision, such as scaling, and that a rollback takes back all the same, as
// Docker's does.
func (s *session) unlisted(ctx context.Context, name string) error {
	client, err := s.api()
	if err != nil {
		return err
	}
	service, _, err := client.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	if err != nil || service.PreviousSpec == nil {
		return err
	}
	previous := *service.PreviousSpec
	previous.Labels = api.KeepStopped(previous.Labels, service.Spec.Labels) // a rollback neither stops nor starts
	var changes []string
	for _, d := range compose.Differences(previous, service.Spec) {
		if !d.Replaces() && !d.Moves() {
			changes = append(changes, "  "+d.String())
		}
	}
	if len(changes) > 0 {
		fmt.Fprintf(s.err, "\nReplicas, labels and settings make no revision, and 'shoal service rollback %s' takes back their last change, too:\n%s\n", service.Spec.Name, strings.Join(changes, "\n"))
	}
	return nil
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
