package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/session"
	"shoal/internal/sim"
	"shoal/internal/store"
	"shoal/task"
	"shoal/task/fake"
)

// simWorker is a node that is no manager: the product's worker and session, over
// an engine that pretends. Its host can be cut off, lost and started again.
type simWorker struct {
	w      *simWorld
	id     string
	engine *simEngine
	busy   atomic.Bool // something happens to it

	mu    sync.Mutex
	cut   bool
	ways  map[*simWay]bool // to managers
	guess int              // whom to ask for the leader
	hint  string           // who is said to be
	stop  func()           // of its daemon
}

func newSimWorker(w *simWorld, id string) *simWorker {
	return &simWorker{w: w, id: id, engine: newSimEngine(w, id), ways: map[*simWay]bool{}}
}

// start runs its daemon.
func (n *simWorker) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var client *session.Client
	worker := task.New(task.Config{Executor: n.engine, Report: func(r []api.TaskReport) { client.Report(r) }})
	client = session.NewClient(session.ClientConfig{
		Leader: n.leader,
		Moved:  func(id, _ string) { n.mu.Lock(); n.hint = id; n.mu.Unlock() },
		Apply:  func(_ context.Context, s *api.NodeState) error { worker.Set(s); return nil },
		Online: worker.Online,
		Log:    zap.NewNop(),
	})
	worker.Online(false)
	h := session.Hello{Addr: simAddr(n.id), DataPath: "10.0.0.1"}
	var runs sync.WaitGroup
	runs.Go(func() {
		watchEngine(ctx, n.engine, zap.NewNop(), func(w engineWord) {
			w.say(&h)
			client.Hello(h)
		})
	})
	runs.Go(func() { _ = worker.Run(ctx) })
	runs.Go(func() { _ = client.Run(ctx) })
	n.stop = func() { cancel(); runs.Wait() }
}

// restart is what an upgrade of the daemon does: containers run on.
func (n *simWorker) restart() {
	n.stop()
	n.start()
}

// crash takes the host and all that runs on it away, and brings it back.
func (n *simWorker) crash(back time.Duration) {
	n.stop()
	n.engine.Away()
	n.engine.endAll()
	_ = n.w.sleep(context.Background(), back)
	n.engine.Back()
	n.start()
}

// unplug cuts the host off for a time; what runs there runs on.
func (n *simWorker) unplug(d time.Duration) {
	n.mu.Lock()
	n.cut = true
	for way := range n.ways {
		way.reset()
	}
	n.mu.Unlock()
	_ = n.w.sleep(context.Background(), d)
	n.mu.Lock()
	n.cut = false
	n.mu.Unlock()
}

// leader gives the way to the manager that is said to lead, or to the next one.
func (n *simWorker) leader(context.Context) (http.RoundTripper, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.hint
	n.hint = ""
	if id == "" {
		n.guess++
		id = n.w.order[n.guess%len(n.w.order)].id
	}
	l := n.w.hosts[id].alive()
	if n.cut || l == nil {
		return nil, "", sim.ErrReset
	}
	return &simWay{from: n, to: l}, "http://" + id, nil
}

// simWay carries one session between a worker and a manager.
type simWay struct {
	from *simWorker
	to   *simLife

	mu   sync.Mutex
	ends []func(error)
}

// RoundTrip answers as soon as the manager begins to, and goes on both ways.
func (s *simWay) RoundTrip(req *http.Request) (*http.Response, error) {
	n := s.from
	n.mu.Lock()
	n.ways[s] = true
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(req.Context())
	down, w := io.Pipe()
	up, r := io.Pipe()
	out := &simAnswer{way: s, ctx: ctx, pipe: w, up: up, header: http.Header{}, begun: make(chan struct{})}
	s.onEnd(func(err error) {
		cancel()
		_ = w.CloseWithError(err)
		_ = up.CloseWithError(err)
	})
	stop := context.AfterFunc(s.to.ctx, s.reset)
	n.w.rest.Go(func() {
		_, err := io.Copy(r, req.Body)
		_ = r.CloseWithError(err)
	})
	n.w.rest.Go(func() {
		in := req.Clone(ctx)
		in.Header.Set(simNodeHeader, n.id)
		in.Body = up
		s.to.m.server.ServeHTTP(out, in)
		out.begin(http.StatusOK)
		s.end(io.EOF)
		_ = req.Body.Close()
		stop()
		n.mu.Lock()
		delete(n.ways, s)
		n.mu.Unlock()
	})
	select {
	case <-out.begun:
		return &http.Response{StatusCode: out.status, Header: out.header, Body: down, Request: req}, nil
	case <-ctx.Done():
		s.end(ctx.Err())
		return nil, ctx.Err()
	}
}

const simNodeHeader = "Sim-Node"

// simIdentify believes what a request says of its origin.
func simIdentify(r *http.Request) (string, error) {
	if id := r.Header.Get(simNodeHeader); id != "" {
		return id, nil
	}
	return "", errors.New("no certificate")
}

func (s *simWay) onEnd(f func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, f)
}

func (s *simWay) reset() { s.end(sim.ErrReset) }

func (s *simWay) end(err error) {
	s.mu.Lock()
	ends := s.ends
	s.ends = nil
	s.mu.Unlock()
	for _, f := range ends {
		f(err)
	}
}

// simAnswer is the manager's side of it.
type simAnswer struct {
	way    *simWay
	ctx    context.Context
	pipe   *io.PipeWriter
	up     *io.PipeReader
	header http.Header
	status int
	once   sync.Once
	begun  chan struct{}
}

func (a *simAnswer) begin(status int) { a.once.Do(func() { a.status = status; close(a.begun) }) }

func (a *simAnswer) Header() http.Header    { return a.header }
func (a *simAnswer) WriteHeader(status int) { a.begin(status) }
func (a *simAnswer) FlushError() error      { return nil }

// Write stands still with its host.
func (a *simAnswer) Write(p []byte) (int, error) {
	a.begin(http.StatusOK)
	if err := a.way.from.w.net.Gate(a.ctx, a.way.to.h.id); err != nil {
		return 0, err
	}
	return a.pipe.Write(p)
}

// SetReadDeadline is only ever used to end a session.
func (a *simAnswer) SetReadDeadline(time.Time) error {
	return a.up.CloseWithError(io.ErrUnexpectedEOF)
}

// SetWriteDeadline is, too.
func (a *simAnswer) SetWriteDeadline(time.Time) error {
	return a.pipe.CloseWithError(io.ErrUnexpectedEOF)
}

// simEngine runs containers whose image says what becomes of them: the word
// before the first dash.
type simEngine struct {
	*fake.Engine
	w *simWorld

	mu     sync.Mutex
	images map[string]string // by task
	tasks  map[string]string // by container
}

func newSimEngine(w *simWorld, id string) *simEngine {
	return &simEngine{
		Engine: fake.New(fake.Config{
			Description: swarm.NodeDescription{Hostname: id, Resources: swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 4 << 30}},

			Pull: 50 * time.Millisecond, Create: 100 * time.Millisecond, Start: 200 * time.Millisecond, Stop: 300 * time.Millisecond,
		}),
		w: w, images: map[string]string{}, tasks: map[string]string{},
	}
}

func fateOf(image string) string {
	fate, _, _ := strings.Cut(image, "-")
	return fate
}

func imageOf(a *api.Assignment) string {
	image, _, _ := strings.Cut(a.Revision.Spec.TaskTemplate.ContainerSpec.Image, ":")
	return image
}

func (e *simEngine) Pull(ctx context.Context, a *api.Assignment) error {
	if fateOf(imageOf(a)) == "stuck" {
		<-ctx.Done()
		return ctx.Err()
	}
	return e.Engine.Pull(ctx, a)
}

func (e *simEngine) Create(ctx context.Context, s *api.NodeState, a *api.Assignment) (string, error) {
	if fateOf(imageOf(a)) == "rejected" {
		return "", errors.New("No such image")
	}
	id, err := e.Engine.Create(ctx, s, a)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images[a.Task.ID], e.tasks[id] = imageOf(a), a.Task.ID
	return id, err
}

func (e *simEngine) Start(ctx context.Context, id string) error {
	if err := e.Engine.Start(ctx, id); err != nil {
		return err
	}
	e.mu.Lock()
	taskID := e.tasks[id]
	fate := fateOf(e.images[taskID])
	e.mu.Unlock()
	code, after := 0, 2*time.Second
	switch fate {
	case "crash":
		code = 1
	case "late":
		code, after = 1, 12*time.Second
	case "done":
	default:
		return nil
	}
	e.w.rest.Go(func() {
		_ = e.w.sleep(e.w.over, after)
		e.end(taskID, code)
	})
	return nil
}

// end lets a container exit, if it still runs.
func (e *simEngine) end(taskID string, code int) {
	if c := e.Container(taskID); c != nil && c.Phase == task.Running {
		e.Exit(taskID, code)
	}
}

func (e *simEngine) all() (ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.images {
		ids = append(ids, id)
	}
	return ids
}

func (e *simEngine) endAll() {
	for _, id := range e.all() {
		e.end(id, 137)
	}
}

// running lists the tasks whose containers run.
func (e *simEngine) running() map[string]bool {
	ids := map[string]bool{}
	for _, id := range e.all() {
		if c := e.Container(id); c != nil && c.Phase == task.Running {
			ids[id] = true
		}
	}
	return ids
}

// withWorkers adds nodes that run tasks. The managers run none.
func (w *simWorld) withWorkers(n int) {
	synctest.Wait()
	lead := w.leader().alive()
	for i := range n {
		w.workers = append(w.workers, newSimWorker(w, "w"+string(rune('1'+i))))
	}
	err := lead.m.store.Update(context.Background(), func(tx *store.Tx) error {
		for _, h := range w.order {
			m, _ := tx.Nodes.Get(h.id)
			m = api.Clone(m)
			m.Spec.Availability = swarm.NodeAvailabilityDrain
			m.SetStatus(swarm.NodeStatus{State: swarm.NodeStateDown}, time.Now())
			if err := tx.Put(m); err != nil {
				return err
			}
		}
		for _, n := range w.workers {
			node := &api.Node{Meta: api.Meta{ID: n.id}, Role: swarm.NodeRoleWorker, Addr: simAddr(n.id)}
			node.Spec.Role, node.Spec.Availability = swarm.NodeRoleWorker, swarm.NodeAvailabilityActive
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range w.workers {
		n.start()
	}
}
