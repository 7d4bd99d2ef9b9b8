package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
)

// movesPerWrite is how many tasks one transaction marks; each is small.
const movesPerWrite = 500

// Rebalance moves tasks to nodes where they are better off, those of the services
// named or of all. A dry run only tells.
func (c *Control) Rebalance(ctx context.Context, refs []string, dryRun bool) (api.Rebalance, error) {
	v := c.View()
	var services []*api.Service
	for _, ref := range refs {
		s, err := findService(v, ref)
		if err != nil {
			return api.Rebalance{}, err
		}
		services = append(services, s)
	}
	if len(refs) == 0 {
		services = slices.Collect(v.Services.All())
	}
	slices.SortFunc(services, func(a, b *api.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	services = slices.Compact(services)

	out := api.Rebalance{Moves: []api.Move{}}
	for _, s := range services {
		if !service.Movable(s) && (len(refs) > 0 || s.Spec.Mode.Replicated != nil) {
			out.Notes = append(out.Notes, s.Spec.Name+" stays as it is: "+whyNotMovable(s))
		}
	}
	moves := service.Balance(v, services)
	for _, m := range moves {
		out.Moves = append(out.Moves, dockerMove(v, m.Task, m.To))
	}
	if dryRun {
		return out, nil
	}
	for part := range slices.Chunk(moves, movesPerWrite) {
		if err := c.update(ctx, func(tx *store.Tx) error {
			for _, m := range part {
				t, ok := tx.Tasks.Get(m.Task.ID)
				if !ok || t.DesiredState != swarm.TaskStateRunning || t.Leave {
					continue // it has gone another way meanwhile
				}
				t = api.Clone(t)
				t.Leave = true
				if err := tx.Put(t); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Moving lists the tasks that are still to move. Where they will go is not known.
func (c *Control) Moving() api.Rebalance {
	v := c.View()
	out := api.Rebalance{Moves: []api.Move{}}
	for t := range v.Tasks.All() {
		if t.Leave && t.DesiredState == swarm.TaskStateRunning && !api.Terminal(t.Status.State) {
			out.Moves = append(out.Moves, dockerMove(v, t, ""))
		}
	}
	return out
}

func dockerMove(v *store.View, t *api.Task, to string) api.Move {
	host := func(id string) string {
		if n, ok := v.Nodes.Get(id); ok {
			return n.Description.Hostname
		}
		return id
	}
	m := api.Move{Task: t.ID, Name: strings.TrimSuffix(taskName(v, t), "."+t.ID), From: host(t.NodeID)}
	if to != "" {
		m.To = host(to)
	}
	return m
}

func whyNotMovable(s *api.Service) string {
	switch {
	case s.Settings().Stopped:
		return "it is stopped"
	case s.Spec.Mode.Replicated == nil:
		return "only replicated services move, and it is " + modeNames(s.Spec.Mode)[0]
	case s.UpdateStatus != nil:
		return fmt.Sprintf("its update is %s", strings.ReplaceAll(string(s.UpdateStatus.State), "_", " "))
	}
	return "something else is going on"
}
