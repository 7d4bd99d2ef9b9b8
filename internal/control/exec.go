package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// RunningTask finds the task that a user wants to look into: by ID, beginning of
// the ID or container name as everywhere, by its slot (web.2, or web.NODE where
// tasks are tied to nodes), or by the service alone if only one task of it runs.
// A replacement that is not up yet does not take the place of what runs.
func (c *Control) RunningTask(ref string) (*api.Task, error) {
	v := c.View()
	if s, err := findService(v, ref); err == nil && s.Spec.Name == ref {
		return onlyTask(v, s)
	}
	if name, slot, ok := cutLast(ref, "."); ok {
		if s, err := findService(v, name); err == nil && s.Spec.Name == name {
			if found := inSlot(v, s, slot); len(found) > 0 {
				return running(v, ref, found)
			}
		}
	}
	t, err := findTask(v, ref)
	if err != nil {
		return nil, err
	}
	return running(v, ref, []*api.Task{t})
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// inSlot lists the tasks of a slot, or of a node by its name or ID.
func inSlot(v *store.View, s *api.Service, slot string) []*api.Task {
	var found []*api.Task
	for t := range v.Tasks.By(store.ByService, s.ID) {
		here := t.Slot != 0 && strconv.Itoa(t.Slot) == slot
		if t.Slot == 0 && t.NodeID != "" {
			n, ok := v.Nodes.Get(t.NodeID)
			here = t.NodeID == slot || ok && n.Description.Hostname == slot
		}
		if here {
			found = append(found, t)
		}
	}
	return found
}

// running picks the newest of some tasks that runs, or says what they do instead.
func running(v *store.View, ref string, tasks []*api.Task) (*api.Task, error) {
	slices.SortFunc(tasks, func(a, b *api.Task) int { return b.CreatedAt.Compare(a.CreatedAt) })
	if i := slices.IndexFunc(tasks, runs); i >= 0 {
		return tasks[i], nil
	}
	why := fmt.Sprintf("task %s is not running: it is %s", taskName(v, tasks[0]), tasks[0].Status.State)
	if err := tasks[0].Status.Err; err != "" {
		why += ": " + err
	}
	return nil, errdefs.ErrConflict.WithMessage(why)
}

func runs(t *api.Task) bool { return t.Status.State == swarm.TaskStateRunning && t.NodeID != "" }

func onlyTask(v *store.View, s *api.Service) (*api.Task, error) {
	var up []*api.Task
	var names []string
	for t := range v.Tasks.By(store.ByService, s.ID) {
		// One that is about to stop is not what anybody means.
		if runs(t) && api.Before(t.DesiredState, swarm.TaskStateShutdown) {
			up = append(up, t)
			names = append(names, api.SlotName(s.Spec.Name, t))
		}
	}
	switch len(up) {
	case 1:
		return up[0], nil
	case 0:
		return nil, errdefs.ErrConflict.WithMessage("no task of service " + s.Spec.Name + " is running")
	}
	slices.Sort(names)
	const some = 10
	if len(names) > some {
		names = append(names[:some], "...")
	}
	return nil, invalid("service %s has %d running tasks: name one of %s", s.Spec.Name, len(up), strings.Join(names, ", "))
}
