package control

import (
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// serviceStatus counts tasks. One on a node that is down does not count as
// running, whatever was last heard of it. What is desired is counted the way
// Docker does: of a job, how many may run at once.
func serviceStatus(v *store.View, s *api.Service) *swarm.ServiceStatus {
	status, mode := &swarm.ServiceStatus{}, s.Spec.Mode
	homes := map[string]bool{} // nodes that a task is wanted on
	type place struct {
		slot int
		home string
	}
	done := map[place]bool{}
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if api.Job(mode) && !inRun(s, t) {
			continue
		}
		switch t.Status.State {
		case swarm.TaskStateRunning:
			if n, ok := v.Nodes.Get(t.NodeID); ok && n.Status.State != swarm.NodeStateDown {
				status.RunningTasks++
			}
		case swarm.TaskStateComplete:
			if api.Job(mode) {
				// One that its node was cut off with may complete beside its
				// successor.
				done[place{t.Slot, t.Home}] = true
				continue
			}
		}
		if t.DesiredState == swarm.TaskStateRunning || t.DesiredState == swarm.TaskStateReady {
			homes[t.Home] = true
		}
	}
	status.CompletedTasks = uint64(len(done))
	switch {
	case s.Settings().Stopped:
	case mode.Replicated != nil && mode.Replicated.Replicas != nil:
		status.DesiredTasks = *mode.Replicated.Replicas
	case mode.ReplicatedJob != nil:
		_, status.DesiredTasks = api.JobSize(mode)
	case api.Global(mode):
		status.DesiredTasks = uint64(len(homes))
	}
	return status
}

// inRun tells whether a task belongs to the present run of its job.
func inRun(s *api.Service, t *api.Task) bool {
	return t.Iteration != nil && s.JobStatus != nil && *t.Iteration == s.JobStatus.JobIteration.Index
}

// nextRun begins another run of a job; it is nil for what is no job.
func nextRun(s *api.Service, now time.Time) *swarm.JobStatus {
	if s.JobStatus == nil {
		return nil
	}
	return &swarm.JobStatus{
		JobIteration:  swarm.Version{Index: s.JobStatus.JobIteration.Index + 1},
		LastExecution: now.UTC(),
	}
}

// sameButStopped tells whether two specs differ in nothing but whether the
// service is stopped, and do differ in that.
func sameButStopped(a, b *swarm.ServiceSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = api.SetStopped(x.Labels, false), api.SetStopped(y.Labels, false)
	return sameJSON(x, y) && !sameJSON(a, b)
}
