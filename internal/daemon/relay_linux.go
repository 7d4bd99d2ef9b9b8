package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"

	"shoal/internal/api"
	"shoal/internal/httpapi"
)

// TaskLogs reads a task's output from the node that runs it.
func (n *node) TaskLogs(ctx context.Context, nodeID, taskID string, opts api.LogOptions) (io.ReadCloser, error) {
	m := n.current()
	if m == nil || m.manager == nil {
		return nil, errNotIn
	}
	if m.manager.leading.Load() {
		return m.manager.server.Call(ctx, nodeID, methodLogs, logsArgs{TaskID: taskID, Options: opts})
	}
	return m.leaderLogs(ctx, taskID, opts)
}

// leaderLogs reads a task's output by way of the manager that leads.
func (m *member) leaderLogs(ctx context.Context, taskID string, opts api.LogOptions) (io.ReadCloser, error) {
	leader, addr, ok := m.manager.leader()
	if !ok || leader == m.id.NodeID {
		return nil, errdefs.ErrUnavailable.WithMessage("the swarm has no leader")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+pathAPI+httpapi.OutputPath(taskID, opts), nil)
	if err != nil {
		return nil, err
	}
	resp, err := m.manager.forwarding.to(leader, addr).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the leader: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var refusal struct{ Message string }
	if json.NewDecoder(io.LimitReader(resp.Body, maxPeerBody)).Decode(&refusal) != nil || refusal.Message == "" {
		refusal.Message = resp.Status
	}
	return nil, fmt.Errorf("%s%w", refusal.Message, quiet{errhttp.ToNative(resp.StatusCode)})
}

// quiet gives an error its kind without the kind's words.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// TaskExec runs a command in a task on the node that runs it.
func (n *node) TaskExec(ctx context.Context, nodeID, taskID string, opts api.ExecOptions) (io.ReadWriteCloser, error) {
	m := n.current()
	if m == nil || m.manager == nil {
		return nil, errNotIn
	}
	return m.manager.server.Open(ctx, nodeID, methodExec, execArgs{TaskID: taskID, Options: opts})
}
