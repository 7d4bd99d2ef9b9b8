package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/task"
)

func TestCompareTasks(t *testing.T) {
	assigned := func(desired, now swarm.TaskState) *api.Assignment {
		return &api.Assignment{Task: &api.Task{DesiredState: desired, Status: swarm.TaskStatus{State: now}}}
	}
	s := &api.NodeState{Tasks: map[string]*api.Assignment{
		"runs":     assigned(swarm.TaskStateRunning, swarm.TaskStateRunning),
		"lost":     assigned(swarm.TaskStateRunning, swarm.TaskStateRunning),
		"exited":   assigned(swarm.TaskStateRunning, swarm.TaskStateRunning),
		"starting": assigned(swarm.TaskStateRunning, swarm.TaskStateStarting),
		"stopping": assigned(swarm.TaskStateShutdown, swarm.TaskStateRunning),
		"ended":    assigned(swarm.TaskStateShutdown, swarm.TaskStateShutdown),
		"past":     assigned(swarm.TaskStateShutdown, swarm.TaskStateFailed),
	}}
	missing, superseded := compareTasks(s, []task.Container{
		{ID: "c-runs", TaskID: "runs", Phase: task.Running},
		{ID: "c-exited", TaskID: "exited", Phase: task.Exited},
		{ID: "c-stopping", TaskID: "stopping", Phase: task.Running},
		{ID: "c-ended-and-a-long-name", TaskID: "ended", Phase: task.Running},
		{ID: "c-past", TaskID: "past", Phase: task.Exited},
		{ID: "c-stranger", TaskID: "of no task here", Phase: task.Running},
	})
	if want := []string{"exited", "lost"}; !slices.Equal(missing, want) {
		t.Errorf("missing %v, want %v", missing, want)
	}
	if want := []string{"c-ended-and-", "c-stranger"}; !slices.Equal(superseded, want) {
		t.Errorf("superseded %v, want %v", superseded, want)
	}
}

func TestDiskLook(t *testing.T) {
	l := newDiskLook()
	dir := t.TempDir()
	var looks sync.WaitGroup
	for range 4 { // at once, as when several people look
		looks.Go(func() {
			d := l.look(t.Context(), dir)
			if d.Error != "" || d.Sync <= 0 || d.Free == 0 || d.Total < d.Free {
				t.Errorf("%+v", d)
			}
		})
	}
	looks.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("measuring left %v, %v", left, err)
	}
	if d := l.look(t.Context(), dir+"/nosuch"); d.Error == "" {
		t.Error("a directory that is not there can be written")
	}
	l.busy <- struct{}{} // as a write that hangs does
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if d := l.look(ctx, dir); d.Error == "" {
		t.Error("a disk that hangs was not noticed")
	}
}

func TestReason(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"connection refused": fmt.Errorf("connect to x: %w", refused),
		"no answer":          fmt.Errorf("connect to x: %w", &net.OpError{Op: "dial", Err: context.DeadlineExceeded}),
		"it is another node": fmt.Errorf("it is %s", "another node"),
	} {
		if got := reason(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
