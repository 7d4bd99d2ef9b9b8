package docker

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"shoal/internal/api"
)

// overlap is how far back a new stream of events reaches: what happens while
// the engine sets it up is not lost, and a clock may be a little off.
const overlap = 5 * time.Second

// Watch implements task.Executor.
func (e *Executor) Watch(ctx context.Context, up func(), hint func(taskID string)) error {
	c, err := e.connect(ctx)
	if err != nil {
		return err
	}
	e.probes.tell(hint)
	ctx, cancel := context.WithCancel(ctx)
	messages, errs := c.Events(ctx, events.ListOptions{
		Since: strconv.FormatInt(time.Now().Add(-overlap).Unix(), 10),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("label", labelCluster),
			filters.Arg("event", string(events.ActionKill)),
			filters.Arg("event", string(events.ActionStart)),
			filters.Arg("event", string(events.ActionDie)),
			filters.Arg("event", string(events.ActionOOM)),
			filters.Arg("event", string(events.ActionDestroy)),
			filters.Arg("event", string(events.ActionHealthStatus)),
		),
	})
	defer func() {
		cancel()
		for range errs { // closed when the client's goroutine has ended
		}
	}()
	up()
	for {
		select {
		case m := <-messages:
			switch m.Action {
			case events.ActionKill: // comes before the end that it may bring
				e.signals.note(m.Actor.ID, m.Actor.Attributes["signal"])
				continue
			case events.ActionStart:
				e.signals.forget(m.Actor.ID)
				continue
			case events.ActionDestroy:
				e.signals.forget(m.Actor.ID)
			}
			if id := m.Actor.Attributes[labelTaskID]; id != "" {
				hint(id)
			}
		case err, ok := <-errs:
			if !ok {
				return io.EOF
			}
			return say(err)
		}
	}
}

// Logs gives the output of a task's container, as the engine frames it: raw
// when it has a terminal, multiplexed otherwise.
func (e *Executor) Logs(ctx context.Context, taskID string, o api.LogOptions) (logs io.ReadCloser, tty bool, err error) {
	found, err := e.find(ctx, labelTaskID+"="+taskID)
	if err != nil {
		return nil, false, err
	}
	if len(found) == 0 {
		return nil, false, &engineError{text: "task " + taskID + " has no container", kind: errdefs.ErrNotFound}
	}
	c, err := e.engine(ctx)
	if err != nil {
		return nil, false, err
	}
	in, err := c.ContainerInspect(ctx, found[0].ID)
	if err != nil {
		return nil, false, say(err)
	}
	logs, err = c.ContainerLogs(ctx, in.ID, container.LogsOptions{
		ShowStdout: o.Stdout, ShowStderr: o.Stderr, Follow: o.Follow, Timestamps: o.Timestamps,
		Details: o.Details, Since: o.Since, Until: o.Until, Tail: o.Tail,
	})
	if err != nil {
		return nil, false, say(err)
	}
	return logs, in.Config != nil && in.Config.Tty, nil
}
