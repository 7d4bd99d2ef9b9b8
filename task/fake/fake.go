// Package fake is an engine that runs nothing: it keeps containers as records,
// takes as long as it is told to, and can be made to misbehave. It stands in
// for a real engine where thousands of nodes share one machine, and in tests.
package fake

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/task"
)

// Config says how an Engine behaves.
type Config struct {
	Description swarm.NodeDescription

	// How long things take.
	Pull, Create, Start, Stop, Networks time.Duration

	// Fail, when set, is asked before anything is done and gives the error it
	// ends with. Op is the name of the Executor's method.
	Fail func(op, taskID string) error
}

// Engine is the fake. It implements task.Executor.
type Engine struct {
	cfg Config

	mu         sync.Mutex
	containers map[string]*container // by ID
	networks   map[string]bool
	occupied   map[string]bool // networks that something else is on
	watchers   map[int]*watcher
	watched    int
	made       int
	started    int // gives each start a process of its own
	away       bool
	mute       bool
	calls      []string
	now        map[string]int // calls under way, by method
	most       map[string]int
}

type container struct {
	task.Container
	clusterID string
	networks  []string
}

type watcher struct {
	hint func(string)
	cut  chan struct{}
}

var _ task.Executor = (*Engine)(nil)

var errAway = fmt.Errorf("the engine is away: %w", errdefs.ErrUnavailable)

// New gives an engine without containers.
func New(cfg Config) *Engine {
	return &Engine{
		cfg: cfg, containers: map[string]*container{}, networks: map[string]bool{}, occupied: map[string]bool{},
		watchers: map[int]*watcher{}, now: map[string]int{}, most: map[string]int{},
	}
}

// enter begins a call: it counts it, and fails when the engine is away or told to.
func (e *Engine) enter(op, taskID string) (leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, strings.TrimSpace(op+" "+taskID))
	if e.away {
		return nil, errAway
	}
	if e.cfg.Fail != nil {
		if err := e.cfg.Fail(op, taskID); err != nil {
			return nil, err
		}
	}
	e.now[op]++
	e.most[op] = max(e.most[op], e.now[op])
	return func() {
		e.mu.Lock()
		e.now[op]--
		e.mu.Unlock()
	}, nil
}

// spend lets time pass, as work on an engine does.
func spend(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Watch implements task.Executor.
func (e *Engine) Watch(ctx context.Context, up func(), hint func(string)) error {
	leave, err := e.enter("Watch", "")
	if err != nil {
		return err
	}
	defer leave()
	e.mu.Lock()
	e.watched++
	id, w := e.watched, &watcher{hint: hint, cut: make(chan struct{})}
	e.watchers[id] = w
	e.mu.Unlock()
	up()
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.cut:
		err = io.EOF
	}
	e.mu.Lock()
	delete(e.watchers, id)
	e.mu.Unlock()
	return err
}

// List implements task.Executor.
func (e *Engine) List(_ context.Context, clusterID string) ([]task.Container, error) {
	leave, err := e.enter("List", "")
	if err != nil {
		return nil, err
	}
	defer leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	var cs []task.Container
	for _, c := range e.containers {
		if c.clusterID == clusterID {
			cs = append(cs, task.Container{ID: c.ID, TaskID: c.TaskID, Phase: c.Phase, Health: c.Health})
		}
	}
	slices.SortFunc(cs, func(a, b task.Container) int { return cmp.Compare(a.ID, b.ID) })
	return cs, nil
}

// Inspect implements task.Executor.
func (e *Engine) Inspect(_ context.Context, id string) (*task.Container, error) {
	leave, err := e.enter("Inspect", e.taskOf(id))
	if err != nil {
		return nil, err
	}
	defer leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil {
		return nil, fmt.Errorf("no such container %s: %w", id, errdefs.ErrNotFound)
	}
	seen := c.Container
	return &seen, nil
}

// Pull implements task.Executor.
func (e *Engine) Pull(ctx context.Context, a *api.Assignment) error {
	leave, err := e.enter("Pull", a.Task.ID)
	if err != nil {
		return err
	}
	defer leave()
	return spend(ctx, e.cfg.Pull)
}

// Create implements task.Executor.
func (e *Engine) Create(ctx context.Context, s *api.NodeState, a *api.Assignment) (string, error) {
	leave, err := e.enter("Create", a.Task.ID)
	if err != nil {
		return "", err
	}
	defer leave()
	if err := spend(ctx, e.cfg.Create); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.TaskID == a.Task.ID {
			return c.ID, nil
		}
	}
	c := e.add(s.ClusterID, a.Task.ID, task.Created)
	for _, n := range a.Task.Networks {
		c.networks = append(c.networks, n.NetworkID)
		e.networks[n.NetworkID] = true
	}
	if spec := a.Revision.Spec.TaskTemplate.ContainerSpec; spec != nil && spec.Healthcheck != nil {
		c.Health = task.Starting
	}
	return c.ID, nil
}

// Start implements task.Executor.
func (e *Engine) Start(ctx context.Context, id string) error {
	leave, err := e.enter("Start", e.taskOf(id))
	if err != nil {
		return err
	}
	defer leave()
	if err := spend(ctx, e.cfg.Start); err != nil {
		return err
	}
	return e.change(id, func(c *container) {
		e.started++
		c.Phase, c.PID, c.ExitCode = task.Running, 1000+e.started, 0
	})
}

// Stop implements task.Executor.
func (e *Engine) Stop(ctx context.Context, id string) error {
	leave, err := e.enter("Stop", e.taskOf(id))
	if err != nil {
		return err
	}
	defer leave()
	if err := spend(ctx, e.cfg.Stop); err != nil {
		return err
	}
	return e.change(id, func(c *container) {
		if c.Phase == task.Running {
			c.end(143)
		}
	})
}

// Remove implements task.Executor.
func (e *Engine) Remove(_ context.Context, id string) error {
	leave, err := e.enter("Remove", e.taskOf(id))
	if err != nil {
		return err
	}
	defer leave()
	return e.change(id, func(c *container) { delete(e.containers, c.ID) })
}

// SyncNetworks implements task.Executor.
func (e *Engine) SyncNetworks(ctx context.Context, state func() *api.NodeState) (bool, error) {
	leave, err := e.enter("SyncNetworks", "")
	if err != nil {
		return false, err
	}
	defer leave()
	s := state()
	inUse := e.dropNetworks(s)
	// An engine takes its time to answer, and things go on meanwhile.
	if err := spend(ctx, e.cfg.Networks); err != nil {
		return inUse, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, n := range s.Networks {
		if n.Spec.Attachable {
			e.networks[id] = true
		}
	}
	return inUse, nil
}

func (e *Engine) dropNetworks(s *api.NodeState) (inUse bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.networks {
		used := e.occupied[id] || slices.ContainsFunc(slices.Collect(maps.Values(e.containers)), func(c *container) bool {
			return slices.Contains(c.networks, id)
		})
		switch {
		case s.Networks[id] != nil:
		case used:
			inUse = true
		default:
			delete(e.networks, id)
		}
	}
	return inUse
}

// Ping tells whether the engine is there.
func (e *Engine) Ping(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.away {
		return errAway
	}
	return nil
}

// Describe gives the configured description.
func (e *Engine) Describe(ctx context.Context) (swarm.NodeDescription, error) {
	return e.cfg.Description, e.Ping(ctx)
}

// PublishedBy knows of no container that publishes a port.
func (e *Engine) PublishedBy(context.Context, string, uint16) (string, error) { return "", nil }

// Logs gives an empty stream for a task that has a container.
func (e *Engine) Logs(_ context.Context, taskID string, _ api.LogOptions) (io.ReadCloser, bool, error) {
	if e.Container(taskID) == nil {
		return nil, false, fmt.Errorf("task %s has no container: %w", taskID, errdefs.ErrNotFound)
	}
	return io.NopCloser(strings.NewReader("")), false, nil
}

// RemoveAll removes the cluster's containers and all networks; "" stands for
// every cluster.
func (e *Engine) RemoveAll(_ context.Context, clusterID string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.containers {
		if clusterID == "" || c.clusterID == clusterID {
			delete(e.containers, id)
		}
	}
	clear(e.networks)
	return nil
}

func (e *Engine) taskOf(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		return c.TaskID
	}
	return id
}

// change does something to a container and tells the watchers.
func (e *Engine) change(id string, f func(*container)) error {
	e.mu.Lock()
	c := e.containers[id]
	if c == nil {
		e.mu.Unlock()
		return fmt.Errorf("no such container %s: %w", id, errdefs.ErrNotFound)
	}
	f(c)
	taskID := c.TaskID
	var hints []func(string)
	for _, w := range e.watchers {
		if e.mute {
			break
		}
		hints = append(hints, w.hint)
	}
	e.mu.Unlock()
	for _, hint := range hints {
		hint(taskID)
	}
	return nil
}

func (e *Engine) add(clusterID, taskID string, p task.Phase) *container {
	e.made++
	c := &container{clusterID: clusterID, Container: task.Container{ID: fmt.Sprintf("c%06d", e.made), TaskID: taskID, Phase: p}}
	e.containers[c.ID] = c
	return c
}

func (c *container) end(code int) {
	c.Phase, c.PID, c.ExitCode, c.FinishedAt = task.Exited, 0, code, time.Now()
}
