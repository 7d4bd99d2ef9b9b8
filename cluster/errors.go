package cluster

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// NotLeaderError refuses what only the leader can do. Nothing was changed; the
// caller may turn to LeaderID, which is empty while there is no leader.
type NotLeaderError struct{ LeaderID string }

func (e *NotLeaderError) Error() string {
	if e.LeaderID == "" {
		return "this node is not the leader, and no leader is known at the moment"
	}
	return fmt.Sprintf("this node is not the leader; node %s is", e.LeaderID)
}

func (e *NotLeaderError) Unwrap() error { return errdefs.ErrUnavailable }

// Undone marks the error for who may ask again but does not know this package.
func (e *NotLeaderError) Undone() {}

// UnknownOutcomeError says that a change was proposed and its fate is not
// known here: it may take effect, now or later, or never. Retrying is safe only
// for what is safe to do twice.
type UnknownOutcomeError struct{ Cause error }

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("the outcome of the change is not known, it may or may not take effect: %v", e.Cause)
}

func (e *UnknownOutcomeError) Unwrap() []error { return []error{e.Cause, errdefs.ErrUnknown} }

// errNotRunning is returned before Run has opened the log and after it ended.
var errNotRunning = fmt.Errorf("raft is not running on this node: %w", errdefs.ErrUnavailable)
