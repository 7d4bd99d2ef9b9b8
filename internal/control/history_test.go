package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

func (w *world) rollBackTo(id, to string) error {
	w.t.Helper()
	return w.UpdateService(w.t.Context(), id, Update{Version: w.service(id).Version, Rollback: true, To: to})
}

// TestHistoryAndBack: every revision can be gone back to, and what was decided
// apart from it stands.
func TestHistoryAndBack(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Env = []string{"TOKEN=s3cret", "A=1"}
		s.Labels = map[string]string{"shoal.revision": "first"}
	}))
	w.change(s.ID, func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Image = "nginx:2"
		s.TaskTemplate.ContainerSpec.Env = []string{"TOKEN=0ther", "B=1"}
		s.TaskTemplate.ContainerSpec.StopGracePeriod = new(time.Second)
		s.Labels = nil
	})
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
	w.change(s.ID, func(s *swarm.ServiceSpec) {
		s.Mode.Replicated.Replicas = new(uint64(7)) // no revision
		s.Labels = map[string]string{"team": "a"}
	})
	history := func() (out []string) {
		all, err := w.History("web")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			line := strings.Join(r.Changes, ", ")
			if r.Current {
				line += " *"
			}
			out = append(out, r.Name+"|"+line)
		}
		return out
	}
	first := w.service(s.ID)
	want := []string{"|restarted *", "|image nginx:1 -> nginx:2, -env A, +env B, env TOKEN, stop grace period", "first|"}
	got := history()
	got[1] = strings.Replace(got[1], s.Spec.TaskTemplate.ContainerSpec.Image, "nginx:1", 1)
	if !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
	wantError(t, w.rollBackTo(s.ID, "9"), errdefs.IsNotFound, "revision 9 of service web not found")
	wantError(t, w.rollBackTo(s.ID, "third"), errdefs.IsNotFound, "revision third of service web")
	wantError(t, w.rollBackTo(s.ID, "3"), errdefs.IsFailedPrecondition, "is at revision 3 already")
	if err := w.rollBackTo(s.ID, "first"); err != nil {
		t.Fatal(err)
	}
	back := w.service(s.ID)
	if back.Revision != s.Revision || *back.Spec.Mode.Replicated.Replicas != 7 || back.Spec.Labels["team"] != "a" ||
		back.Spec.Labels["shoal.revision"] != "first" || back.UpdateStatus.Message != "manually requested rollback to revision 1" ||
		back.PreviousRevision != first.Revision {
		t.Errorf("after going back: %+v", back)
	}
	if got := history(); !strings.HasSuffix(got[2], " *") {
		t.Errorf("history after going back: %q", got)
	}
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "nginx:3" })
	if all, _ := w.History("web"); all[0].Number != 4 || all[0].From != 1 {
		t.Errorf("the next revision is %+v", all[0])
	}
}

// TestStopIsNoRevision: what is stopped and started can be rolled back as before,
// and neither way stops or starts it.
func TestStopIsNoRevision(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	two := w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "nginx:2" })
	stop := func(stopped bool) *api.Service {
		return w.change(s.ID, func(s *swarm.ServiceSpec) { s.Labels = api.SetStopped(s.Labels, stopped) })
	}
	if now := stop(true); !now.Settings().Stopped || now.Revision != two.Revision || now.PreviousRevision != s.Revision {
		t.Fatalf("stopped: %+v", now)
	}
	if status, _ := w.Services(filters.NewArgs(), true); status[0].ServiceStatus.DesiredTasks != 0 {
		t.Errorf("a stopped service wants %d tasks", status[0].ServiceStatus.DesiredTasks)
	}
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "nginx:3" })
	if now := stop(false); now.UpdateStatus == nil || now.UpdateStatus.State != swarm.UpdateStateUpdating || now.UpdateStatus.StartedAt == nil {
		t.Errorf("who waits for the start sees %+v", now.UpdateStatus)
	}
	if err := w.UpdateService(t.Context(), s.ID, Update{Version: w.service(s.ID).Version, Rollback: true}); err != nil {
		t.Fatal(err)
	}
	if now := w.service(s.ID); now.Settings().Stopped || now.Revision != two.Revision {
		t.Errorf("a rollback stopped the service, or went elsewhere: %+v", now)
	}
}

// TestJobRuns: each change begins another run, and stopping is none.
func TestJobRuns(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("work", func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: new(uint64(3))}}
	}))
	if s.JobStatus == nil || s.JobStatus.JobIteration.Index != 0 || s.JobStatus.LastExecution.IsZero() {
		t.Fatalf("job status %+v", s.JobStatus)
	}
	if j := s.Spec.Mode.ReplicatedJob; *j.TotalCompletions != 3 {
		t.Errorf("%d completions, want as many as run at once", *j.TotalCompletions)
	}
	for i, tt := range []struct {
		change func(*swarm.ServiceSpec)
		want   uint64
	}{
		{func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ }, 1},
		{func(s *swarm.ServiceSpec) { s.Labels = api.SetStopped(s.Labels, true) }, 1},
		{func(s *swarm.ServiceSpec) { s.Labels = api.SetStopped(s.Labels, false) }, 1},
		{func(s *swarm.ServiceSpec) { s.Mode.ReplicatedJob.TotalCompletions = new(uint64(9)) }, 2},
	} {
		if now := w.change(s.ID, tt.change); now.JobStatus.JobIteration.Index != tt.want {
			t.Errorf("step %d: run %d, want %d", i, now.JobStatus.JobIteration.Index, tt.want)
		}
	}
	if err := w.UpdateService(t.Context(), s.ID, Update{Version: w.service(s.ID).Version, Rollback: true}); err != nil {
		t.Fatal(err)
	}
	if now := w.service(s.ID); now.JobStatus.JobIteration.Index != 3 || now.UpdateStatus != nil {
		t.Errorf("after a rollback: run %d, %+v", now.JobStatus.JobIteration.Index, now.UpdateStatus)
	}
}

// TestForgottenTasks: what was removed on a node that is down is in no list.
func TestForgottenTasks(t *testing.T) {
	w := newWorld(t)
	for id, state := range map[string]swarm.NodeState{"up": swarm.NodeStateReady, "down": swarm.NodeStateDown} {
		err := w.update(t.Context(), func(tx *store.Tx) error {
			for _, desired := range []swarm.TaskState{swarm.TaskStateRemove, swarm.TaskStateShutdown} {
				if err := tx.Put(&api.Task{Meta: api.Meta{ID: id + string(desired)}, NodeID: id, DesiredState: desired}); err != nil {
					return err
				}
			}
			return tx.Put(&api.Node{Meta: api.Meta{ID: id}, Status: swarm.NodeStatus{State: state}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all, err := w.Tasks(filters.NewArgs())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, task := range all {
		ids = append(ids, task.ID)
	}
	slices.Sort(ids)
	if want := []string{"downshutdown", "upremove", "upshutdown"}; !slices.Equal(ids, want) {
		t.Errorf("listed %v, want %v", ids, want)
	}
}

// TestCompletedTwice: a job has completed as many slots as it has, however many of
// their tasks did.
func TestCompletedTwice(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("work", func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: new(uint64(2))}}
	}))
	err := w.update(t.Context(), func(tx *store.Tx) error {
		for id, slot := range map[string]int{"lost": 0, "successor": 0, "other": 1} {
			task := &api.Task{Meta: api.Meta{ID: id}, ServiceID: s.ID, Revision: s.Revision, Slot: slot, Iteration: new(uint64)}
			task.Status.State = swarm.TaskStateComplete
			if err := tx.Put(task); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := w.Services(filters.NewArgs(), true); err != nil || all[0].ServiceStatus.CompletedTasks != 2 {
		t.Errorf("%+v, %v, want 2 completed", all[0].ServiceStatus, err)
	}
}

// TestNothingChanged: an update that changes nothing is nothing to go back from.
func TestNothingChanged(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Env = []string{"X=1"} })
	w.change(s.ID, func(*swarm.ServiceSpec) {})
	if err := w.UpdateService(t.Context(), s.ID, Update{Version: w.service(s.ID).Version, Rollback: true}); err != nil {
		t.Fatal(err)
	}
	if now := w.service(s.ID); now.Revision != s.Revision || len(now.Spec.TaskTemplate.ContainerSpec.Env) != 0 {
		t.Errorf("gone back to revision %s, want %s", now.Revision, s.Revision)
	}
}
