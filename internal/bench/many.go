package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"shoal/internal/testbed"
)

// manyName is the bed of the experiments that need several hosts.
const manyName = "benchmany"

// many is a cluster of several hosts: managers first, then workers.
type many struct {
	bed   *testbed.Bed
	hosts []*testbed.Host
	apis  map[*testbed.Host]*client.Client
}

// withMany runs an experiment on a cluster of its own.
func withMany(ctx context.Context, l *lab, managers, workers int, run func(*many) error) (err error) {
	if err := testbed.Remove(ctx, manyName, zap.NewNop()); err != nil {
		return err
	}
	bed, err := testbed.New(testbed.Config{Name: manyName, Hosts: managers + workers, Shoal: l.shoalPath, Owner: os.Getpid()})
	if err != nil {
		return err
	}
	m := &many{bed: bed, hosts: bed.Hosts(), apis: map[*testbed.Host]*client.Client{}}
	defer func() {
		for _, c := range m.apis {
			_ = c.Close()
		}
		err = errors.Join(err, bed.Down(context.WithoutCancel(ctx)))
	}()
	if err := bed.Up(ctx); err != nil {
		return err
	}
	if workers > 0 {
		if err := bed.ImportWeb(ctx, "."); err != nil {
			return err
		}
	}
	for i, h := range m.hosts {
		if err := h.StartShoal(ctx); err != nil {
			return err
		}
		if m.apis[h], err = h.API(); err != nil {
			return err
		}
		if err := m.enter(h, i < managers); err != nil {
			return err
		}
	}
	if err := m.whole(ctx, managers); err != nil {
		return err
	}
	return run(m)
}

// enter founds the cluster on the first host and joins any other to it.
func (m *many) enter(h *testbed.Host, manager bool) error {
	first := m.hosts[0]
	if h == first {
		return h.Shoal("swarm", "init").Err()
	}
	role := "worker"
	if manager {
		role = "manager"
	}
	return join(h, first, role)
}

func join(h, manager *testbed.Host, role string) error {
	token := manager.Shoal("swarm", "join-token", "-q", role)
	if err := token.Err(); err != nil {
		return err
	}
	return h.Shoal("swarm", "join", "--token", strings.TrimSpace(token.Stdout), manager.IP.String()+":2377").Err()
}

// rest is how long the cluster is left alone before it is hurt again: a manager
// that joins or is back is reachable a moment before it has caught up and votes,
// and nothing tells a client when.
const rest = time.Second

// whole waits until every node is ready and so many managers can be reached.
func (m *many) whole(ctx context.Context, managers int) error {
	select {
	case <-time.After(rest):
	case <-ctx.Done():
		return ctx.Err()
	}
	return testbed.Poll(ctx, convergence, func() error {
		nodes, _, err := m.look(ctx)
		if err != nil {
			return err
		}
		ready, reachable := 0, 0
		for _, n := range nodes {
			if n.Status.State == swarm.NodeStateReady {
				ready++
			}
			if n.ManagerStatus != nil && n.ManagerStatus.Reachability == swarm.ReachabilityReachable {
				reachable++
			}
		}
		if ready != len(m.hosts) || reachable != managers {
			return fmt.Errorf("%d nodes are ready and %d managers reachable", ready, reachable)
		}
		return nil
	})
}

// look lists the nodes, as the first manager that answers does, and finds the
// host that leads.
func (m *many) look(ctx context.Context) (nodes []swarm.Node, leader *testbed.Host, err error) {
	for _, h := range m.hosts {
		if nodes, err = m.apis[h].NodeList(ctx, swarm.NodeListOptions{}); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, n := range nodes {
		if n.ManagerStatus == nil || !n.ManagerStatus.Leader {
			continue
		}
		for _, h := range m.hosts {
			if h.Name == n.Description.Hostname {
				return nodes, h, nil
			}
		}
	}
	return nil, nil, errors.New("nobody leads")
}

// others are the managers but one.
func (m *many) others(managers int, but *testbed.Host) []*testbed.Host {
	return slices.DeleteFunc(slices.Clone(m.hosts[:managers]), func(h *testbed.Host) bool { return h == but })
}

// small is an object that costs nothing but being agreed upon.
func small(name string) swarm.ServiceSpec {
	s := webService(0)
	s.Name = name
	return s
}

// tidy removes what was written, as soon as somebody leads.
func (m *many) tidy(ctx context.Context, api *client.Client) error {
	return testbed.Poll(ctx, convergence, func() error {
		all, err := api.ServiceList(ctx, swarm.ServiceListOptions{})
		for i := 0; err == nil && i < len(all); i++ {
			err = api.ServiceRemove(ctx, all[i].ID)
		}
		return err
	})
}

// spread describes samples: how many, their median, and the least and the most.
func spread(name string, xs []float64) {
	fmt.Printf("%-44s %3d trials  median %s  least %s  worst %s ms\n", name, len(xs), digits(median(xs)), digits(slices.Min(xs)), digits(slices.Max(xs)))
}

// since is in milliseconds.
func since(t time.Time) float64 { return milliseconds(time.Since(t)) }
