package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// lastLines of the log of a task that failed are shown.
const lastLines = "10"

// report says what became of the services that are not as the file says, and picks the exit code.
func (w *stackWatch) report(ctx context.Context, timedOut bool) error {
	var lines []string
	code := 0
	worse := func(c int) {
		if code == 0 || c < code {
			code = c
		}
	}
	for _, f := range w.followers {
		if timedOut && !f.done {
			f.code, f.why = exitTimedOut, "not converged after "+w.timeout.String()
			if f.unplaceable() {
				f.code, f.why = exitUnplaceable, "tasks without a node"
			}
		}
		if f.code == 0 {
			continue
		}
		worse(f.code)
		lines = append(lines, fmt.Sprintf("service %s: %s", f.service.Spec.Name, f.why))
		lines = append(lines, w.culprit(ctx, f)...)
	}
	if len(w.pending) > 0 {
		lines = append(lines, "not created or updated, for what they depend on is not as far: "+strings.Join(w.waiting(), ", "))
		if timedOut {
			worse(exitTimedOut)
		} else {
			worse(exitFailed)
		}
	}
	if code == 0 {
		return nil
	}
	return exitError{code, strings.Join(lines, "\n")}
}

// culprit is the task that shows why a service is not as it should be, and the last lines that it wrote.
func (w *stackWatch) culprit(ctx context.Context, f *follower) []string {
	t := f.failed
	if t == nil {
		return nil
	}
	names := w.resolver(false)
	text := "  task " + names.task(ctx, *t)
	if t.NodeID != "" {
		text += " on " + names.node(ctx, t.NodeID)
	}
	lines := []string{fmt.Sprintf("%s is %s: %s", text, t.Status.State, orDefault(t.Status.Err, t.Status.Message))}
	if t.NodeID == "" || t.Status.ContainerStatus == nil || t.Status.ContainerStatus.ContainerID == "" {
		return lines
	}
	body, err := w.conn.TaskLogs(ctx, t.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: lastLines})
	if err != nil {
		return append(lines, fmt.Sprintf("  its log can not be read: %v", err))
	}
	defer body.Close()
	var log bytes.Buffer
	if usesTTY(t.Spec) {
		_, err = io.Copy(&log, body)
	} else {
		_, err = stdcopy.StdCopy(&log, &log, body)
	}
	if err != nil && log.Len() == 0 {
		return append(lines, fmt.Sprintf("  its log can not be read: %v", err))
	}
	for line := range strings.Lines(log.String()) {
		lines = append(lines, "  | "+strings.TrimRight(line, "\r\n"))
	}
	return lines
}
