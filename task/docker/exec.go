package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"shoal/internal/api"
)

// Exec is a command that runs in a task's container beside its own.
type Exec struct {
	engine *client.Client
	id     string
	tty    bool
	conn   types.HijackedResponse // its zero value where nothing of the output is wanted
	detach bool

	sizing sync.WaitGroup
	once   sync.Once
	closed chan struct{}
}

// Exec starts a command in the container of a task. It is to be closed.
func (e *Executor) Exec(ctx context.Context, taskID string, o api.ExecOptions) (*Exec, error) {
	found, err := e.find(ctx, labelTaskID+"="+taskID)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &engineError{text: "task " + taskID + " has no container", kind: errdefs.ErrNotFound}
	}
	c, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	x := &Exec{engine: c, tty: o.TTY, detach: o.Detach, closed: make(chan struct{})}
	var size *[2]uint // engines from API 1.42 take it at once
	if o.Size != (api.Size{}) {
		size = &[2]uint{o.Size.Height, o.Size.Width}
	}
	made, err := c.ContainerExecCreate(ctx, found[0].ID, container.ExecOptions{
		User: o.User, Privileged: o.Privileged, Tty: o.TTY, Env: o.Env, WorkingDir: o.Dir, Cmd: o.Cmd, ConsoleSize: size,
		AttachStdin: o.Stdin && !o.Detach, AttachStdout: !o.Detach, AttachStderr: !o.Detach,
	})
	if err != nil {
		return nil, say(err)
	}
	x.id = made.ID
	if o.Detach {
		return x, say(c.ContainerExecStart(ctx, x.id, container.ExecStartOptions{Detach: true, Tty: o.TTY}))
	}
	if x.conn, err = c.ContainerExecAttach(ctx, x.id, container.ExecAttachOptions{Tty: o.TTY, ConsoleSize: size}); err != nil {
		return nil, say(err)
	}
	if size != nil {
		x.sizing.Go(func() { x.firstSize(ctx, o.Size) })
	}
	return x, nil
}

// firstSize gives the terminal its size as soon as there is one: an engine
// answers before the command has begun.
func (x *Exec) firstSize(ctx context.Context, s api.Size) {
	for x.Resize(ctx, s) != nil {
		select {
		case <-time.After(exitLook):
		case <-ctx.Done():
			return
		case <-x.closed:
			return
		}
	}
}

// Write gives the command input.
func (x *Exec) Write(p []byte) (int, error) {
	if x.detach {
		return len(p), nil
	}
	return x.conn.Conn.Write(p)
}

// CloseWrite ends the command's input.
func (x *Exec) CloseWrite() error {
	if x.detach {
		return nil
	}
	return x.conn.CloseWrite()
}

// Output copies what the command writes, until it has ended. A terminal has one
// stream.
func (x *Exec) Output(stdout, stderr io.Writer) error {
	if x.detach {
		return nil
	}
	var err error
	if x.tty {
		_, err = io.Copy(stdout, x.conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, x.conn.Reader)
	}
	return err
}

// Resize tells the command that its terminal has another size.
func (x *Exec) Resize(ctx context.Context, s api.Size) error {
	return say(x.engine.ContainerExecResize(ctx, x.id, container.ResizeOptions{Height: s.Height, Width: s.Width}))
}

const (
	// exitTime bounds how long after the end of its output a command may be
	// said to run: an engine closes the streams a moment before it knows.
	exitTime = 5 * time.Second
	exitLook = 20 * time.Millisecond
)

// Result tells how the command ended, once there is no more output.
func (x *Exec) Result(ctx context.Context) (int, error) {
	if x.detach {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, exitTime)
	defer cancel()
	look := time.NewTicker(exitLook)
	defer look.Stop()
	for {
		in, err := x.engine.ContainerExecInspect(ctx, x.id)
		switch {
		case err != nil:
			return 0, fmt.Errorf("ask how the command ended: %w", say(err))
		case !in.Running:
			return in.ExitCode, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, errors.New("the command closed its output and runs on")
		}
	}
}

// Close lets go of the command. One that still runs finds its input and output
// closed; an engine has no way to end it.
func (x *Exec) Close() {
	x.once.Do(func() {
		close(x.closed)
		if x.conn.Conn != nil {
			x.conn.Close()
		}
	})
	x.sizing.Wait()
}
