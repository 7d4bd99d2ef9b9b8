package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/progress"
	"shoal/internal/compose"
)

const (
	// unplaceableFor is how long tasks without a node are waited for: those that an update replaces may have to end
	// first, and a node may be on its way back.
	unplaceableFor = 30 * time.Second
	// failures of one slot after which it is not expected to run any more. The cluster goes on trying.
	failuresEnough = 3
	// idleFor is how long nothing is on its way before what has failed counts as failed for good.
	idleFor = 5 * time.Second
	// noNode is in the words of the scheduler, and of Swarm's.
	noNode = "no suitable node"
)

// inARow is in the words of the managers, of a task that waits because those before it have failed.
var inARow = regexp.MustCompile(`after (\d+) failures in a row`)

// follower watches one service until it is known what becomes of it.
type follower struct {
	service compose.Service
	id      string
	applied applied
	watch   *progress.Watch
	frame   progress.Frame

	started bool // at least one task has run
	met     bool // every task that is wanted runs, or has completed
	done    bool
	code    int
	why     string
	failed  *swarm.Task // the last one that failed, or one that has no node

	known  map[string]bool // tasks that had failed before
	stuck  time.Time       // since when tasks have no node; zero if they have
	idle   time.Time       // since when nothing is on its way
	looked bool
}

func newFollower(service compose.Service, a applied) *follower {
	return &follower{service: service, id: a.id, applied: a, watch: progress.NewWatch(service.Spec.Name), known: map[string]bool{}}
}

// see folds one look at the service into what is known of it.
func (f *follower) see(o progress.Observation, now time.Time) {
	if u := o.Service.UpdateStatus; u != nil && f.stale(u) {
		o.Service.UpdateStatus = nil
	}
	var done bool
	var err error
	f.frame, done, err = f.watch.Observe(o, now)
	f.met = f.watch.Converged()
	counts := f.tally(o, now)
	f.looked = true
	u := o.Service.UpdateStatus
	moving := u != nil && (u.State == swarm.UpdateStateUpdating || u.State == swarm.UpdateStateRollbackStarted)
	switch {
	case err != nil:
		f.end(exitFailed, err.Error())
	case done && f.watch.RolledBack():
		f.end(exitRolledBack, "rolled back: "+u.Message)
	case done && !f.met:
		f.end(exitFailed, "updated, but not all of its tasks are running")
	case done, f.met && !f.applied.changed:
		f.end(0, "")
	case moving:
	case counts.most >= failuresEnough:
		f.end(exitFailed, fmt.Sprintf("its tasks fail again and again (%d times); the cluster goes on trying", counts.most))
	case counts.any && !f.idle.IsZero() && now.Sub(f.idle) >= idleFor:
		f.end(exitFailed, "its tasks have failed, and are not started again")
	case f.unplaceable() && now.Sub(f.stuck) >= unplaceableFor:
		f.end(exitUnplaceable, "tasks without a node; they start as soon as there is one")
	}
}

// stale is the status of an update that was over before this deployment.
func (f *follower) stale(u *swarm.UpdateStatus) bool {
	if !f.applied.changed {
		return true
	}
	b := f.applied.before
	return b != nil && b.StartedAt != nil && u.StartedAt != nil && b.StartedAt.Equal(*u.StartedAt)
}

func (f *follower) end(code int, why string) { f.done, f.code, f.why = true, code, why }

// unplaceable reports whether what is missing are nodes to run on.
func (f *follower) unplaceable() bool { return !f.stuck.IsZero() }

// tally is how often the tasks of one slot have failed, at most, and whether any did.
type tally struct {
	most int
	any  bool
}

// tally looks for tasks that say why the service is not yet as it should be.
func (f *follower) tally(o progress.Observation, now time.Time) tally {
	type slot struct {
		number int
		node   string
	}
	failures := map[slot]int{}
	var out tally
	var last, before, pending *swarm.Task
	active := false
	for i := range o.Tasks {
		t := &o.Tasks[i]
		switch t.Status.State {
		case swarm.TaskStateFailed, swarm.TaskStateRejected:
			if !f.looked && !f.applied.changed {
				f.known[t.ID] = true
			}
			if f.known[t.ID] {
				if before == nil || t.Status.Timestamp.After(before.Status.Timestamp) {
					before = t
				}
				continue
			}
			s := slot{number: t.Slot}
			if t.Slot == 0 {
				s.node = t.NodeID
			}
			failures[s]++
			out.any = true
			out.most = max(out.most, failures[s])
			if last == nil || t.Status.Timestamp.After(last.Status.Timestamp) {
				last = t
			}
		case swarm.TaskStatePending:
			active = true
			// A task that waits because others before it failed is pending, too.
			if strings.Contains(t.Status.Err, noNode) && t.DesiredState != swarm.TaskStateShutdown && t.DesiredState != swarm.TaskStateRemove {
				pending = t
			}
			// What was failing when nothing was changed need not fail as often again: by now that takes minutes.
			if m := inARow.FindStringSubmatch(t.Status.Err); m != nil && !f.applied.changed {
				if n, err := strconv.Atoi(m[1]); err == nil {
					out.most = max(out.most, n)
				}
			}
		case swarm.TaskStateRunning, swarm.TaskStateComplete:
			f.started = true
		default:
			active = active || !terminal(t.Status.State)
			h := o.Service.Spec.TaskTemplate.ContainerSpec
			if t.Status.State == swarm.TaskStateStarting && h != nil && h.Healthcheck != nil && t.Status.ContainerStatus != nil && t.Status.ContainerStatus.PID > 0 {
				f.started = true // it runs, and is not yet found healthy
			}
		}
	}
	if f.failed = last; last == nil && out.most > 0 {
		f.failed = before
	}
	if pending != nil && !f.met {
		f.failed = pending
	}
	f.stuck = since(f.stuck, pending != nil && !f.met, now)
	f.idle = since(f.idle, !active && !f.met, now)
	return out
}

// since is when something began that is so now.
func since(before time.Time, so bool, now time.Time) time.Time {
	switch {
	case !so:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

// combine shows many services in one frame: a line for each, and below them the tasks that are not running yet.
func combine(followers []*follower) progress.Frame {
	var all progress.Frame
	width := 0
	for _, f := range followers {
		width = max(width, len(f.service.Spec.Name))
	}
	for _, f := range followers {
		state := ""
		switch {
		case f.done && f.code != 0:
			state = f.why
		case f.done:
			state = "converged"
		case len(f.frame.Overall) > 0:
			state = strings.TrimPrefix(f.frame.Overall[0], "overall progress: ")
			if f.frame.Remaining > 0 {
				state += ", verifying that they are stable"
			}
		}
		all.Overall = append(all.Overall, fmt.Sprintf("%-*s  %s", width, f.service.Spec.Name, state))
		if f.frame.Note != "" {
			all.Note = strings.TrimPrefix(all.Note+"; "+f.service.Spec.Name+": "+f.frame.Note, "; ")
		}
		if f.done {
			continue
		}
		for _, slot := range f.frame.Slots {
			if slot.State != "running" && (slot.State != "" || slot.Err != "") {
				slot.Label = f.service.Spec.Name + " " + slot.Label
				all.Slots = append(all.Slots, slot)
			}
		}
	}
	return all
}
