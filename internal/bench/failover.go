package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

const (
	// failovers is how often a leader is lost in each way, for each round.
	failovers = 4
	// writeEvery is how often a write is begun while the managers elect, and so
	// the resolution of what is measured.
	writeEvery = 20 * time.Millisecond
)

// failover measures how long three managers take no write after their leader is
// lost.
func failover(ctx context.Context, l *lab) error {
	return withMany(ctx, l, 3, 0, func(m *many) error {
		ways := []struct {
			name       string
			lose, back func(context.Context, *testbed.Host) error
		}{
			{
				"leader killed (-9)",
				func(ctx context.Context, h *testbed.Host) error { return h.KillShoal(ctx) },
				func(ctx context.Context, h *testbed.Host) error { return h.StartShoal(ctx) },
			},
			{
				"leader cut off",
				func(_ context.Context, h *testbed.Host) error { return h.LinkDown() },
				func(_ context.Context, h *testbed.Host) error { return h.LinkUp() },
			},
		}
		fmt.Printf("\nTime until a write succeeds again\n")
		for _, way := range ways {
			var took []float64
			for range failovers * l.rounds {
				_, leader, err := m.look(ctx)
				if err != nil {
					return err
				}
				at := time.Now()
				if err := way.lose(ctx, leader); err != nil {
					return err
				}
				api := m.apis[m.others(3, leader)[len(took)%2]]
				if err := firstWrite(ctx, api); err != nil {
					return err
				}
				took = append(took, since(at))
				if err := way.back(ctx, leader); err != nil {
					return err
				}
				if err := m.whole(ctx, 3); err != nil {
					return err
				}
				if err := m.tidy(ctx, api); err != nil {
					return err
				}
			}
			spread(way.name, took)
		}
		return nil
	})
}

// firstWrite begins writes until one of them has succeeded.
func firstWrite(ctx context.Context, api *client.Client) error {
	ctx, stop := context.WithTimeout(ctx, convergence)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	ok := make(chan struct{}, 1)
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		wg.Go(func() {
			if _, err := api.ServiceCreate(ctx, small(fmt.Sprintf("w%d", i)), swarm.ServiceCreateOptions{}); err == nil {
				select {
				case ok <- struct{}{}:
				default:
				}
			}
		})
		select {
		case <-ok:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no write succeeds: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// callers is how many clients call each manager during a hand-over.
const callers = 2

// handover counts the calls that fail while the leader goes as planned.
func handover(ctx context.Context, l *lab) error {
	return withMany(ctx, l, 3, 0, func(m *many) error {
		fmt.Printf("\nCalls by clients of the two other managers while the leader goes\n")
		ways := []struct {
			name     string
			leave    func(context.Context, *testbed.Host, *testbed.Host) error
			comeBack func(context.Context, *testbed.Host, *testbed.Host) error
		}{
			{
				"leader demoted",
				func(_ context.Context, leader, other *testbed.Host) error {
					return other.Shoal("node", "demote", leader.Name).Err()
				},
				func(_ context.Context, leader, other *testbed.Host) error {
					return other.Shoal("node", "promote", leader.Name).Err()
				},
			},
			{
				"leader stopped",
				func(ctx context.Context, leader, _ *testbed.Host) error { return leader.StopShoal(ctx) },
				func(ctx context.Context, leader, _ *testbed.Host) error { return leader.StartShoal(ctx) },
			},
			{
				"leader leaves",
				func(_ context.Context, leader, _ *testbed.Host) error {
					return leader.Shoal("swarm", "leave", "--force").Err()
				},
				func(_ context.Context, leader, other *testbed.Host) error { return join(leader, other, "manager") },
			},
		}
		for _, way := range ways {
			var c calls
			for range l.rounds {
				_, leader, err := m.look(ctx)
				if err != nil {
					return err
				}
				others := m.others(3, leader)
				end := c.begin(ctx, m, others)
				err = way.leave(ctx, leader, others[0])
				if err == nil {
					err = testbed.Poll(ctx, convergence, func() error {
						_, now, err := m.look(ctx)
						if err == nil && now == leader {
							err = fmt.Errorf("%s still leads", leader.Name)
						}
						return err
					})
				}
				c.more(ctx, callers*len(others)*20)
				end()
				if err != nil {
					return err
				}
				if err := way.comeBack(ctx, leader, others[0]); err != nil {
					return err
				}
				if err := m.whole(ctx, 3); err != nil {
					return err
				}
				if err := m.tidy(ctx, m.apis[others[0]]); err != nil {
					return err
				}
			}
			fmt.Printf("%-44s %3d times  %d calls, %d failed, slowest %s\n", way.name, l.rounds, c.made.Load(), len(c.failed), c.slowest.Round(time.Millisecond))
			for _, err := range c.failed[:min(3, len(c.failed))] {
				fmt.Printf("    %v\n", err)
			}
		}
		return nil
	})
}

// calls is a stream of reads and writes.
type calls struct {
	made atomic.Int64

	mu      sync.Mutex
	failed  []error
	slowest time.Duration
}

func (c *calls) begin(ctx context.Context, m *many, to []*testbed.Host) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, h := range to {
		for i := range callers {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						c.one(ctx, m.apis[h], n, fmt.Sprintf("%s-%d-%d", h.Name, i, n))
					}
				}
			})
		}
	}
	return func() {
		close(stop)
		wg.Wait()
	}
}

func (c *calls) one(ctx context.Context, api *client.Client, n int, name string) {
	begin := time.Now()
	var err error
	if n%2 == 0 {
		_, err = api.ServiceCreate(ctx, small(name), swarm.ServiceCreateOptions{})
	} else {
		_, err = api.NodeList(ctx, swarm.NodeListOptions{})
	}
	c.made.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slowest = max(c.slowest, time.Since(begin))
	if err != nil {
		c.failed = append(c.failed, err)
	}
}

// more waits until so many further calls were made.
func (c *calls) more(ctx context.Context, n int) {
	until := c.made.Load() + int64(n)
	for c.made.Load() < until && ctx.Err() == nil {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
		}
	}
}
