package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/progress"
)

// awaitDrain shows how far a node is drained until nothing runs on it, or the user stops watching.
func (s *session) awaitDrain(ctx context.Context, node swarm.Node) error {
	show := progress.NewDrain(s.out)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	answered := time.Now()
	for {
		now, _, err := s.conn.NodeInspectWithRaw(ctx, node.ID)
		var done bool
		if err == nil && now.Spec.Availability != swarm.NodeAvailabilityDrain {
			return fmt.Errorf("node %s is not to be drained any more: its availability is %q", node.Description.Hostname, now.Spec.Availability)
		}
		if err == nil && now.Status.State == swarm.NodeStateDown {
			return fmt.Errorf("node %s is down: whether its tasks have ended can not be known; they run on other nodes", node.Description.Hostname)
		}
		if err == nil {
			done, err = s.showDrain(ctx, node.ID, show)
		}
		switch {
		case ctx.Err() != nil:
			fmt.Fprintf(s.out, "Operation continuing in background.\nUse `shoal node ps %s` to check progress.\n", node.Description.Hostname)
			return nil
		case client.IsErrConnectionFailed(err) && time.Since(answered) < unreachableFor:
		case err != nil || done:
			return err
		default:
			answered = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}

func (s *session) showDrain(ctx context.Context, nodeID string, show *progress.Drain) (done bool, err error) {
	tasks, err := s.conn.TaskList(ctx, swarm.TaskListOptions{})
	if err != nil {
		return false, err
	}
	services, err := s.conn.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return false, err
	}
	names := map[string]string{}
	for _, service := range services {
		names[service.ID] = service.Spec.Name
	}
	return show.Show(nodeID, tasks, names)
}
