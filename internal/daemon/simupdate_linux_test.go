package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/sim"
	"shoal/internal/store"
)

// updateFaults are those of managers, as far as they tell the time, and those of
// nodes that run tasks.
var updateFaults = append(slices.DeleteFunc(slices.Clone(simFaults), func(f simFault) bool { return f.name == "clock jump" }),
	simFault{"node lost", 12, func(w *simWorld) string {
		return w.onWorker(func(n *simWorker, d time.Duration) { n.crash(d) })
	}},
	simFault{"node cut off", 12, func(w *simWorld) string {
		return w.onWorker(func(n *simWorker, d time.Duration) { n.unplug(d) })
	}},
	simFault{"daemon restarted", 10, func(w *simWorld) string { return w.onWorker(func(n *simWorker, _ time.Duration) { n.restart() }) }},
	simFault{"engine restarted", 14, func(w *simWorld) string {
		return w.onWorker(func(n *simWorker, d time.Duration) {
			n.engine.Away()
			n.engine.endAll()
			_ = n.w.sleep(context.Background(), min(d, 3*time.Second))
			n.engine.Back()
		})
	}},
	simFault{"engine away", 8, func(w *simWorld) string { // its containers run on
		return w.onWorker(func(n *simWorker, d time.Duration) {
			n.engine.Away()
			_ = n.w.sleep(context.Background(), d)
			n.engine.Back()
		})
	}},
	simFault{"a container dies", 20, func(w *simWorld) string {
		n := w.workers[w.rng.IntN(len(w.workers))]
		ids := slices.Sorted(maps.Keys(n.engine.running()))
		if len(ids) == 0 {
			return ""
		}
		id := ids[w.rng.IntN(len(ids))]
		n.engine.end(id, 1)
		return id
	}},
)

// onWorker lets something happen to a node, one thing at a time.
func (w *simWorld) onWorker(do func(n *simWorker, d time.Duration)) string {
	n := w.workers[w.rng.IntN(len(w.workers))]
	d := time.Second + time.Duration(w.rng.Int64N(int64(25*time.Second)))
	if n.busy.Swap(true) {
		return ""
	}
	w.returning.Go(func() {
		defer n.busy.Store(false)
		do(n, d)
	})
	return fmt.Sprintf("%s, for up to %s", n.id, d)
}

// TestUpdatesUnderFaults updates services of all modes, with images good and bad,
// while managers and nodes come and go. When the weather has cleared, each service
// is at the revision that was asked for last, or back at the one before it, as its
// settings say, and never between; and what runs on the nodes is what the managers
// think.
func TestUpdatesUnderFaults(t *testing.T) {
	all := map[string]int{}
	runs := seeds(t, 30, 5, func(t *testing.T, seed uint64, dir string) { runUpdates(t, seed, dir, all) })
	t.Log(all)
	if runs < 30 || t.Failed() {
		return
	}
	for _, end := range []string{"completed", "rollback_completed", "paused", "job"} {
		if all["end: "+end] == 0 {
			t.Errorf("no service ended %s", end)
		}
	}
	for _, f := range updateFaults {
		if all[f.name] == 0 {
			t.Errorf("no fault %q in all runs", f.name)
		}
	}
}

func runUpdates(t *testing.T, seed uint64, dir string, all map[string]int) {
	over, stop := context.WithCancel(context.Background())
	w := &simWorld{
		t: t, seed: seed, dir: dir, rng: rand.New(rand.NewPCG(seed, 0)),
		net: sim.NewNetwork(seed), history: sim.NewHistory(), hosts: map[string]*simHost{},
		begin: time.Now(), answers: map[string]int{}, faults: map[string]int{}, over: over,
	}
	w.found(3)
	w.withWorkers(4)
	var operators []*simOperator
	for i, mode := range []string{"replicated", "replicated", "global", "job", "global job"} {
		operators = append(operators, &simOperator{
			simClient: &simClient{w: w, n: i}, rng: rand.New(rand.NewPCG(seed, uint64(i)+1)),
			name: fmt.Sprint("svc-", i), mode: mode,
		})
	}
	ctx, cancel := context.WithCancel(over)
	for _, o := range operators {
		o.ended = make(chan struct{})
		w.rest.Go(func() { o.run(ctx); close(o.ended) })
	}
	w.trouble(90*time.Second, updateFaults)
	cancel()
	for _, o := range operators {
		<-o.ended
	}
	w.trouble(10*time.Second, updateFaults) // the last updates have their share
	w.heal()

	wrong := w.settles(operators)
	for _, o := range operators {
		all["end: "+o.end]++
	}
	for f, n := range w.faults {
		all[f] += n
	}
	if wrong != "" {
		t.Errorf("20 minutes after the last fault: %s\n%s\n%s", wrong, strings.Join(w.story, "\n"), w.look())
	}
	for _, n := range w.workers {
		n.stop()
	}
	stop()
	w.end()
}

// settles waits until all is as it should be, and says what is not if it never is.
func (w *simWorld) settles(operators []*simOperator) (wrong string) {
	for end := time.Now().Add(20 * time.Minute); time.Now().Before(end); {
		_ = w.sleep(context.Background(), 2*time.Second)
		l := w.leader().alive()
		if l == nil {
			continue
		}
		v := l.m.store.View()
		wrong = ""
		for _, o := range operators {
			if what := o.judge(v); what != "" {
				wrong += fmt.Sprintf("%s (%s): %s\n", o.name, o.mode, what)
			}
		}
		if wrong += w.ghosts(v); wrong == "" {
			return ""
		}
	}
	return wrong
}

// ghosts says where a node runs what the managers do not know of, or does not run
// what they think.
func (w *simWorld) ghosts(v *store.View) (wrong string) {
	for _, n := range w.workers {
		runs := n.engine.running()
		for t := range v.Tasks.By(store.ByNode, n.id) {
			if t.Status.State == swarm.TaskStateRunning && !runs[t.ID] {
				wrong += fmt.Sprintf("%s of %s is no more on %s\n", t.ID, t.ServiceID, n.id)
			}
			if t.Status.State == swarm.TaskStateRunning || t.Status.State == swarm.TaskStateStarting {
				delete(runs, t.ID)
			}
		}
		for id := range runs {
			wrong += fmt.Sprintf("%s runs on %s unknown\n", id, n.id)
		}
	}
	return wrong
}

// look describes the nodes, the services and their tasks.
func (w *simWorld) look() string {
	v := w.leader().alive().m.store.View()
	var b strings.Builder
	for n := range v.Nodes.All() {
		fmt.Fprintf(&b, "%s is %s, %s\n", n.ID, n.Status.State, n.Spec.Availability)
	}
	for s := range v.Services.All() {
		fmt.Fprintf(&b, "%s is at %s, before at %s: %+v\n", s.Spec.Name, s.Revision, s.PreviousRevision, s.UpdateStatus)
		for t := range v.Tasks.By(store.ByService, s.ID) {
			fmt.Fprintf(&b, "  %s %d%s of %s on %q: %s, wanted %s, attempts %d, failures %d, %s\n",
				t.ID, t.Slot, t.Home, t.Revision, t.NodeID, t.Status.State, t.DesiredState, t.Attempts, t.Failures, t.Status.Err)
		}
	}
	return b.String()
}

// simOperator changes one service now and then.
type simOperator struct {
	*simClient
	rng        *rand.Rand
	name, mode string
	asked      []simAsked
	ended      chan struct{}
	end        string
}

// simAsked is a change that was asked for.
type simAsked struct {
	image   string
	known   bool // it was made
	refused bool // it was not
}

func (o *simOperator) run(ctx context.Context) {
	for o.w.sleep(ctx, time.Duration(o.rng.Int64N(int64(30*time.Second)))) == nil {
		l := o.w.order[o.rng.IntN(len(o.w.order))].alive()
		if l == nil {
			continue
		}
		if what := o.change(ctx, l); what != "" {
			o.w.tell("%s %s", o.name, what)
		}
	}
}

// change asks for another version of the service, of any kind.
func (o *simOperator) change(ctx context.Context, l *simLife) string {
	r, ok := o.do(ctx, l, http.MethodGet, "/services/"+o.name, nil)
	if !ok {
		return ""
	}
	var s swarm.Service
	method, path := http.MethodPost, "/services/create"
	switch o.outcome(r) {
	case sim.Done:
		o.decode(r, &s)
		path = fmt.Sprintf("/services/%s/update?version=%d", o.name, s.Version.Index)
	case sim.Missing:
	default:
		return ""
	}
	next := o.spec(len(o.asked) + 1)
	a := simAsked{image: next.TaskTemplate.ContainerSpec.Image}
	r, ok = o.do(ctx, l, method, path, next)
	outcome := sim.Unknown
	if ok {
		outcome = o.outcome(r)
	}
	switch outcome {
	case sim.Done:
		a.known = true
	case sim.Conflict, sim.Exists, sim.Refused, sim.Missing:
		a.refused = true
	}
	o.asked = append(o.asked, a)
	settings, _ := json.Marshal(next.UpdateConfig)
	return fmt.Sprintf("to %s, %s: %s", a.image, settings, outcome)
}

// spec is the nth version.
func (o *simOperator) spec(n int) swarm.ServiceSpec {
	fates := []string{"good", "good", "good", "crash", "late", "rejected", "stuck"}
	s := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: o.name}}
	switch o.mode {
	case "job":
		s.Mode.ReplicatedJob = &swarm.ReplicatedJob{TotalCompletions: new(uint64(5)), MaxConcurrent: new(uint64(2))}
		fates = []string{"done"}
	case "global job":
		s.Mode.GlobalJob = &swarm.GlobalJob{}
		fates = []string{"done"}
	case "global":
		s.Mode.Global = &swarm.GlobalService{}
	default:
		s.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(1 + o.rng.Uint64N(5))}
	}
	s.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: fmt.Sprintf("%s-%d", fates[o.rng.IntN(len(fates))], n)}
	if len(fates) == 1 {
		return s
	}
	s.Labels = map[string]string{"shoal.start-timeout": "20s"}
	one := func(of ...string) string { return of[o.rng.IntN(len(of))] }
	s.UpdateConfig = &swarm.UpdateConfig{
		Parallelism: o.rng.Uint64N(4), Delay: time.Duration(o.rng.IntN(3)) * time.Second, Monitor: 5 * time.Second,
		FailureAction: one("rollback", "rollback", "pause", "continue"), Order: one("start-first", "stop-first"),
	}
	s.RollbackConfig = &swarm.UpdateConfig{
		Parallelism: o.rng.Uint64N(4), Monitor: 5 * time.Second,
		FailureAction: one("pause", "continue"), Order: one("start-first", "stop-first"),
	}
	return s
}

// judge says what is wrong with the service, when all has come to rest.
func (o *simOperator) judge(v *store.View) string {
	s, ok := v.Services.One(store.ByName, o.name)
	if !ok {
		if slices.ContainsFunc(o.asked, func(a simAsked) bool { return a.known }) {
			return "it is gone"
		}
		o.end = "never made"
		return ""
	}
	r, ok := v.Revisions.Get(s.Revision)
	if !ok || !reflect.DeepEqual(r.Spec.TaskTemplate, s.Spec.TaskTemplate) {
		return fmt.Sprintf("the spec and the revision %s differ", s.Revision)
	}
	image, _, _ := strings.Cut(s.Spec.TaskTemplate.ContainerSpec.Image, ":")
	state := swarm.UpdateState("completed")
	if s.UpdateStatus != nil {
		state = s.UpdateStatus.State
	}
	o.end = string(state)
	back := strings.HasPrefix(o.end, "rollback_")
	if !o.asks(image, back) {
		return fmt.Sprintf("it is at %s, %s, which nobody asked for last: %+v", image, state, o.asked)
	}
	if api.Job(s.Spec.Mode) {
		o.end = "job"
		return o.jobDone(v, s)
	}
	c := s.Spec.UpdateConfig
	if back {
		c = s.Spec.RollbackConfig
	}
	action := c.FailureAction
	good := fateOf(image) == "good"
	switch state {
	case swarm.UpdateStatePaused, swarm.UpdateStateRollbackPaused:
		// A container of a good image may have been killed at the wrong moment.
		if action != swarm.UpdateFailureActionPause && !strings.Contains(s.UpdateStatus.Message, "rolling back is not possible") {
			return "it is paused, and its settings do not say so: " + s.UpdateStatus.Message
		}
		return ""
	case swarm.UpdateStateCompleted, swarm.UpdateStateRollbackCompleted:
		// What runs longer than it is watched is good enough; and that something
		// has crashed may become known later than it would have counted.
		runs := good || fateOf(image) == "late" || fateOf(image) == "crash"
		if !runs && action != swarm.UpdateFailureActionContinue && s.Previous != nil {
			return "a bad image stands"
		}
		return o.whole(v, s, good)
	}
	return fmt.Sprintf("it is %s", state)
}

// asks tells whether an image may be the last that was asked for, or the one before
// if the last was rolled back.
func (o *simOperator) asks(image string, back bool) bool {
	for i := len(o.asked) - 1; i >= 0; i-- {
		a := o.asked[i]
		switch {
		case a.refused:
		case a.image == image && !back:
			return true
		case a.known:
			return back && o.earlier(i, image)
		case back && o.earlier(i, image):
			return true
		}
	}
	return false
}

// earlier tells whether an image may have been in place before the nth change: it
// was asked for, or gone back to.
func (o *simOperator) earlier(n int, image string) bool {
	return slices.ContainsFunc(o.asked[:n], func(a simAsked) bool { return a.image == image && !a.refused })
}

// whole says what the service's slots lack.
func (o *simOperator) whole(v *store.View, s *api.Service, running bool) string {
	want := len(o.w.workers)
	if r := s.Spec.Mode.Replicated; r != nil {
		want = int(*r.Replicas)
	}
	slots := map[string]bool{}
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if t.DesiredState != swarm.TaskStateRunning && t.DesiredState != swarm.TaskStateReady {
			continue
		}
		key := fmt.Sprint(t.Slot, t.Home)
		switch {
		case slots[key]:
			return "slot " + key + " has two tasks"
		case t.Revision != s.Revision:
			return "slot " + key + " has another revision"
		case running && t.Status.State != swarm.TaskStateRunning:
			return "slot " + key + " does not run"
		}
		slots[key] = true
	}
	if len(slots) != want {
		return fmt.Sprintf("%d slots of %d", len(slots), want)
	}
	return ""
}

// jobDone says what a job has yet to do.
func (o *simOperator) jobDone(v *store.View, s *api.Service) string {
	done := map[string]bool{}
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if t.Iteration != nil && *t.Iteration == s.JobStatus.JobIteration.Index && t.Status.State == swarm.TaskStateComplete {
			done[fmt.Sprint(t.Slot, t.Home)] = true
		} else if (t.DesiredState == swarm.TaskStateRunning || t.DesiredState == swarm.TaskStateReady) && !api.Terminal(t.Status.State) {
			return "task " + t.ID + " is still wanted"
		}
	}
	want := len(o.w.workers)
	if j := s.Spec.Mode.ReplicatedJob; j != nil {
		want = int(*j.TotalCompletions)
	}
	if len(done) != want {
		return fmt.Sprintf("%d of %d completed", len(done), want)
	}
	return ""
}
