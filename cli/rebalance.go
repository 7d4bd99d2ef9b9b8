package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/docker/client"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/api"
)

func (s *session) rebalanceCommand() leaf {
	return leaf{
		name: "rebalance", args: "[SERVICE...]", usage: "Move tasks to nodes that have room for them, one starting before the other stops",
		arity: anyNumber, run: s.rebalance,
		flags: flags.Set{
			flags.Bool("detach", "d", "Exit immediately instead of waiting for the tasks to have moved"),
			flags.Bool("dry-run", "", "Only say which tasks would move"),
			flags.Text("format", "", format.Usage),
		},
	}
}

func (s *session) rebalance(ctx context.Context, in input) error {
	query := url.Values{"service": in.args}
	if in.Bool("dry-run") {
		query.Set("dryRun", "true")
	}
	var plan api.Rebalance
	if err := s.ask(ctx, http.MethodPost, "/shoal/rebalance?"+query.Encode(), nil, &plan); err != nil {
		return err
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(s.err, note)
	}
	if len(plan.Moves) == 0 && !in.Changed("format") {
		fmt.Fprintln(s.out, "Nothing to move: the tasks are spread as they would be placed now.")
		return nil
	}
	if err := moveTable(plan.Moves).Write(s.out, in.Text("format")); err != nil || in.Bool("dry-run") || in.Bool("detach") {
		return err
	}
	return s.waitMoved(ctx, plan.Moves)
}

func moveTable(moves []api.Move) format.Table {
	t := format.Table{
		Headers: map[string]string{"ID": "ID", "Name": "NAME", "From": "FROM", "To": "TO"},
		Default: "{{.ID}}\t{{.Name}}\t{{.From}}\t{{.To}}",
	}
	for _, m := range moves {
		t.Rows = append(t.Rows, format.Row{"ID": m.Task, "Name": m.Name, "From": m.From, "To": m.To})
	}
	return t
}

// waitMoved waits until none of the tasks is on its way any more, or the user
// stops watching.
func (s *session) waitMoved(ctx context.Context, moves []api.Move) error {
	ours := map[string]bool{}
	for _, m := range moves {
		ours[m.Task] = true
	}
	left, answered := -1, time.Now()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		var now api.Rebalance
		err := s.ask(ctx, http.MethodGet, "/shoal/rebalance", nil, &now)
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(s.out, "Tasks go on moving in the background.")
			return nil
		case client.IsErrConnectionFailed(err) && time.Since(answered) < unreachableFor:
		case err != nil:
			return err
		default:
			answered = time.Now()
			n := 0
			for _, m := range now.Moves {
				if ours[m.Task] {
					n++
				}
			}
			if n != left {
				left = n
				fmt.Fprintf(s.out, "%d of %d moved\n", len(ours)-left, len(ours))
			}
			if left == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}
