package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func replicatedService(n uint64, monitor time.Duration) swarm.Service {
	return swarm.Service{Spec: swarm.ServiceSpec{
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &n}},
		UpdateConfig: &swarm.UpdateConfig{Monitor: monitor},
	}}
}

// task writes a task as "slot state desired [error]".
func task(slot int, state, desired swarm.TaskState, err ...string) swarm.Task {
	return swarm.Task{
		ID: fmt.Sprintf("t%d%s", slot, state), Slot: slot, NodeID: "n1", DesiredState: desired,
		Status: swarm.TaskStatus{State: state, Err: strings.Join(err, ""), Timestamp: start},
	}
}

const (
	running   = swarm.TaskStateRunning
	failed    = swarm.TaskStateFailed
	shutdown  = swarm.TaskStateShutdown
	ready     = swarm.TaskStateReady
	preparing = swarm.TaskStatePreparing
)

func TestReplicatedFrames(t *testing.T) {
	tests := []struct {
		name  string
		tasks []swarm.Task
		down  map[string]bool
		want  []string
	}{
		{
			name: "nothing yet",
			want: []string{"overall progress: 0 out of 3 tasks", "1/3:", "2/3:", "3/3:"},
		},
		{
			name:  "on their way",
			tasks: []swarm.Task{task(1, running, running), task(3, preparing, running), task(2, swarm.TaskStateNew, running)},
			want:  []string{"overall progress: 1 out of 3 tasks", "1/3: running", "2/3: new", "3/3: preparing"},
		},
		{
			name:  "the error of the last attempt stays while the next one starts",
			tasks: []swarm.Task{task(1, failed, shutdown, "no such\nfile"), task(1, ready, running)},
			want:  []string{"overall progress: 0 out of 3 tasks", `1/3: ready     "no such file"`, "2/3:", "3/3:"},
		},
		{
			name:  "an error is forgotten when the task runs after all",
			tasks: []swarm.Task{task(1, failed, shutdown, "boom"), task(1, running, running)},
			want:  []string{"overall progress: 1 out of 3 tasks", "1/3: running", "2/3:", "3/3:"},
		},
		{
			name:  "failed and not replaced yet",
			tasks: []swarm.Task{task(2, failed, shutdown, "boom"), task(1, running, running)},
			want:  []string{"overall progress: 1 out of 3 tasks", "1/3: running", `2/3: failed    "boom"`, "3/3:"},
		},
		{
			name:  "slots that go away do not count",
			tasks: []swarm.Task{task(1, running, swarm.TaskStateRemove), task(2, running, running), task(4, running, running), task(5, running, running)},
			want:  []string{"overall progress: 3 out of 3 tasks", "1/3: running", "2/3: running", "3/3: running"},
		},
		{
			name:  "what a node that is down last said does not count",
			tasks: []swarm.Task{task(1, running, running)},
			down:  map[string]bool{"n1": true},
			want:  []string{"overall progress: 0 out of 3 tasks", "1/3:", "2/3:", "3/3:"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, done, err := NewWatch("web").Observe(Observation{Service: replicatedService(3, 0), Tasks: test.tasks, Down: test.down}, start)
			if done || err != nil {
				t.Fatalf("ended: %v", err)
			}
			f.Verify = ""
			if diff := cmp.Diff(test.want, plain(Screen(f, 40, 24))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// plain is lines without the blanks at their ends.
func plain(lines []string) []string {
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return lines
}

func TestGlobalFrames(t *testing.T) {
	service := swarm.Service{Spec: swarm.ServiceSpec{Mode: swarm.ServiceMode{Global: &swarm.GlobalService{}}}}
	f, _, _ := NewWatch("g").Observe(Observation{Service: service}, start)
	if got := f.Overall[0]; got != "overall progress: waiting for new tasks" {
		t.Error(got)
	}
	a, b := task(0, running, running), task(0, preparing, running)
	a.NodeID, b.NodeID = "bbbbbbbbbbbbbbbb", "aaaaaaaaaaaaaaaa"
	f, _, _ = NewWatch("g").Observe(Observation{Service: service, Tasks: []swarm.Task{a, b}}, start)
	want := []string{"overall progress: 1 out of 2 tasks", "aaaaaaaaaaaa: preparing", "bbbbbbbbbbbb: running"}
	if diff := cmp.Diff(want, plain(Screen(f, 40, 24))); diff != "" {
		t.Error(diff)
	}
}

func TestJobFrames(t *testing.T) {
	total, concurrent := uint64(3), uint64(2)
	service := swarm.Service{
		Spec:      swarm.ServiceSpec{Mode: swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &concurrent, TotalCompletions: &total}}},
		JobStatus: &swarm.JobStatus{JobIteration: swarm.Version{Index: 9}},
	}
	job := func(slot int, state swarm.TaskState, iteration uint64) swarm.Task {
		tk := task(slot, state, swarm.TaskStateComplete)
		tk.JobIteration = &swarm.Version{Index: iteration}
		return tk
	}
	w := NewWatch("j")
	f, done, err := w.Observe(Observation{Service: service, Tasks: []swarm.Task{
		job(0, swarm.TaskStateComplete, 9), job(1, running, 9), job(2, swarm.TaskStateComplete, 8),
	}}, start)
	want := []string{"job progress: 1 out of 3 complete", "active tasks: 1 out of 2 tasks", "2/3: running"}
	if diff := cmp.Diff(want, plain(Screen(f, 40, 24))); done || err != nil || diff != "" {
		t.Error(done, err, diff)
	}
	f, done, err = w.Observe(Observation{Service: service, Tasks: []swarm.Task{
		job(0, swarm.TaskStateComplete, 9), job(1, swarm.TaskStateComplete, 9), job(2, swarm.TaskStateComplete, 9),
	}}, start)
	if lines := Screen(f, 40, 24); !done || err != nil || lines[len(lines)-1] != "job complete" {
		t.Error(done, err, lines)
	}
}

// look is one observation of TestConvergence: how many of two tasks run, after how long, in which state of an update.
type look struct {
	after  time.Duration
	run    int
	update swarm.UpdateState
	says   string // the update's message, if not "why"
	want   string // the verify line
	done   bool
	err    string
}

func TestConvergence(t *testing.T) {
	const waiting = "verify: Waiting %d seconds to verify that tasks are stable..."
	tests := []struct {
		name    string
		monitor time.Duration
		looks   []look
	}{
		{name: "stable for the default window", looks: []look{
			{after: 0, run: 1},
			{after: 1 * time.Second, run: 2, want: fmt.Sprintf(waiting, 5)},
			{after: 5900 * time.Millisecond, run: 2, want: fmt.Sprintf(waiting, 1)},
			{after: 6 * time.Second, run: 2, want: "verify: Service web converged", done: true},
		}},
		{name: "the service's own window", monitor: time.Second, looks: []look{
			{after: 0, run: 2, want: fmt.Sprintf(waiting, 1)},
			{after: time.Second, run: 2, want: "verify: Service web converged", done: true},
		}},
		{name: "a failure starts the window again", monitor: 2 * time.Second, looks: []look{
			{after: 0, run: 2, want: fmt.Sprintf(waiting, 2)},
			{after: time.Second, run: 1, want: "verify: Detected task failure"},
			{after: 2 * time.Second, run: 1, want: "verify: Detected task failure"},
			{after: 3 * time.Second, run: 2, want: fmt.Sprintf(waiting, 2)},
			{after: 5 * time.Second, run: 2, want: "verify: Service web converged", done: true},
		}},
		{name: "a paused update is a failure", looks: []look{
			{after: 0, run: 1, update: swarm.UpdateStateUpdating},
			{after: 1, run: 1, update: swarm.UpdateStatePaused, done: true, err: "service update paused: why\nsee 'shoal service logs web'; go on with 'shoal service update', or back with 'shoal service rollback web'"},
		}},
		{name: "a paused rollback is a failure", looks: []look{
			{after: 0, run: 1, update: swarm.UpdateStateRollbackPaused, done: true, err: "service rollback paused: why"},
		}},
		{name: "a rollback under way has not converged, whatever runs", monitor: time.Second, looks: []look{
			{after: 0, run: 2, update: swarm.UpdateStateRollbackStarted},
			{after: 9 * time.Second, run: 2, update: swarm.UpdateStateRollbackStarted},
			{after: 10 * time.Second, run: 2, update: swarm.UpdateStateRollbackCompleted, want: fmt.Sprintf(waiting, 5)},
			{after: 15 * time.Second, run: 2, update: swarm.UpdateStateRollbackCompleted, want: "verify: Service web converged", done: true},
		}},
		{name: "an update that goes on over failures ends", looks: []look{
			{after: 0, run: 1, update: swarm.UpdateStateUpdating},
			{after: 1, run: 1, update: swarm.UpdateStateCompleted, says: "update completed with failures in 1 of 2 tasks", done: true, err: "service updated, but not all of its tasks are running: update completed with failures in 1 of 2 tasks\nsee 'shoal service ps web'; back with 'shoal service rollback web'"},
		}},
		{name: "an update ends before all tasks run that it did not replace", looks: []look{
			{after: 0, run: 1, update: swarm.UpdateStateUpdating},
			{after: 1, run: 1, update: swarm.UpdateStateCompleted, want: "verify: Service web updated, not all of its tasks are running", done: true},
		}},
		{name: "the update before this one says nothing", looks: []look{
			{after: 0, run: 1, update: swarm.UpdateStateCompleted},
			{after: 1, run: 1, update: swarm.UpdateStateCompleted},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := NewWatch("web")
			for i, l := range test.looks {
				o := Observation{Service: replicatedService(2, test.monitor)}
				if l.update != "" {
					o.Service.UpdateStatus = &swarm.UpdateStatus{State: l.update, Message: "why"}
					if l.says != "" {
						o.Service.UpdateStatus.Message = l.says
					}
				}
				for slot := range l.run {
					o.Tasks = append(o.Tasks, task(slot+1, running, running))
				}
				f, done, err := w.Observe(o, start.Add(l.after))
				if done != l.done || fmt.Sprint(err) != orNil(l.err) {
					t.Fatalf("look %d: done %v, error %v", i, done, err)
				}
				if got := strings.Join(f.verify(), "\n"); got != l.want {
					t.Errorf("look %d: %q, want %q", i, got, l.want)
				}
			}
		})
	}
}

func orNil(s string) string {
	if s == "" {
		return "<nil>"
	}
	return s
}

func slots(n int, state string) []Slot {
	var list []Slot
	for i := range n {
		list = append(list, Slot{Label: fmt.Sprintf("%d/%d", i+1, n), State: state, Step: Steps})
	}
	return list
}

func TestScreenFits(t *testing.T) {
	f := Frame{Overall: []string{"overall progress: 99 out of 100 tasks"}, Slots: slots(100, "running"), Verify: "Waiting", Remaining: time.Second}
	f.Slots[70] = Slot{Label: "71/100", State: "ready", Err: "a very long error that goes on and on until the end of the line and beyond"}
	f.Slots[80] = Slot{Label: "81/100", State: "preparing", Step: 6}
	for _, size := range []struct{ width, height int }{{80, 24}, {40, 8}, {20, 3}, {200, 200}, {1, 1}} {
		lines := Screen(f, size.width, size.height)
		if size.height > 4 && len(lines) >= size.height {
			t.Errorf("%d lines on a terminal of %d", len(lines), size.height)
		}
		for _, line := range lines {
			if size.width > 1 && len([]rune(line)) > size.width {
				t.Errorf("%q is wider than %d", line, size.width)
			}
		}
	}
	want := []string{
		"overall progress: 99 out of 100 tasks",
		` 71/100: ready     "a very long error that goes o…`,
		" 81/100: preparing",
		"and 98 tasks: 98 running, 0 on their way",
		"verify: Waiting 1 seconds to verify that tasks ar…",
	}
	if diff := cmp.Diff(want, plain(Screen(f, 50, 12))); diff != "" {
		t.Error(diff)
	}
}

func TestBars(t *testing.T) {
	for _, test := range []struct {
		state string
		step  int
		want  string
	}{
		{"", 0, "1/1:          "},
		{"new", 1, "1/1: new       [====>                                             ]"},
		{"running", 9, "1/1: running   [=================================================>]"},
		{"failed", 0, "1/1: failed    [                                                  ]"},
	} {
		if got := (Slot{Label: "1/1", State: test.state, Step: test.step}).line(3, 80); strings.TrimRight(got, " ") != strings.TrimRight(test.want, " ") {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

func TestChangesSaysOnlyWhatIsNew(t *testing.T) {
	var out bytes.Buffer
	d := NewDisplay(&out)
	w := NewWatch("web")
	service := replicatedService(2, time.Second)
	for _, step := range []struct {
		after time.Duration
		tasks []swarm.Task
	}{
		{0, nil},
		{0, []swarm.Task{task(1, preparing, running), task(2, preparing, running)}},
		{0, []swarm.Task{task(1, preparing, running), task(2, preparing, running)}},
		{0, []swarm.Task{task(1, running, running), task(2, failed, shutdown, "boom"), task(2, ready, running)}},
		{0, []swarm.Task{task(1, running, running), task(2, failed, shutdown, "boom"), task(2, ready, running)}},
		{0, []swarm.Task{task(1, running, running), task(2, running, running)}},
		{500 * time.Millisecond, []swarm.Task{task(1, running, running), task(2, running, running)}},
		{time.Second, []swarm.Task{task(1, running, running), task(2, running, running)}},
	} {
		f, _, err := w.Observe(Observation{Service: service, Tasks: step.tasks}, start.Add(step.after))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Show(f); err != nil {
			t.Fatal(err)
		}
	}
	want := `overall progress: 0 out of 2 tasks
1/2: preparing
2/2: preparing
overall progress: 1 out of 2 tasks
1/2: running
2/2: ready "boom"
overall progress: 2 out of 2 tasks
2/2: running
verify: Waiting 1 seconds to verify that tasks are stable...
verify: Service web converged
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestRepaint(t *testing.T) {
	tests := []struct {
		name        string
		before, now []string
		width       int
		want        string
	}{
		{"first", nil, []string{"a", "b"}, 80, "\ra\x1b[K\n\rb\x1b[K\n"},
		{"again", []string{"a", "b"}, []string{"c"}, 80, "\x1b[2A\rc\x1b[K\n\x1b[J"},
		{"after the window got narrow", []string{"abcdef"}, []string{"x"}, 3, "\x1b[2A\rx\x1b[K\n\x1b[J"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := repaint(test.before, test.now, test.width); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestLostReplica: a task that may not be tried again ends the wait, with its reason;
// one that is about to be, or is part of an update, does not.
func TestLostReplica(t *testing.T) {
	gone := task(1, failed, shutdown, "task: non-zero exit (1)")
	updating := replicatedService(2, time.Second)
	updating.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateUpdating}
	for name, c := range map[string]struct {
		service swarm.Service
		tasks   []swarm.Task
		lost    bool
	}{
		"lost":                      {replicatedService(2, time.Second), []swarm.Task{gone, task(2, running, running)}, true},
		"tried again":               {replicatedService(2, time.Second), []swarm.Task{gone, task(1, ready, ready), task(2, running, running)}, false},
		"others are still starting": {replicatedService(2, time.Second), []swarm.Task{gone, task(2, preparing, running)}, false},
		"an update tells itself":    {updating, []swarm.Task{gone, task(2, running, running)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWatch("web")
			o := Observation{Service: c.service, Tasks: c.tasks}
			if _, done, err := w.Observe(o, start); done || err != nil {
				t.Fatalf("at first sight: %v, %v", done, err)
			}
			_, done, err := w.Observe(o, start.Add(lostAfter))
			if done != c.lost || c.lost && (err == nil || err.Error() != "1 of the tasks failed and may not be tried again: task: non-zero exit (1)") {
				t.Errorf("later: %v, %v", done, err)
			}
		})
	}
}
