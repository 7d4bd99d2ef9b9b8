package session

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// addFiles gives a node the secrets and configs of a task that it is to run, and
// only for as long as it is to. A file and its data travel apart: a frame holds
// one object.
func addFiles(s *api.NodeState, v *store.View, t *api.Task, r *api.Revision) {
	if api.Terminal(t.Status.State) || !api.Before(t.DesiredState, swarm.TaskStateShutdown) {
		return
	}
	secrets, configs := api.FileIDs(r.Spec.TaskTemplate.ContainerSpec)
	add := func(table *store.Table[*api.File], ids []string) {
		for _, id := range ids {
			f, ok := table.Get(id)
			if !ok {
				continue // the node says what its task lacks
			}
			s.Files[id] = f
			for _, id := range f.Pieces {
				if p, ok := v.Pieces.Get(id); ok {
					s.Pieces[id] = p
				}
			}
		}
	}
	add(v.Secrets, secrets)
	add(v.Configs, configs)
}

// diffFiles goes before the tasks that use what is new.
func diffFiles(out []down, old, next *api.NodeState) []down {
	for id, p := range next.Pieces {
		if old.Pieces[id] == nil {
			out = append(out, down{Piece: p})
		}
	}
	for id, f := range next.Files {
		if o := old.Files[id]; o == nil || o.Version != f.Version {
			out = append(out, down{File: f})
		}
	}
	return out
}

// filesGone goes after the tasks that used what is gone.
func filesGone(out []down, old, next *api.NodeState) []down {
	for id := range old.Files {
		if next.Files[id] == nil {
			out = append(out, down{FileGone: id})
		}
	}
	for id := range old.Pieces {
		if next.Pieces[id] == nil {
			out = append(out, down{PieceGone: id})
		}
	}
	return out
}
