package task

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/wake"
)

// ledger holds what is known of every task, for those who pass it on: to the
// managers and to the disk. They read it at their own pace, and always the
// newest.
type ledger struct {
	report wake.Bell // wakes the reporter
	save   wake.Bell // wakes the saver

	mu     sync.Mutex
	state  *api.NodeState
	status map[string]status
	unsent map[string]struct{}
}

func newLedger() *ledger {
	return &ledger{
		report: wake.NewBell(),
		save:   wake.NewBell(),
		status: map[string]status{},
		unsent: map[string]struct{}{},
	}
}

// setState records what is wanted; worthSaving tells whether it differs from
// before in more than the managers' echo of our own reports.
func (l *ledger) setState(s *api.NodeState, worthSaving bool) {
	l.mu.Lock()
	l.state = s
	l.mu.Unlock()
	if worthSaving {
		l.save.Ring()
	}
}

// wanted gives what is wanted now.
func (l *ledger) wanted() *api.NodeState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// know records a status that the managers know already.
func (l *ledger) know(id string, st status) {
	l.mu.Lock()
	l.status[id] = st
	l.mu.Unlock()
}

// tell records a status and has it reported.
func (l *ledger) tell(id string, st status) {
	l.mu.Lock()
	l.status[id] = st
	l.unsent[id] = struct{}{}
	l.mu.Unlock()
	l.report.Ring()
	// The end of a task may outlive its container, and whether one that ended
	// had run well is not to be seen from it. Anything else is.
	if api.Terminal(st.State) || st.State == swarm.TaskStateRunning {
		l.save.Ring()
	}
}

func (l *ledger) forget(id string) {
	l.mu.Lock()
	delete(l.status, id)
	delete(l.unsent, id)
	l.mu.Unlock()
}

// takeUnsent gives what was not reported yet.
func (l *ledger) takeUnsent() []api.TaskReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	rs := make([]api.TaskReport, 0, len(l.unsent))
	for id := range l.unsent {
		rs = append(rs, api.TaskReport{TaskID: id, Status: l.status[id].TaskStatus, Unhealthy: l.status[id].Unhealthy})
	}
	clear(l.unsent)
	slices.SortFunc(rs, func(a, b api.TaskReport) int { return cmp.Compare(a.TaskID, b.TaskID) })
	return rs
}

// reportTo passes on what is new until ctx ends. What happens during one call
// to report waits for the next and is coalesced there.
func (l *ledger) reportTo(ctx context.Context, report func([]api.TaskReport)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.report:
		}
		if rs := l.takeUnsent(); len(rs) > 0 {
			report(rs)
		}
	}
}
