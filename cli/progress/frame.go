package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Frame is everything the display shows at one moment.
type Frame struct {
	Overall []string
	Slots   []Slot
	// Note is about the whole service, such as why it is being rolled back.
	Note string
	// Verify is "Waiting" (then Remaining counts down), or a last word.
	Verify    string
	Remaining time.Duration

	met bool // all that was asked for is there
	job bool
	// lost is how many tasks have failed and will not be tried again, it seems, with
	// all others done; and why the last of them did.
	lost int
	why  string
}

// Slot is one task's line.
type Slot struct {
	Label string // "1/3", or a node's name
	State string
	// Step is how far the task is on its way to running, of Steps.
	Step int
	// Err is what ended the task, or the last attempt at it.
	Err string
}

// order is how far along each state is. A state that is not here says nothing about progress.
var order = map[swarm.TaskState]int{
	swarm.TaskStateNew:       1,
	swarm.TaskStateAllocated: 2,
	swarm.TaskStatePending:   3,
	swarm.TaskStateAssigned:  4,
	swarm.TaskStateAccepted:  5,
	swarm.TaskStatePreparing: 6,
	swarm.TaskStateReady:     7,
	swarm.TaskStateStarting:  8,
	swarm.TaskStateRunning:   9,
	swarm.TaskStateComplete:  10,
	swarm.TaskStateShutdown:  11,
	swarm.TaskStateFailed:    12,
	swarm.TaskStateRejected:  13,
}

// Steps is the number of states up to running.
const Steps = 9

func ended(s swarm.TaskState) bool { return order[s] > Steps }

func (w *Watch) frame(o Observation) Frame {
	mode := o.Service.Spec.Mode
	switch {
	case stopped(o.Service):
		return stopping(o)
	case mode.Global != nil:
		return global(o)
	case mode.ReplicatedJob != nil, mode.GlobalJob != nil:
		return job(o)
	default:
		return replicated(o)
	}
}

// attempts are the tasks of one slot: the one that counts now, and the last error among those that ended.
type attempts struct {
	current *swarm.Task
	err     string
	errAt   time.Time
}

func (a *attempts) add(t *swarm.Task) {
	if msg := t.Status.Err; msg != "" && !t.Status.Timestamp.Before(a.errAt) {
		a.err, a.errAt = msg, t.Status.Timestamp
	}
	if a.current == nil || better(t, a.current) {
		a.current = t
	}
}

// better reports whether a says more about a slot than b: what is still wanted counts before what is not, then what
// is further along.
func better(a, b *swarm.Task) bool {
	if x, y := ended(a.DesiredState), ended(b.DesiredState); x != y {
		return y
	}
	if x, y := ended(a.Status.State), ended(b.Status.State); x != y {
		return y
	}
	if order[a.DesiredState] != order[b.DesiredState] {
		return order[a.DesiredState] > order[b.DesiredState]
	}
	if order[a.Status.State] != order[b.Status.State] {
		return order[a.Status.State] > order[b.Status.State]
	}
	return a.CreatedAt.After(b.CreatedAt)
}

func (a *attempts) slot(label string) Slot {
	s := Slot{Label: label}
	if a == nil || a.current == nil {
		return s
	}
	s.State = string(a.current.Status.State)
	s.Step = min(order[a.current.Status.State], Steps)
	if !a.running() {
		s.Err = a.err
	}
	if ended(a.current.Status.State) && a.current.Status.State != swarm.TaskStateComplete {
		s.Step = 0
	}
	return s
}

func (a *attempts) running() bool {
	return a.current.Status.State == swarm.TaskStateRunning && !ended(a.current.DesiredState)
}

// failed tells whether the last attempt failed, and none follows it yet.
func (a *attempts) failed() bool {
	return a.current.Status.State == swarm.TaskStateFailed || a.current.Status.State == swarm.TaskStateRejected
}

// group sorts the tasks that count by a key, leaving out what is on nodes that are down.
func group[K comparable](o Observation, key func(swarm.Task) (K, bool)) map[K]*attempts {
	groups := map[K]*attempts{}
	for i := range o.Tasks {
		t := &o.Tasks[i]
		k, ok := key(*t)
		if !ok || o.Down[t.NodeID] || order[t.Status.State] == 0 {
			continue
		}
		if groups[k] == nil {
			groups[k] = &attempts{}
		}
		groups[k].add(t)
	}
	return groups
}

func replicated(o Observation) Frame {
	want := 1
	if m := o.Service.Spec.Mode.Replicated; m != nil && m.Replicas != nil {
		want = int(*m.Replicas)
	}
	slots := group(o, func(t swarm.Task) (int, bool) { return t.Slot, true })
	// Slots that are on their way out are not lines of the display; after scaling down they may have lower numbers
	// than those that stay, so the lines are numbered anew.
	var numbers []int
	for number, a := range slots {
		if order[a.current.DesiredState] != 0 && !ended(a.current.DesiredState) {
			numbers = append(numbers, number)
		}
	}
	// A slot that just failed may have its replacement not yet made: it still is one of the slots.
	for number, a := range slots {
		if number <= want && len(numbers) < want && !slices.Contains(numbers, number) && a.err != "" {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)

	var f Frame
	running := 0
	for i := range want {
		var a *attempts
		if i < len(numbers) {
			a = slots[numbers[i]]
		}
		f.Slots = append(f.Slots, a.slot(fmt.Sprintf("%d/%d", i+1, want)))
		if a != nil && a.running() {
			running++
		} else if a != nil && a.failed() {
			f.lost, f.why = f.lost+1, a.err
		}
	}
	if running+f.lost < want {
		f.lost = 0 // something is still to come
	}
	f.Overall = []string{fmt.Sprintf("overall progress: %d out of %d tasks", running, want)}
	f.met = running >= want
	return f
}

func global(o Observation) Frame {
	nodes := group(o, func(t swarm.Task) (string, bool) { return t.NodeID, t.NodeID != "" })
	var ids []string
	running := 0
	for id, a := range nodes {
		if ended(a.current.DesiredState) && a.err == "" {
			continue
		}
		ids = append(ids, id)
		if a.running() {
			running++
		}
	}
	if len(ids) == 0 {
		return Frame{Overall: []string{"overall progress: waiting for new tasks"}}
	}
	slices.Sort(ids)
	f := Frame{Overall: []string{fmt.Sprintf("overall progress: %d out of %d tasks", running, len(ids))}, met: running == len(ids)}
	for _, id := range ids {
		f.Slots = append(f.Slots, nodes[id].slot(id[:min(len(id), 12)]))
	}
	return f
}

// job shows only what runs and what failed: completed tasks are counted.
func job(o Observation) Frame {
	f := Frame{job: true}
	if o.Service.JobStatus == nil {
		f.Overall = []string{"job progress: waiting for the job to start"}
		return f
	}
	iteration := o.Service.JobStatus.JobIteration.Index
	tasks := group(o, func(t swarm.Task) (string, bool) {
		if t.JobIteration == nil || t.JobIteration.Index != iteration {
			return "", false
		}
		if o.Service.Spec.Mode.GlobalJob != nil {
			return t.NodeID, t.NodeID != ""
		}
		return strconv.Itoa(t.Slot), true
	})
	total, concurrent := len(tasks), len(tasks)
	if m := o.Service.Spec.Mode.ReplicatedJob; m != nil {
		total, concurrent = 1, 1
		if m.MaxConcurrent != nil {
			total, concurrent = int(*m.MaxConcurrent), int(*m.MaxConcurrent)
		}
		if m.TotalCompletions != nil {
			total = int(*m.TotalCompletions)
		}
	}
	complete, active, lost := 0, 0, 0
	for _, key := range sortedKeys(tasks) {
		a := tasks[key]
		switch {
		case a.current.Status.State == swarm.TaskStateComplete:
			complete++
			continue
		case !ended(a.current.Status.State):
			active++
		default:
			lost++
		}
		label := key
		if n, err := strconv.Atoi(key); err == nil {
			label = fmt.Sprintf("%d/%d", n+1, total)
		}
		f.Slots = append(f.Slots, a.slot(label[:min(len(label), 12)]))
	}
	f.Overall = []string{
		fmt.Sprintf("job progress: %d out of %d complete", complete, total),
		fmt.Sprintf("active tasks: %d out of %d tasks", active, min(concurrent, total-complete)),
	}
	f.met = complete >= total && (total > 0 || o.Service.Spec.Mode.GlobalJob == nil)
	if active == 0 && complete+lost >= total {
		f.lost = lost
	}
	return f
}

func stopped(s swarm.Service) bool {
	settings, _ := api.ReadSettings(s.Spec.Labels)
	return settings.Stopped
}

// stopping counts what still runs of a service that was told to stop.
func stopping(o Observation) Frame {
	left := 0
	for _, t := range o.Tasks {
		if !ended(t.Status.State) && order[t.Status.State] != 0 && !o.Down[t.NodeID] {
			left++
		}
	}
	f := Frame{Overall: []string{fmt.Sprintf("overall progress: %d tasks still to stop", left)}}
	if left == 1 {
		f.Overall[0] = "overall progress: 1 task still to stop"
	}
	return f
}

func sortedKeys(m map[string]*attempts) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return keys
}
