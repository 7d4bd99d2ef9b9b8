package task

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestOutageCovers(t *testing.T) {
	began := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	from, to := began.Add(time.Hour), began.Add(time.Hour+10*time.Second)
	for name, tt := range map[string]struct {
		o    outage
		end  time.Time
		want bool
	}{
		"no end":                          {outage{from: from, to: to}, time.Time{}, false},
		"no outage":                       {outage{}, from, false},
		"before the outage":               {outage{from: from, to: to}, from.Add(-2 * time.Second), false},
		"as the engine hung up":           {outage{from: from, to: to}, from.Add(-shutdownSlack / 2), true},
		"while it was away":               {outage{from: from, to: to}, from.Add(time.Second), true},
		"while it is away":                {outage{from: from}, from.Add(time.Second), true},
		"after it":                        {outage{from: from, to: to}, to.Add(time.Second), false},
		"a first connection is no outage": {outage{to: to}, from, false},
	} {
		if got := tt.o.covers(tt.end); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestStoppedWithItsHost: the daemon finds after a boot what was stopped before.
func TestStoppedWithItsHost(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	onFailure := &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure}
	s := situation{
		desired: swarm.TaskStateRunning, cut: true, policy: onFailure,
		status:    status{TaskStatus: swarm.TaskStatus{State: swarm.TaskStateRunning, Timestamp: now.Add(-time.Hour)}},
		container: &Container{ID: "c", Phase: Exited, FinishedAt: now.Add(-time.Minute)},
	}
	if st := next(s, now); st.status == nil || st.status.State != swarm.TaskStateFailed || st.status.Err != errCut {
		t.Errorf("%+v", st)
	}
	s.alone = now.Add(-time.Hour) // it is started again in place, as after a failure
	if st := next(s, now); st.do != start {
		t.Errorf("alone: %+v", st)
	}
	s.cut, s.alone = false, time.Time{}
	s.container.Signalled = true // by its engine, or by hand
	if st := next(s, now); st.status == nil || st.status.State != swarm.TaskStateFailed || st.status.Err != errStopped {
		t.Errorf("stopped from outside: %+v", st)
	}
	s.container.Signalled = false
	if st := next(s, now); st.status == nil || st.status.State != swarm.TaskStateComplete {
		t.Errorf("done by itself: %+v", st)
	}
}
