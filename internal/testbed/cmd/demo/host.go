package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

// victim is the host that dies: the last, for the story is told from the first.
// One host alone has nobody to take over.
func (s *story) victim() (*testbed.Host, bool) {
	n := len(s.bed.Hosts())
	return s.bed.Host(n - 1), n > 1
}

func (s *story) hostLoss(ctx context.Context) error {
	lost, ok := s.victim()
	if !ok {
		return nil
	}
	if err := s.chapter(ctx, "A host dies",
		fmt.Sprintf("%s: its cable is pulled, and all its processes are killed, engine and containers included.", lost.Name),
		"The client asks the other hosts for pages, 50 times a second.",
	); err != nil {
		return err
	}
	load := s.startLoad(ctx, slices.DeleteFunc(slices.Clone(s.bed.Hosts()), func(h *testbed.Host) bool { return h == lost }))
	begin := time.Now()
	if err := lost.LinkDown(); err != nil {
		return err
	}
	if err := lost.Crash(ctx); err != nil {
		return err
	}
	if err := s.elsewhere(ctx, lost); err != nil {
		return err
	}
	s.printf("   all its tasks run %s after %.1fs\n", s.paint(green, "elsewhere"), time.Since(begin).Seconds())
	s.printf("   %s\n\n", load.end())
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.run(ctx, s.first(), "shoal", "node", "ls"); err != nil {
		return err
	}
	return s.run(ctx, s.first(), "shoal", "service", "ps", "--filter", "desired-state=running", "web")
}

func (s *story) hostBack(ctx context.Context) error {
	lost, ok := s.victim()
	if !ok {
		return nil
	}
	if err := s.chapter(ctx, "It comes back",
		fmt.Sprintf("%s boots: cable, shoal daemon, engine. It is known, and needs no token.", lost.Name),
	); err != nil {
		return err
	}
	begin := time.Now()
	if err := lost.LinkUp(); err != nil {
		return err
	}
	if err := lost.Boot(ctx); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	tasks, containers, err := s.count(ctx)
	if err != nil {
		return err
	}
	s.printf("   %s is %s again after %.1fs\n", lost.Name, s.paint(green, "Ready"), took.Seconds())
	s.printf("   %d tasks should run, and %d containers do, on all hosts together\n\n", tasks, containers)
	if err := s.run(ctx, s.first(), "shoal", "node", "ls"); err != nil {
		return err
	}
	if err := s.run(ctx, s.first(), "shoal", "service", "scale", "--detach", "web=7"); err != nil {
		return err
	}
	if _, _, err := s.count(ctx); err != nil {
		return err
	}
	return s.run(ctx, s.first(), "shoal", "service", "ps", "--filter", "node="+lost.Name, "--filter", "desired-state=running", "web")
}

// settled waits until every node is ready, and every manager has its vote.
func (s *story) settled(ctx context.Context) error {
	return s.ask(ctx, func(api *client.Client) error {
		nodes, err := api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Status.State != swarm.NodeStateReady {
				return fmt.Errorf("%s is %s", n.Description.Hostname, n.Status.State)
			}
			if m := n.ManagerStatus; m != nil && m.Reachability != swarm.ReachabilityReachable {
				return fmt.Errorf("manager %s is %s", n.Description.Hostname, m.Reachability)
			}
		}
		return nil
	})
}

// elsewhere waits until every task of the service runs, and none of them on
// this host.
func (s *story) elsewhere(ctx context.Context, lost *testbed.Host) error {
	return s.ask(ctx, func(api *client.Client) error {
		node, _, err := api.NodeInspectWithRaw(ctx, lost.Name)
		if err != nil {
			return err
		}
		tasks, err := s.wanted(ctx, api)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if t.NodeID == node.ID {
				return fmt.Errorf("task %d is still on %s", t.Slot, lost.Name)
			}
			if t.Status.State != swarm.TaskStateRunning {
				return fmt.Errorf("task %d is %s", t.Slot, t.Status.State)
			}
		}
		return nil
	})
}

// count says how many tasks the managers want to run, and how many containers
// the engines have; it fails if these are not the same ones.
func (s *story) count(ctx context.Context) (tasks, containers int, err error) {
	err = s.ask(ctx, func(api *client.Client) error {
		wanted, err := s.wanted(ctx, api)
		if err != nil {
			return err
		}
		running, err := s.containers(ctx)
		if err != nil {
			return err
		}
		for _, c := range running {
			if !slices.ContainsFunc(wanted, func(t swarm.Task) bool { return strings.HasSuffix(c.name, "."+t.ID) }) {
				return fmt.Errorf("%s runs on %s, and should not", c.name, c.host.Name)
			}
		}
		tasks, containers = len(wanted), len(running)
		if tasks != containers {
			return fmt.Errorf("%d tasks should run, and %d containers do", tasks, containers)
		}
		return nil
	})
	return tasks, containers, err
}

func (s *story) wanted(ctx context.Context, api *client.Client) ([]swarm.Task, error) {
	return api.TaskList(ctx, swarm.TaskListOptions{
		Filters: filters.NewArgs(filters.Arg("service", "web"), filters.Arg("desired-state", "running")),
	})
}

// ask puts a question to the first host until the answer is as expected.
func (s *story) ask(ctx context.Context, question func(*client.Client) error) error {
	api, err := s.first().API()
	if err != nil {
		return err
	}
	defer api.Close()
	return testbed.Poll(ctx, settle, func() error { return question(api) })
}
