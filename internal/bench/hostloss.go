package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"shoal/internal/testbed"
)

const (
	// hostLosses is how often a host is lost, at least.
	hostLosses = 10
	// spreadTasks is how many tasks there are, on four hosts.
	spreadTasks = 8
	// callEvery is how often a new connection is made meanwhile.
	callEvery = 10 * time.Millisecond
	// callTime is after what a connection counts as one to the lost host: many
	// times what any other takes, and less than the kernel's second try.
	callTime = 900 * time.Millisecond
)

// hostloss measures what the loss of a worker's host costs.
func hostloss(ctx context.Context, l *lab) error {
	return withMany(ctx, l, 3, 1, func(m *many) error {
		var silent, elsewhere []float64
		for range max(hostLosses, l.rounds) {
			s, e, err := m.loseWorker(ctx)
			if err != nil {
				return err
			}
			silent, elsewhere = append(silent, s), append(elsewhere, e)
		}
		fmt.Printf("\nA worker's host is lost\n")
		spread("no new connection goes to it after", silent)
		spread("its tasks run elsewhere after", elsewhere)
		return nil
	})
}

func (m *many) loseWorker(ctx context.Context) (silent, elsewhere float64, err error) {
	api, lost := m.apis[m.hosts[0]], m.hosts[3]
	made, err := api.ServiceCreate(ctx, publish(webService(spreadTasks), meshPort), swarm.ServiceCreateOptions{})
	if err != nil {
		return 0, 0, err
	}
	nodes, err := api.NodeList(ctx, swarm.NodeListOptions{Filters: filters.NewArgs(filters.Arg("name", lost.Name))})
	if err != nil || len(nodes) != 1 {
		return 0, 0, fmt.Errorf("%d nodes are called %s: %w", len(nodes), lost.Name, err)
	}
	if err := testbed.Poll(ctx, convergence, func() error { return runsBut(ctx, api, "") }); err != nil {
		return 0, 0, err
	}
	calls := m.call(ctx, fmt.Sprintf("http://%s:%d/", m.hosts[0].IP, meshPort))
	defer calls.end()

	at := time.Now()
	if err := lost.LinkDown(); err != nil { // or its kernel would answer for it
		return 0, 0, err
	}
	go func() { calls.crashed <- lost.Crash(ctx) }()
	if err := testbed.Poll(ctx, convergence, func() error { return runsBut(ctx, api, nodes[0].ID) }); err != nil {
		return 0, 0, err
	}
	elsewhere = since(at)
	if err := <-calls.crashed; err != nil {
		return 0, 0, err
	}
	calls.end()
	silent = milliseconds(max(0, calls.lastLost.Sub(at)))

	if err := lost.LinkUp(); err != nil {
		return 0, 0, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lost.StartEngine(gctx) }) // as at a boot: each may need the other
	g.Go(func() error { return lost.StartShoal(gctx) })
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	if err := m.whole(ctx, 3); err != nil {
		return 0, 0, err
	}
	if err := api.ServiceRemove(ctx, made.ID); err != nil {
		return 0, 0, err
	}
	return silent, elsewhere, testbed.Poll(ctx, convergence, func() error {
		for _, h := range m.hosts {
			if out := h.EngineDocker("ps", "-q"); out.Err() != nil || out.Stdout != "" {
				return fmt.Errorf("%s still runs %q (%v)", h.Name, out.Stdout, out.Err())
			}
		}
		return nil
	})
}

// runsBut tells whether all tasks run, none of them on a node.
func runsBut(ctx context.Context, api *client.Client, nodeID string) error {
	all, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("desired-state", "running"))})
	if err != nil {
		return err
	}
	up := 0
	for _, t := range all {
		if t.Status.State == swarm.TaskStateRunning && t.NodeID != nodeID {
			up++
		}
	}
	if up != spreadTasks {
		return fmt.Errorf("%d of %d tasks run", up, spreadTasks)
	}
	return nil
}

// callStream is a stream of new connections to a published port.
type callStream struct {
	stop    context.CancelFunc
	wait    sync.WaitGroup
	crashed chan error

	mu       sync.Mutex
	lastLost time.Time // when the last was begun that nobody answered
}

func (m *many) call(ctx context.Context, url string) *callStream {
	ctx, cancel := context.WithCancel(ctx)
	s := &callStream{stop: cancel, crashed: make(chan error, 1)}
	c := m.bed.Client().HTTP()
	c.Timeout = callTime
	s.wait.Go(func() {
		tick := time.NewTicker(callEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.wait.Go(func() { s.one(c, url) })
		}
	})
	return s
}

func (s *callStream) one(c *http.Client, url string) {
	begin := time.Now()
	resp, err := c.Get(url)
	if err == nil {
		_ = resp.Body.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if begin.After(s.lastLost) {
		s.lastLost = begin
	}
}

func (s *callStream) end() {
	s.stop()
	s.wait.Wait()
}
