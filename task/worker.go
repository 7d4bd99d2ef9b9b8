package task

import (
	"context"
	"runtime"
	"sync"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
)

// redialMin and redialMax bound the wait before the engine is tried again. An
// engine that restarts is back within seconds, and what became of its tasks is
// not known until then.
const (
	redialMin = 100 * time.Millisecond
	redialMax = 2 * time.Second
)

// startsPerCore keeps the cores busy while starts wait for a part of their time,
// for the disk and for the kernel to move interfaces. Measured with six tasks on
// two cores, against giving the engine all six at once: two starts at a time
// took 1.13 times as long, four 1.00 times, and more than four gained nothing.
const startsPerCore = 2

// Config says how a Worker does its work.
type Config struct {
	Executor Executor

	// Report is handed what became of tasks, never twice at once: what happens
	// while it runs goes into its next call, with each task's newest status
	// alone. Run does not end before it returns.
	Report func([]api.TaskReport)

	// Booted is when the host came up: what ended before that was stopped with
	// it. Zero if that is not known.
	Booted time.Time

	// StateDir is where the last wanted state is kept; "" keeps none.
	StateDir string

	// Starts is how many containers are made and started at once; 0 stands for
	// startsPerCore for each core.
	Starts int

	Log *zap.Logger
}

// Worker makes one engine run the tasks that the managers want on this node.
type Worker struct {
	cfg    Config
	log    *zap.Logger
	inbox  *inbox
	ledger *ledger
}

// New wires a Worker.
func New(cfg Config) *Worker {
	if cfg.Starts <= 0 {
		cfg.Starts = startsPerCore * runtime.NumCPU()
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Worker{cfg: cfg, log: cfg.Log.Named("task"), inbox: newInbox(), ledger: newLedger()}
}

// Set hands over the complete state that the managers want, and may be called
// at any time, also before Run. The newest call wins.
func (w *Worker) Set(s *api.NodeState) {
	w.inbox.put(func(m *mail) { m.state = s })
}

// Online says whether a manager speaks to this node, and may be called at any
// time, also before Run. While none does, what managers would do about a
// container that ends is done here, see alone.go. A worker that was told nothing
// leaves it to them.
func (w *Worker) Online(yes bool) {
	w.inbox.put(func(m *mail) { m.online = &yes })
}

// Run works until ctx ends. It leaves every container as it is: the next Run
// adopts them.
func (w *Worker) Run(ctx context.Context) error {
	l := newLoop(ctx, w)
	l.restore(w.load())

	var wg sync.WaitGroup
	wg.Go(func() { w.watch(ctx) })
	wg.Go(func() { w.ledger.reportTo(ctx, w.cfg.Report) })
	wg.Go(func() { w.save(ctx) })
	l.run(ctx)
	wg.Wait()
	return nil
}

// watch keeps a connection to the engine's events.
func (w *Worker) watch(ctx context.Context) {
	wait, away := redialMin, false
	for {
		err := w.cfg.Executor.Watch(ctx,
			func() {
				if away {
					w.log.Info("the engine is back")
				}
				wait, away = redialMin, false
				w.inbox.link(true)
			},
			func(taskID string) { w.inbox.put(func(m *mail) { m.hints[taskID] = struct{}{} }) })
		w.inbox.link(false)
		if ctx.Err() == nil && !away {
			away = true
			w.log.Warn("the engine is away; tasks keep their last known status", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, redialMax)
	}
}
