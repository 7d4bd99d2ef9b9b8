package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
	"shoal/service/scheduler"
)

// Explain says why a service's tasks, or a task, do not run, and of each node
// whether it would take one more.
func (c *Control) Explain(ref string) (api.Explanation, error) {
	v := c.View()
	s, err := findService(v, ref)
	if err == nil {
		return explainService(v, s)
	}
	if !errdefs.IsNotFound(err) {
		return api.Explanation{}, err
	}
	t, err := findTask(v, ref)
	if errdefs.IsNotFound(err) {
		return api.Explanation{}, errdefs.ErrNotFound.WithMessage("no service or task " + ref)
	}
	if err != nil {
		return api.Explanation{}, err
	}
	return explainTask(v, t)
}

func explainService(v *store.View, s *api.Service) (api.Explanation, error) {
	e := api.Explanation{Name: s.Spec.Name, Notes: append(serviceNotes(s), placementNotes(v, s)...)}
	var waiting []*api.Task
	for t := range v.Tasks.By(store.ByService, s.ID) {
		switch {
		case !scheduler.Wanted(t) || t.Status.State == swarm.TaskStateComplete && t.Iteration != nil:
		case t.Status.State == swarm.TaskStateRunning:
			e.Running++
			if t.Revision != s.Revision {
				e.Outdated++
			}
		default:
			waiting = append(waiting, t)
		}
	}
	slices.SortFunc(waiting, func(a, b *api.Task) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Home, b.Home), a.CreatedAt.Compare(b.CreatedAt))
	})
	for _, t := range waiting {
		e.Tasks = append(e.Tasks, taskReason(v, t))
	}
	var err error
	e.Nodes, err = verdicts(v, s.ID, s.Revision)
	return e, err
}

func explainTask(v *store.View, t *api.Task) (api.Explanation, error) {
	e := api.Explanation{Tasks: []api.TaskReason{taskReason(v, t)}}
	if s, ok := v.Services.Get(t.ServiceID); ok {
		e.Name, e.Notes = s.Spec.Name, serviceNotes(s)
	}
	if t.NodeID != "" || !scheduler.Wanted(t) {
		return e, nil // it had its node
	}
	var err error
	e.Nodes, err = verdicts(v, t.ServiceID, t.Revision)
	if t.Home != "" { // no other node is asked
		e.Nodes = slices.DeleteFunc(e.Nodes, func(n api.NodeVerdict) bool { return n.ID != t.Home })
	}
	return e, err
}

func serviceNotes(s *api.Service) (notes []string) {
	if s.Settings().Stopped {
		notes = append(notes, fmt.Sprintf("the service is stopped: 'shoal service start %s' starts it", s.Spec.Name))
	}
	if st := s.UpdateStatus; st != nil && st.State != swarm.UpdateStateCompleted && st.State != swarm.UpdateStateRollbackCompleted {
		note := fmt.Sprintf("%s: %s", strings.ReplaceAll(string(st.State), "_", " "), st.Message)
		switch st.State {
		case swarm.UpdateStatePaused:
			note += fmt.Sprintf("; go on with 'shoal service update %[1]s', or back with 'shoal service rollback %[1]s'", s.Spec.Name)
		case swarm.UpdateStateRollbackPaused:
			note += fmt.Sprintf("; go on with 'shoal service update %s'", s.Spec.Name)
		}
		notes = append(notes, note)
	}
	return notes
}

// placementNotes tells of tasks that are where they would not be put now. A service
// that was rolled back, or whose nodes came back, is often that lopsided.
func placementNotes(v *store.View, s *api.Service) []string {
	n := len(service.Balance(v, []*api.Service{s}))
	if n == 0 {
		return nil
	}
	tasks := "tasks"
	if n == 1 {
		tasks = "task"
	}
	return []string{fmt.Sprintf("%d %s would be on other nodes if placed now: what runs is never moved by itself, 'shoal rebalance %s' moves it", n, tasks, s.Spec.Name)}
}

func taskReason(v *store.View, t *api.Task) api.TaskReason {
	r := api.TaskReason{ID: t.ID, Name: strings.TrimSuffix(taskName(v, t), "."+t.ID), State: string(t.Status.State), Why: t.Status.Err}
	if r.Why == "" {
		r.Why = t.Status.Message
	}
	if no := notAgain(v, t); no != "" {
		r.Why += "; not tried again: " + no
	}
	if n, ok := v.Nodes.Get(nodeOf(t)); ok {
		r.Node = n.Description.Hostname
	}
	return r
}

// notAgain is why a task that ended, and that is still what its slot has, was not
// replaced: nothing but its restart policy keeps it so.
func notAgain(v *store.View, t *api.Task) string {
	r, ok := v.Revisions.Get(t.Revision)
	if !ok || !api.Terminal(t.Status.State) || !scheduler.Wanted(t) {
		return ""
	}
	policy := r.Spec.TaskTemplate.RestartPolicy
	switch {
	case policy == nil:
		return ""
	case policy.Condition == swarm.RestartPolicyConditionNone,
		policy.Condition == swarm.RestartPolicyConditionOnFailure && t.Status.State == swarm.TaskStateComplete:
		return fmt.Sprintf("its restart condition is %s", policy.Condition)
	case policy.MaxAttempts != nil && uint64(t.Attempts) >= *policy.MaxAttempts && *policy.MaxAttempts == 1:
		return "1 attempt is allowed"
	case policy.MaxAttempts != nil && *policy.MaxAttempts > 0 && uint64(t.Attempts) >= *policy.MaxAttempts:
		return fmt.Sprintf("%d attempts are allowed", *policy.MaxAttempts)
	}
	return ""
}

func verdicts(v *store.View, serviceID, revision string) ([]api.NodeVerdict, error) {
	r, ok := v.Revisions.Get(revision)
	if !ok {
		return nil, nil
	}
	all, err := service.Explain(v, r)
	if err != nil {
		return nil, err
	}
	tasks := map[string]int{}
	for t := range v.Tasks.By(store.ByService, serviceID) {
		if scheduler.Wanted(t) && !api.Terminal(t.Status.State) {
			tasks[t.NodeID]++
		}
	}
	var out []api.NodeVerdict
	for _, verdict := range all {
		n, ok := v.Nodes.Get(verdict.NodeID)
		if !ok {
			continue
		}
		out = append(out, api.NodeVerdict{ID: n.ID, Hostname: n.Description.Hostname, Why: verdict.Why, Tasks: tasks[n.ID]})
	}
	slices.SortStableFunc(out, func(a, b api.NodeVerdict) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return out, nil
}
