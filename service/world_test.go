package service

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store with an orchestrator, and nodes that run tasks the way the
// real ones report it. It lives in a synctest bubble, so that its time is
// virtual: wait lets everything that can happen now happen.
type world struct {
	t     *testing.T
	store *store.Store
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu sync.Mutex
	// fate decides what becomes of a task that was started: "" runs on,
	// "never" stays in preparation, "reject" is refused there, "crash 3s" fails
	// and "complete 3s" exits with 0 after that time.
	fate func(task *api.Task, image string) string
}

// starts and stops are how long nodes take.
const (
	starts = 300 * time.Millisecond
	stops  = 500 * time.Millisecond
)

func inWorld(t *testing.T, nodes int, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, store: store.New(), fate: func(*api.Task, string) string { return "" }}
		w.update(func(tx *store.Tx) error {
			ingress := &api.Network{Meta: api.Meta{ID: "ingress"}, Subnets: []api.Subnet{{
				Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1"),
			}}}
			ingress.Spec.Name, ingress.Spec.Ingress = "ingress", true
			if err := tx.Put(ingress); err != nil {
				return err
			}
			return tx.Put(&api.Cluster{Meta: api.Meta{ID: "cluster"}})
		})
		for i := range nodes {
			w.update(func(tx *store.Tx) error { return tx.Put(readyNode(fmt.Sprint("n", i+1))) })
		}
		ctx, cancel := context.WithCancel(t.Context())
		var sim sync.WaitGroup
		sim.Go(func() { w.runNodes(ctx, &sim) })
		w.lead()
		f(w)
		w.depose()
		cancel()
		sim.Wait()
	})
}

func readyNode(id string) *api.Node {
	n := &api.Node{Meta: api.Meta{ID: id}}
	n.Spec.Availability = swarm.NodeAvailabilityActive
	n.Status.State = swarm.NodeStateReady
	n.Description.Hostname = id
	n.Description.Resources = swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 1 << 30}
	return n
}

func (w *world) lead() {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.stop = cancel
	log := zaptest.NewLogger(w.t, zaptest.Level(zap.ErrorLevel))
	w.done.Go(func() {
		if err := New(Config{Store: w.store, Log: log}).Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) depose() {
	w.stop()
	w.done.Wait()
}

func (w *world) update(fn func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// runNodes plays every node that is ready.
func (w *world) runNodes(ctx context.Context, wg *sync.WaitGroup) {
	feed := w.store.Watch(api.KindTask, api.KindNode)
	defer feed.Close()
	busy := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-feed.Ready():
		}
		feed.Take()
		v := w.store.View()
		for t := range v.Tasks.All() {
			n, ok := v.Nodes.Get(t.NodeID)
			if !ok || n.Status.State != swarm.NodeStateReady || api.Terminal(t.Status.State) {
				continue
			}
			stopping := t.DesiredState == swarm.TaskStateShutdown || t.DesiredState == swarm.TaskStateRemove
			key := t.ID
			switch {
			case stopping:
				key += " stop"
			case t.DesiredState == swarm.TaskStateRunning:
				key += " run"
			default:
				key += " prepare"
			}
			w.mu.Lock()
			if !busy[key] {
				busy[key] = true
				wg.Go(func() {
					heard := w.runTask(ctx, t.ID, t.DesiredState)
					w.mu.Lock()
					defer w.mu.Unlock()
					busy[key] = heard // if not, the node says it again when it is back
				})
			}
			w.mu.Unlock()
		}
	}
}

// runTask does what the node does with a task, and tells whether the manager
// heard of all of it.
func (w *world) runTask(ctx context.Context, id string, desired swarm.TaskState) (heard bool) {
	pause := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	task, ok := w.store.View().Tasks.Get(id)
	if !ok {
		return true
	}
	rev, _ := w.store.View().Revisions.Get(task.Revision)
	w.mu.Lock()
	fate := w.fate(task, rev.Spec.TaskTemplate.ContainerSpec.Image)
	w.mu.Unlock()
	switch {
	case desired == swarm.TaskStateShutdown, desired == swarm.TaskStateRemove:
		return pause(stops) && w.report(id, swarm.TaskStateShutdown, "")
	case fate == "never":
		return w.report(id, swarm.TaskStatePreparing, "")
	case fate == "reject":
		return w.report(id, swarm.TaskStateRejected, "No such image")
	case desired == swarm.TaskStateReady:
		return pause(starts/2) && w.report(id, swarm.TaskStateReady, "")
	}
	if !pause(starts) || !w.report(id, swarm.TaskStateRunning, "") {
		return false
	}
	var after time.Duration
	if n, _ := fmt.Sscanf(fate, "crash %v", (*duration)(&after)); n == 1 {
		return pause(after) && w.report(id, swarm.TaskStateFailed, "task: non-zero exit (1)")
	}
	if n, _ := fmt.Sscanf(fate, "complete %v", (*duration)(&after)); n == 1 {
		return pause(after) && w.report(id, swarm.TaskStateComplete, "")
	}
	return true
}

type duration time.Duration

func (d *duration) Scan(st fmt.ScanState, _ rune) error {
	tok, err := st.Token(true, nil)
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(string(tok))
	*d = duration(v)
	return err
}

// report is what the session does with a node's word: never backwards, and
// nothing from a node that is down. It tells whether the word was heard.
func (w *world) report(id string, state swarm.TaskState, message string) (heard bool) {
	w.update(func(tx *store.Tx) error {
		heard = true
		t, ok := tx.Tasks.Get(id)
		if !ok || !api.Before(t.Status.State, state) || api.Terminal(t.Status.State) {
			return nil
		}
		if n, ok := tx.Nodes.Get(t.NodeID); !ok || n.Status.State != swarm.NodeStateReady {
			heard = false
			return nil
		}
		t = api.Clone(t)
		t.Status = swarm.TaskStatus{Timestamp: time.Now(), State: state, Err: message}
		return tx.Put(t)
	})
	return heard
}

// wait lets d pass, and then all that is due happen.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

type option func(*swarm.ServiceSpec)

func published(s *swarm.ServiceSpec) {
	s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress"}}}
}

func updating(c swarm.UpdateConfig) option {
	return func(s *swarm.ServiceSpec) { s.UpdateConfig = &c }
}

// create does what control does for a new service.
func (w *world) create(replicas uint64, image string, options ...option) {
	w.t.Helper()
	s := &api.Service{Meta: api.Meta{ID: "web"}}
	s.Spec.Name = "web"
	s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: image}
	for _, o := range options {
		o(&s.Spec)
	}
	if api.Job(s.Spec.Mode) {
		s.JobStatus = &swarm.JobStatus{LastExecution: time.Now()}
	}
	if e := s.Spec.EndpointSpec; e != nil {
		s.Endpoint.Ports = e.Ports
	}
	s.Revision = "web-1"
	w.update(func(tx *store.Tx) error {
		if err := tx.Put(&api.Revision{Meta: api.Meta{ID: s.Revision}, ServiceID: s.ID, Number: 1, Spec: s.Spec}); err != nil {
			return err
		}
		return tx.Put(s)
	})
}

// change does what control does for an update of the task template.
func (w *world) change(image string, options ...option) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		old, _ := tx.Services.Get("web")
		s := api.Clone(old)
		s.Previous, s.PreviousRevision = &old.Spec, old.Revision
		s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: image}
		for _, o := range options {
			o(&s.Spec)
		}
		var n uint64
		for r := range tx.Revisions.By(store.ByService, "web") {
			n = max(n, r.Number)
		}
		n++
		s.Revision = fmt.Sprint("web-", n)
		s.UpdateStatus = nil
		if j := old.JobStatus; j != nil {
			s.JobStatus = &swarm.JobStatus{JobIteration: swarm.Version{Index: j.JobIteration.Index + 1}, LastExecution: time.Now()}
		}
		r := &api.Revision{Meta: api.Meta{ID: s.Revision}, ServiceID: s.ID, Number: n, Spec: s.Spec}
		if was, ok := tx.Revisions.Get(old.Revision); ok && placedElsewhere(&was.Spec, &s.Spec) {
			r.Like = was.First()
		}
		if err := tx.Put(r); err != nil {
			return err
		}
		return tx.Put(s)
	})
}

func placedElsewhere(a, b *swarm.ServiceSpec) bool {
	x, y := a.TaskTemplate, b.TaskTemplate
	same := reflect.DeepEqual(x.Placement, y.Placement)
	x.Placement, y.Placement = nil, nil
	return !same && reflect.DeepEqual(x, y)
}

func (w *world) scale(n uint64) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		s, _ := tx.Services.Get("web")
		s = api.Clone(s)
		s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &n}
		return tx.Put(s)
	})
}

func (w *world) setNode(id string, f func(n *api.Node)) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		n, _ := tx.Nodes.Get(id)
		n = api.Clone(n)
		f(n)
		return tx.Put(n)
	})
}

func (w *world) service() *api.Service {
	s, _ := w.store.View().Services.Get("web")
	return s
}

// tasks lists tasks in the order of their slots, the oldest first.
func (w *world) tasks(keep func(*api.Task) bool) (out []*api.Task) {
	for t := range w.store.View().Tasks.All() {
		if keep == nil || keep(t) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *api.Task) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		if a.Home != b.Home {
			return strings.Compare(a.Home, b.Home)
		}
		return a.CreatedAt.Compare(b.CreatedAt)
	})
	return out
}

func isRunning(t *api.Task) bool {
	return t.Status.State == swarm.TaskStateRunning && t.DesiredState == swarm.TaskStateRunning
}

// running describes the tasks that run: slot, revision.
func (w *world) running() string {
	var out []string
	for _, t := range w.tasks(isRunning) {
		slot := t.Home
		if slot == "" {
			slot = fmt.Sprint(t.Slot)
		}
		out = append(out, fmt.Sprintf("%s:%s", slot, strings.TrimPrefix(t.Revision, "web-")))
	}
	return strings.Join(out, " ")
}

func (w *world) expectRunning(want string) {
	w.t.Helper()
	if got := w.running(); got != want {
		w.t.Fatalf("running %q, want %q%s", got, want, w.dump())
	}
}

func (w *world) expectUpdate(state swarm.UpdateState, message string) {
	w.t.Helper()
	st := w.service().UpdateStatus
	if st == nil || st.State != state || !strings.Contains(st.Message, message) {
		w.t.Fatalf("update status %+v, want %s with %q%s", st, state, message, w.dump())
	}
}

func (w *world) dump() string {
	var b strings.Builder
	for _, t := range w.tasks(nil) {
		fmt.Fprintf(&b, "\n  slot %d %s on %q: %s, wanted %s, failures %d, %s", t.Slot, t.Revision, t.NodeID, t.Status.State, t.DesiredState, t.Failures, t.Status.Err)
	}
	return b.String()
}

// expectQuiet changes leaders and checks that nothing is written.
func (w *world) expectQuiet() {
	w.t.Helper()
	before := w.store.View().Index
	w.depose()
	w.lead()
	w.wait(0)
	if after := w.store.View().Index; after != before {
		w.t.Fatalf("a new leader wrote %d entries%s", after-before, w.dump())
	}
}
