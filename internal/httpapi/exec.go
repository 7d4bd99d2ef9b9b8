package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"shoal/internal/api"
)

// mediaExec is a stream of frames in both directions at once: see api.FrameKind.
const mediaExec = "application/vnd.shoal.exec"

// Execs runs commands in tasks, on whatever node they run.
type Execs interface {
	// TaskExec starts a command. Reading gives the frames that the node sends,
	// writing takes those for the command.
	TaskExec(ctx context.Context, nodeID, taskID string, opts api.ExecOptions) (io.ReadWriteCloser, error)
}

// taskExec starts a command in a task and carries what is said in both
// directions, until the command ends or one of the two sides goes.
func (s *server) taskExec(w http.ResponseWriter, r *request) error {
	kind, raw, err := api.ReadFrame(r.Body)
	var opts api.ExecOptions
	switch {
	case err != nil:
		return invalid("read the request: %v", err)
	case kind != api.FrameOptions:
		return invalid("the first frame must be the options, not %q", kind)
	}
	if err := json.Unmarshal(raw, &opts); err != nil {
		return badJSON(err)
	}
	if len(opts.Cmd) == 0 || opts.Cmd[0] == "" {
		return invalid("No exec command specified")
	}
	if opts.Privileged {
		if err := r.control.AllowPrivileged("exec --privileged"); err != nil {
			return err
		}
	}
	t, err := r.control.RunningTask(r.vars["id"])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	node, err := s.execs.TaskExec(ctx, t.NodeID, t.ID, opts)
	if err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", mediaExec)
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		_ = node.Close()
		return nil // the client is gone
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = io.Copy(node, r.Body) // whoever is gone, the other side notices
		if r.Context().Err() != nil {
			_ = node.Close()
		}
	}()
	if _, err := io.Copy(flushing{w, rc}, node); err != nil && r.Context().Err() == nil {
		// The client must not take a command whose end is unknown for one that
		// ended well.
		_ = api.WriteFrameJSON(w, api.FrameResult, api.ExecResult{Error: plain(err.Error())})
		_ = rc.Flush()
	}
	_ = node.Close()
	_ = rc.SetReadDeadline(time.Unix(1, 0)) // ends a read that waits for a client that has nothing to say
	<-said
	return nil
}

// flushing sends each piece as it comes.
type flushing struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// duplex lets an answer begin before the request has ended, a refusal first of
// all: a server reads a body to its end before it answers, unless told otherwise.
// HTTP/2 needs not be told.
func duplex(w http.ResponseWriter) error {
	err := http.NewResponseController(w).EnableFullDuplex()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// carry is byLeader for a request that is a stream: its body is passed on as it
// comes and can not be kept for another try. So it waits only for somebody to
// lead.
func (s *server) carry(w http.ResponseWriter, r *request, route *route) error {
	ctx, cancel := context.WithTimeout(r.Context(), s.leaderWait)
	defer cancel()
	look := time.NewTicker(leaderLook)
	defer look.Stop()
	for r.control == nil && s.node.Forward() == nil && callerOf(r.Context()) != forwarded {
		select {
		case <-look.C:
		case <-ctx.Done():
			return errNoLeader
		}
		if err := s.admit(route, r); err != nil {
			return err
		}
	}
	err := s.tryLeader(w, r, route)
	if undone(err) && callerOf(r.Context()) == forwarded {
		w.Header().Set(undoneHeader, "true")
	}
	return err
}
