package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/progress"
)

const (
	// pollEvery is short enough for the display to feel alive and long enough to be no load on a manager.
	pollEvery = 100 * time.Millisecond
	// nodesEvery is rarer: nodes are many, and only whether they are down matters.
	nodesEvery = 2 * time.Second
	// unreachableFor is how long the daemon may be away (being restarted, say) before waiting is given up.
	unreachableFor = 15 * time.Second
)

// wait shows a service's progress until it has converged, or the user stops watching.
func (s *session) wait(ctx context.Context, id, name string, quiet bool) error {
	out := s.out
	if quiet {
		out = io.Discard
	}
	display, watch := progress.NewDisplay(out), progress.NewWatch(name)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var (
		nodes    map[string]bool
		nodesAt  time.Time
		answered = time.Now()
	)
	for {
		if time.Since(nodesAt) >= nodesEvery {
			if down, err := s.downNodes(ctx); err == nil {
				nodes, nodesAt = down, time.Now()
			}
		}
		seen, err := s.observe(ctx, id)
		switch {
		case ctx.Err() != nil:
			return s.stoppedWaiting(watch, id, quiet)
		case client.IsErrConnectionFailed(err) && time.Since(answered) < unreachableFor:
		case err != nil:
			return err
		default:
			answered = time.Now()
			seen.Down = nodes
			frame, done, result := watch.Observe(seen, answered)
			if err := display.Show(frame); err != nil {
				return fmt.Errorf("show progress: %w", err)
			}
			if done {
				return result
			}
		}
		select {
		case <-ctx.Done():
			return s.stoppedWaiting(watch, id, quiet)
		case <-poll.C:
		}
	}
}

// stoppedWaiting is not a failure: the service goes on to become what was asked.
func (s *session) stoppedWaiting(watch *progress.Watch, id string, quiet bool) error {
	if !watch.Converged() && !quiet {
		fmt.Fprintf(s.out, "Operation continuing in background.\nUse `shoal service ps %s` to check progress.\n", id)
	}
	return nil
}

func (s *session) observe(ctx context.Context, id string) (progress.Observation, error) {
	service, _, err := s.conn.ServiceInspectWithRaw(ctx, id, swarm.ServiceInspectOptions{})
	if err != nil {
		return progress.Observation{}, err
	}
	tasks, err := s.conn.TaskList(ctx, swarm.TaskListOptions{
		Filters: filters.NewArgs(filters.Arg("service", service.ID), filters.Arg("_up-to-date", "true")),
	})
	return progress.Observation{Service: service, Tasks: tasks}, err
}

func (s *session) downNodes(ctx context.Context) (map[string]bool, error) {
	nodes, err := s.conn.NodeList(ctx, swarm.NodeListOptions{})
	down := map[string]bool{}
	for _, n := range nodes {
		if n.Status.State == swarm.NodeStateDown {
			down[n.ID] = true
		}
	}
	return down, err
}
