package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/moby/term"

	"shoal/cli/flags"
	"shoal/cli/spec"
	"shoal/internal/api"
)

// exitUnknown is for a command whose end is not known: none of its own codes, as far as Docker's have a meaning.
const exitUnknown = 125

func (s *session) execCommand() leaf {
	return leaf{
		name: "exec", args: "TASK COMMAND [ARG...]", usage: "Execute a command in a running task, on whatever node it runs",
		arity: arity{2, -1}, verbatim: true, run: s.exec,
		flags: flags.Set{
			flags.Bool("detach", "d", "Detached mode: run command in the background"),
			flags.List("env", "e", "Set environment variables"),
			flags.List("env-file", "", "Read in a file of environment variables"),
			flags.Bool("interactive", "i", "Keep STDIN open even if not attached"),
			flags.Bool("privileged", "", "Give extended privileges to the command"),
			flags.Bool("tty", "t", "Allocate a pseudo-TTY"),
			flags.Text("user", "u", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"),
			flags.Text("workdir", "w", "Working directory inside the container"),
		},
	}
}

func (s *session) exec(ctx context.Context, in input) error {
	options := api.ExecOptions{
		Cmd: in.args[1:], User: in.Text("user"), Dir: in.Text("workdir"), Privileged: in.Bool("privileged"),
		TTY: in.Bool("tty"), Stdin: in.Bool("interactive") && !in.Bool("detach"), Detach: in.Bool("detach"),
	}
	var err error
	if options.Env, err = spec.Environment(in.Set); err != nil {
		return err
	}
	x := &execution{session: s, options: options}
	x.fd, x.terminal = term.GetFdInfo(s.in)
	if options.TTY && options.Stdin && !x.terminal {
		return errors.New("the input device is not a TTY")
	}
	return x.run(ctx, in.args[0])
}

// execution is one command in a task, as this end of it sees it.
type execution struct {
	*session
	options  api.ExecOptions
	fd       uintptr // of the input, if it is a terminal
	terminal bool

	mu sync.Mutex // frames go out one at a time
	to *io.PipeWriter
}

func (x *execution) run(ctx context.Context, task string) error {
	if x.raw() {
		if size, err := term.GetWinsize(x.fd); err == nil {
			x.options.Size = api.Size{Height: uint(size.Height), Width: uint(size.Width)}
		}
	}
	body, to := io.Pipe()
	x.to = to
	defer to.Close()
	go func() { _ = api.WriteFrameJSON(x, api.FrameOptions, x.options) }() // who reads it is only about to come
	response, err := x.send(ctx, http.MethodPost, "/shoal/tasks/"+url.PathEscape(task)+"/exec", "", body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if x.raw() {
		state, err := term.SetRawTerminal(x.fd)
		if err != nil {
			return fmt.Errorf("switch the terminal to raw mode: %w", err)
		}
		defer func() { _ = term.RestoreTerminal(x.fd, state) }()
		defer onResize(x.fd, x.resize)()
	}
	if x.options.Stdin {
		// A read from a terminal can not be interrupted: it ends with this process.
		go x.feed()
	}
	return x.show(ctx, response.Body)
}

// raw tells whether the terminal here is to be the command's.
func (x *execution) raw() bool { return x.options.TTY && x.options.Stdin && x.terminal }

// Write sends one frame.
func (x *execution) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.to.Write(p)
}

// feed sends the input until it ends. That the command has ended shows elsewhere.
func (x *execution) feed() {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.in.Read(buf)
		if n > 0 && api.WriteFrame(x, api.FrameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = api.WriteFrame(x, api.FrameEOF, nil)
			return
		}
	}
}

func (x *execution) resize() {
	if size, err := term.GetWinsize(x.fd); err == nil {
		_ = api.WriteFrameJSON(x, api.FrameSize, api.Size{Height: uint(size.Height), Width: uint(size.Width)})
	}
}

// show prints what the command writes and gives its exit code.
func (x *execution) show(ctx context.Context, from io.Reader) error {
	for {
		kind, payload, err := api.ReadFrame(from)
		switch {
		case ctx.Err() != nil:
			return exitError{130, ""} // interrupted
		case err != nil:
			return exitError{exitUnknown, "the connection was lost: how the command ended is not known"}
		}
		switch kind {
		case api.FrameStdout:
			_, err = x.out.Write(payload)
		case api.FrameStderr:
			_, err = x.session.err.Write(payload)
		case api.FrameResult:
			return ended(payload)
		}
		if err != nil {
			return err
		}
	}
}

func ended(payload []byte) error {
	var result api.ExecResult
	switch err := json.Unmarshal(payload, &result); {
	case err != nil:
		return exitError{exitUnknown, "unreadable result: " + err.Error()}
	case result.Error != "":
		return exitError{exitUnknown, "how the command ended is not known: " + result.Error}
	case result.ExitCode != 0:
		return exitError{code: result.ExitCode}
	}
	return nil
}
