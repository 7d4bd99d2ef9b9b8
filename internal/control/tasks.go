package control

import (
	"strings"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Tasks lists the tasks that fit the filters. Services and nodes are named as
// everywhere; one that does not exist is an error.
func (c *Control) Tasks(f filters.Args) ([]swarm.Task, error) {
	if err := accept(f, "name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"); err != nil {
		return nil, err
	}
	for _, s := range f.Get("desired-state") {
		if s != "" && !isTaskState(s) {
			return nil, invalid("Invalid desired-state filter: '%s': must be a task's state, such as running or shutdown", s)
		}
	}
	v := c.View()
	services, nodes := map[string]bool{}, map[string]bool{}
	for _, ref := range f.Get("service") {
		s, err := findService(v, ref)
		if err != nil {
			return nil, err
		}
		services[s.ID] = true
	}
	for _, ref := range f.Get("node") {
		n, err := findNode(v, ref)
		if err != nil {
			return nil, err
		}
		nodes[n.ID] = true
	}

	tasks := []swarm.Task{}
	add := func(t *api.Task) {
		if !forgotten(v, t) && (len(nodes) == 0 || nodes[nodeOf(t)]) && taskFits(v, t, f) {
			tasks = append(tasks, dockerTask(v, t))
		}
	}
	if len(services) == 0 {
		for t := range v.Tasks.All() {
			add(t)
		}
		return tasks, nil
	}
	for id := range services {
		for t := range v.Tasks.By(store.ByService, id) {
			add(t)
		}
	}
	return tasks, nil
}

// forgotten tells whether a task was removed, and is remembered only because its
// node, which is DOWN, may run it still.
func forgotten(v *store.View, t *api.Task) bool {
	n, ok := v.Nodes.Get(t.NodeID)
	return t.DesiredState == swarm.TaskStateRemove && ok && n.Status.State == swarm.NodeStateDown
}

func taskFits(v *store.View, t *api.Task, f filters.Args) bool {
	return prefix(f, "id", t.ID) &&
		prefix(f, "name", taskName(v, t)) &&
		anyOf(f, "desired-state", func(s string) bool { return strings.EqualFold(s, string(desiredState(t))) }) &&
		anyOf(f, "runtime", func(r string) bool { return r == "" || r == string(swarm.RuntimeContainer) }) &&
		labelled(f, "label", taskLabels(v, t)) &&
		(len(f.Get("_up-to-date")) == 0 || upToDate(v, t))
}

// upToDate tells whether a task runs what its service wants now.
func upToDate(v *store.View, t *api.Task) bool {
	s, ok := v.Services.Get(t.ServiceID)
	return ok && s.Revision == t.Revision && (t.Iteration == nil || inRun(s, t))
}

// Task returns one task by ID, name or beginning of the ID.
func (c *Control) Task(ref string) (swarm.Task, error) {
	v := c.View()
	t, err := findTask(v, ref)
	if err != nil {
		return swarm.Task{}, err
	}
	return dockerTask(v, t), nil
}

// taskName takes the service's name from the task's revision once the service
// itself is gone.
func taskName(v *store.View, t *api.Task) string {
	if s, ok := v.Services.Get(t.ServiceID); ok {
		return api.TaskName(s.Spec.Name, t)
	}
	if r, ok := v.Revisions.Get(t.Revision); ok {
		return api.TaskName(r.Spec.Name, t)
	}
	return api.TaskName(t.ServiceID, t)
}

func taskLabels(v *store.View, t *api.Task) map[string]string {
	if s, ok := v.Services.Get(t.ServiceID); ok {
		return s.Spec.Labels
	}
	if r, ok := v.Revisions.Get(t.Revision); ok {
		return r.Spec.Labels
	}
	return nil
}

func isTaskState(s string) bool {
	switch swarm.TaskState(strings.ToLower(s)) {
	case swarm.TaskStateNew, swarm.TaskStateAllocated, swarm.TaskStatePending, swarm.TaskStateAssigned,
		swarm.TaskStateAccepted, swarm.TaskStatePreparing, swarm.TaskStateReady, swarm.TaskStateStarting,
		swarm.TaskStateRunning, swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed,
		swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	}
	return false
}
