package control

import (
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// LogSource is a task that has, or had, a container that may have written
// something.
type LogSource struct {
	TaskID    string
	NodeID    string
	ServiceID string
	Hostname  string // of the node; its ID if the node is gone
	TTY       bool
	Down      bool // the node is not READY: it will hardly answer
	Ended     bool // nothing more will come
}

// LogSources lists the sources of a service, in order of task ID, and tells
// whether the service still exists.
func (c *Control) LogSources(serviceID string) (sources []LogSource, exists bool) {
	v := c.View()
	for t := range v.Tasks.By(store.ByService, serviceID) {
		if s, ok := logSource(v, t); ok {
			sources = append(sources, s)
		}
	}
	_, exists = v.Services.Get(serviceID)
	return sources, exists
}

// LogSource finds the source that one task is. The source is not ready if the
// task has no container so far.
func (c *Control) LogSource(ref string) (s LogSource, ready bool, err error) {
	v := c.View()
	t, err := findTask(v, ref)
	if err != nil {
		return LogSource{}, false, err
	}
	s, ready = logSource(v, t)
	return s, ready, nil
}

func logSource(v *store.View, t *api.Task) (LogSource, bool) {
	s := LogSource{TaskID: t.ID, NodeID: t.NodeID, ServiceID: t.ServiceID, Hostname: t.NodeID}
	if n, ok := v.Nodes.Get(t.NodeID); ok {
		s.Hostname, s.Down = n.Description.Hostname, n.Status.State != swarm.NodeStateReady
	}
	s.Ended = api.Terminal(t.Status.State)
	if r, ok := v.Revisions.Get(t.Revision); ok && r.Spec.TaskTemplate.ContainerSpec != nil {
		s.TTY = r.Spec.TaskTemplate.ContainerSpec.TTY
	}
	created := t.Status.ContainerStatus != nil && t.Status.ContainerStatus.ContainerID != ""
	return s, t.NodeID != "" && (created || t.Status.State == swarm.TaskStateRunning)
}
