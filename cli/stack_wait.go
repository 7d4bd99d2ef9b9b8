package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/client"

	"shoal/cli/progress"
	"shoal/internal/compose"
)

const (
	exitFailed      = 1
	exitRolledBack  = 2
	exitUnplaceable = 3
	exitTimedOut    = 4
)

// stackWatch brings the services of a stack to the cluster, each after those it depends on, and shows what becomes of
// them.
type stackWatch struct {
	*deployment
	quiet, detach bool
	timeout       time.Duration

	pending   []compose.Service
	followers []*follower
	nodes     map[string]bool
	nodesAt   time.Time
	answered  time.Time
	display   *progress.Display
	told      map[string]bool
}

func (w *stackWatch) run(ctx context.Context) error {
	order, err := w.stack.Order()
	if err != nil {
		return err
	}
	w.pending, w.answered, w.told = order, time.Now(), map[string]bool{}
	out := w.out
	if w.quiet || w.detach {
		out = io.Discard
	}
	w.display = progress.NewDisplay(out)
	var deadline <-chan time.Time
	if w.timeout > 0 {
		timer := time.NewTimer(w.timeout)
		defer timer.Stop()
		deadline = timer.C
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		if err := w.applyReady(ctx, out); err != nil {
			return err
		}
		if w.detach && len(w.pending) == 0 {
			return nil
		}
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if err := w.display.Show(combine(w.followers)); err != nil {
			return fmt.Errorf("show progress: %w", err)
		}
		if w.finished() {
			return w.report(ctx, false)
		}
		select {
		case <-ctx.Done():
			return w.interrupted()
		case <-deadline:
			return w.report(ctx, true)
		case <-poll.C:
		}
	}
}

// applyReady creates and updates the services whose dependencies are far enough.
func (w *stackWatch) applyReady(ctx context.Context, out io.Writer) error {
	for {
		i := slices.IndexFunc(w.pending, w.ready)
		if i < 0 {
			break
		}
		service := w.pending[i]
		w.pending = slices.Delete(w.pending, i, i+1)
		done, err := w.apply(ctx, service)
		if err != nil {
			return err
		}
		w.followers = append(w.followers, newFollower(service, done))
		w.display = progress.NewDisplay(out) // below what was just printed
	}
	for _, service := range w.pending {
		for _, d := range service.After {
			text := fmt.Sprintf("Service %s waits for %s: %s", service.Spec.Name, w.nameOf(d.Key), d.Condition)
			if !w.quiet && !w.told[text] && !w.satisfied(d) {
				w.told[text] = true
				fmt.Fprintln(w.out, text)
				w.display = progress.NewDisplay(out)
			}
		}
	}
	return nil
}

func (w *stackWatch) nameOf(key string) string { return w.stack.Name + "_" + key }

func (w *stackWatch) ready(service compose.Service) bool {
	return !slices.ContainsFunc(service.After, func(d compose.Dependency) bool { return !w.satisfied(d) })
}

func (w *stackWatch) satisfied(d compose.Dependency) bool {
	i := slices.IndexFunc(w.followers, func(f *follower) bool { return f.service.Key == d.Key })
	if i < 0 {
		return false
	}
	f := w.followers[i]
	if d.Optional && f.done {
		return true
	}
	switch d.Condition {
	case compose.Applied:
		return true
	case compose.Healthy:
		return f.met
	case compose.Completed:
		return f.done && f.code == 0
	}
	return f.started || f.met
}

// look observes every service about which something is still to be learnt.
func (w *stackWatch) look(ctx context.Context) error {
	if time.Since(w.nodesAt) >= nodesEvery {
		if down, err := w.downNodes(ctx); err == nil {
			w.nodes, w.nodesAt = down, time.Now()
		}
	}
	for _, f := range w.followers {
		if f.done {
			continue
		}
		seen, err := w.observe(ctx, f.id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case client.IsErrConnectionFailed(err) && time.Since(w.answered) < unreachableFor:
			return nil
		case err != nil:
			return err
		}
		w.answered = time.Now()
		seen.Down = w.nodes
		f.see(seen, w.answered)
	}
	return nil
}

// finished reports whether nothing more is to be waited for: every service has ended well or badly, and those that
// still wait do so for one that ended badly.
func (w *stackWatch) finished() bool {
	if slices.ContainsFunc(w.followers, func(f *follower) bool { return !f.done }) {
		return false
	}
	return !slices.ContainsFunc(w.pending, w.ready)
}

func (w *stackWatch) interrupted() error {
	if len(w.pending) > 0 {
		return exitError{exitFailed, "interrupted: not created or updated: " + strings.Join(w.waiting(), ", ")}
	}
	if !w.quiet {
		fmt.Fprintf(w.out, "Operation continuing in background.\nUse `shoal stack ps %s` to check progress.\n", w.stack.Name)
	}
	return nil
}

func (w *stackWatch) waiting() []string {
	var names []string
	for _, service := range w.pending {
		names = append(names, service.Spec.Name)
	}
	return names
}
