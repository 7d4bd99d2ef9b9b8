package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"shoal/internal/api"
	"shoal/task/docker"
)

type execArgs struct {
	TaskID  string
	Options api.ExecOptions
}

// exec runs a command in a task of this node, with frames for input and output.
func (m *member) exec(ctx context.Context, args json.RawMessage, in io.ReadCloser, w io.Writer) error {
	var a execArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return err
	}
	x, err := m.engine.Exec(ctx, a.TaskID, a.Options)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, x.Close)() // ends a read that waits
	if _, err := w.Write(nil); err != nil { // it has begun, and may be silent for long
		x.Close()
		return err
	}
	heard := make(chan struct{})
	go func() { defer close(heard); hear(ctx, in, x) }()
	defer func() {
		x.Close()
		_ = in.Close()
		<-heard
	}()

	out := &frames{w: w}
	err = x.Output(out.kind(api.FrameStdout), out.kind(api.FrameStderr))
	var res api.ExecResult
	if err == nil {
		res.ExitCode, err = x.Result(ctx)
	}
	if err != nil {
		res.Error = err.Error()
	}
	return api.WriteFrameJSON(out, api.FrameResult, res)
}

// hear gives a command what its frames say. A command that does not read its
// input any more is no reason to end it.
func hear(ctx context.Context, in io.Reader, x *docker.Exec) {
	for {
		kind, payload, err := api.ReadFrame(in)
		if err != nil {
			_ = x.CloseWrite()
			return
		}
		if hearOne(ctx, kind, payload, x) != nil {
			_, _ = io.Copy(io.Discard, in)
			return
		}
	}
}

func hearOne(ctx context.Context, kind api.FrameKind, payload []byte, x *docker.Exec) error {
	switch kind {
	case api.FrameStdin:
		_, err := x.Write(payload)
		return err
	case api.FrameEOF:
		return x.CloseWrite()
	case api.FrameSize:
		var s api.Size
		if err := json.Unmarshal(payload, &s); err != nil {
			return err
		}
		_ = x.Resize(ctx, s) // a command that has ended has no size
		return nil
	}
	return fmt.Errorf("unknown frame %q: %w", kind, errors.ErrUnsupported)
}

// frames lets several writers share one stream.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.Write(p)
}

// kind gives a writer whose output goes into frames of one kind.
func (f *frames) kind(k api.FrameKind) io.Writer { return frameWriter{f, k} }

type frameWriter struct {
	w    io.Writer
	kind api.FrameKind
}

func (f frameWriter) Write(p []byte) (int, error) {
	if err := api.WriteFrame(f.w, f.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
