package progress

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// Drain shows how far a node is drained, a block of lines each time that changes.
type Drain struct {
	out  io.Writer
	last string
}

// NewDrain shows a drain on out.
func NewDrain(out io.Writer) *Drain { return &Drain{out: out} }

// Show tells what is new, and whether all is done: nothing of the cluster runs on the node any more. The tasks are all
// that there are, since what a task waits for is its successor elsewhere; services are names by ID.
func (d *Drain) Show(nodeID string, tasks []swarm.Task, services map[string]string) (done bool, err error) {
	var left []swarm.Task
	for _, t := range tasks {
		if t.NodeID == nodeID && !ended(t.Status.State) {
			left = append(left, t)
		}
	}
	slices.SortFunc(left, func(a, b swarm.Task) int {
		return cmp.Or(cmp.Compare(services[a.ServiceID], services[b.ServiceID]), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
	text := fmt.Sprintf("drain: %d tasks are left on the node", len(left))
	switch len(left) {
	case 0:
		text = "drain: no task is left on the node"
	case 1:
		text = "drain: 1 task is left on the node"
	}
	for i, t := range left {
		if i == maxLeft {
			text += fmt.Sprintf("\n  and %d more", len(left)-i)
			break
		}
		text += "\n  " + taskName(t, services) + ": " + waitsFor(t, tasks)
	}
	if text != d.last {
		d.last = text
		if _, err := fmt.Fprintln(d.out, text); err != nil {
			return false, err
		}
	}
	return len(left) == 0, nil
}

// maxLeft is how many tasks are shown that are left.
const maxLeft = 8

func taskName(t swarm.Task, services map[string]string) string {
	name := cmp.Or(services[t.ServiceID], t.ServiceID)
	if t.Slot == 0 {
		return name
	}
	return fmt.Sprintf("%s.%d", name, t.Slot)
}

// waitsFor says why a task is still there.
func waitsFor(t swarm.Task, tasks []swarm.Task) string {
	if t.DesiredState != swarm.TaskStateRunning {
		return "stopping"
	}
	for _, next := range tasks {
		if next.ServiceID != t.ServiceID || next.Slot != t.Slot || next.ID == t.ID || t.Slot == 0 || ended(next.Status.State) {
			continue
		}
		state := "its replacement is " + string(next.Status.State)
		if why := strings.TrimSpace(next.Status.Err); why != "" {
			state += ": " + why
		}
		return state
	}
	return "waits for a replacement"
}
