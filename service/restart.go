package service

import (
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

const (
	// DefaultDelay is the wait before the first restart where the spec names
	// none. Swarm waits 5 s every time, because that wait is also all that
	// slows down a crash loop. Here the back-off does that, so that a single
	// crash need not cost more than a moment.
	DefaultDelay = time.Second
	// maxBackOff bounds the wait after many failures: a cause that has gone
	// away is noticed within minutes. A longer delay in the spec stands.
	maxBackOff = 5 * time.Minute
	// stableRun is how long a task must have run for its end to count as the
	// first failure again, where the spec has no window of its own.
	stableRun = time.Minute
	// minBackOff is what doubles where the spec asks for no delay at all.
	minBackOff = time.Second
	// worthSaying is the shortest wait that is put back on a task's status
	// after its node reported something else.
	worthSaying = 3 * time.Second
)

// policy is a restart policy with nothing left open.
type policy struct {
	condition swarm.RestartPolicyCondition
	delay     time.Duration

	maxAttempts uint64 // 0 for no limit
	stable      time.Duration
}

func policyOf(r *api.Revision) policy {
	p := policy{condition: swarm.RestartPolicyConditionAny, delay: DefaultDelay, stable: stableRun}
	spec := r.Spec.TaskTemplate.RestartPolicy
	if spec == nil {
		return p
	}
	if spec.Condition != "" {
		p.condition = spec.Condition
	}
	if spec.Delay != nil {
		p.delay = *spec.Delay
	}
	if spec.MaxAttempts != nil {
		p.maxAttempts = *spec.MaxAttempts
	}
	if spec.Window != nil && *spec.Window > 0 {
		p.stable = *spec.Window
	}
	return p
}

// restarts tells whether a task that ended by itself is to be replaced.
func (p policy) restarts(t *task, stable bool) bool {
	switch p.condition {
	case swarm.RestartPolicyConditionNone:
		return false
	case swarm.RestartPolicyConditionOnFailure:
		if t.Status.State == swarm.TaskStateComplete {
			return false
		}
	}
	// The attempts in a row count, so that neither the window nor the length
	// of the history changes what the limit means.
	return stable || p.maxAttempts == 0 || uint64(t.Attempts) < p.maxAttempts
}

// wait is the back-off before a replacement starts, after so many failures in a
// row: the policy's delay, doubling from the second failure on. To complete is
// no failure, and no crash loop: some run on a timer this way.
func (p policy) wait(t *api.Task, failures int) time.Duration {
	if failures <= 1 || t.Status.State == swarm.TaskStateComplete {
		return p.delay
	}
	d := float64(max(p.delay, minBackOff)) * math.Pow(2, float64(failures-1))
	limit := max(p.delay, maxBackOff)
	wait := time.Duration(min(d, float64(limit)))
	return wait + time.Duration(float64(wait)*jitter(t.ID, failures))
}

// jitter spreads restarts that failed together by up to a tenth. It depends on
// nothing but the task and the attempt, so that every plan says the same.
func jitter(taskID string, failures int) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", taskID, failures)
	return float64(h.Sum64()%1000) / 10000
}

// stable tells whether a task that ended had run long enough for its end not to
// say anything about its start. One never seen running was not.
func (p *planner) stable(t *task) bool {
	since := p.runningSince(t.ID)
	return !since.IsZero() && t.UpdatedAt.Sub(since) >= p.stableAfter(t)
}

// stableAfter is the one notion of a stable run, for restarts and updates: an
// update must not call a task good that the back-off still counts as failing.
func (p *planner) stableAfter(t *task) time.Duration {
	return max(policyOf(p.revision(t)).stable, p.config().Monitor)
}

// restart replaces tasks that ended by themselves. Each slot goes by its own
// failures alone.
func (p *planner) restart() {
	for _, s := range p.slots {
		for _, t := range s.wanted() {
			if t.over() {
				p.replace(s, t)
			} else if p.late(t) {
				p.giveUp(s, t)
			}
		}
	}
}

// late tells whether a task has had the time that its service gives it to start.
// One that has no node yet is late only for an update, which must not wait for
// room for ever; otherwise to give up would bring nothing but another such task.
func (p *planner) late(t *task) bool {
	switch {
	case t.StartBy.IsZero() || t.running():
		return false
	case t.NodeID == "" && (!p.updating() || p.starting()):
		return false
	case t.StartBy.After(p.now):
		p.wakeAt(t.StartBy)
		return false
	}
	return true
}

// giveUp stops a task that did not start in time. The attempt counts as failed,
// and the policy about tasks that ended by themselves does not apply.
func (p *planner) giveUp(s *slot, t *task) {
	n := p.create(s, t.Revision)
	n.Attempts, n.Failures = t.Attempts+1, t.Failures+1
	n.NotBefore = p.now.Add(policyOf(p.revision(t)).wait(t.Task, n.Failures))
	n.Status.Err = waiting(n.Task) + ": it was not running within the time that shoal.start-timeout gives"
	if t.Status.Err != "" {
		n.Status.Err += " (" + t.Status.Err + ")"
	}
	t.stop()
}

// replace puts a new task in the place of one that ended by itself, if the
// restart policy wants that.
func (p *planner) replace(s *slot, t *task) (replaced bool) {
	// A job that ran long before it failed has failed all the same.
	policy, stable := policyOf(p.revision(t)), p.stable(t) && t.Iteration == nil
	if !policy.restarts(t, stable) {
		return false
	}
	n := p.create(s, t.Revision)
	if !stable {
		n.Attempts = t.Attempts + 1
		if t.Status.State != swarm.TaskStateComplete {
			n.Failures = t.Failures + 1
		}
	}
	if wait := policy.wait(t.Task, n.Failures); wait > 0 {
		n.NotBefore = t.UpdatedAt.Add(wait)
		n.Status.Err = waiting(n.Task)
		if t.Status.Err != "" {
			n.Status.Err += ": " + t.Status.Err
		}
	}
	t.stop()
	return true
}

// backingOff tells whether a task must not even be prepared yet. After a stable
// run a node may prepare the replacement ahead of its time; after a failure it
// may be the preparing that fails, as for an image that does not exist, and that
// must not be repeated without a wait.
func (p *planner) backingOff(t *task) bool { return t.Failures > 0 && t.NotBefore.After(p.now) }

// waiting says what a task in back-off waits for.
func waiting(t *api.Task) string {
	at := t.NotBefore.UTC().Format("15:04:05")
	switch t.Failures {
	case 0:
		return fmt.Sprintf("restart waits until %s UTC", at)
	case 1:
		return fmt.Sprintf("restart waits until %s UTC after a failure", at)
	}
	return fmt.Sprintf("restart %d waits until %s UTC after %d failures in a row", t.Failures, at, t.Failures)
}

// isWaiting tells whether a task's status is about its back-off. What follows
// the wait itself is the error that it is about.
func isWaiting(t *api.Task) bool { return strings.HasPrefix(t.Status.Err, waiting(t)) }

// sayWaiting puts the back-off on a task that its node has prepared: the node's
// report replaced what was said when the task was created.
func (p *planner) sayWaiting(t *task) {
	if t.NodeID == "" || t.Status.Err != "" || t.Status.State != swarm.TaskStateReady {
		return
	}
	if t.NotBefore.Sub(p.now) > worthSaying {
		t.edit().Status.Err = waiting(t.Task)
	}
}
