package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"shoal/internal/testbed"
)

// stage is where the demonstration is shown: narration, then commands as if
// somebody typed them, with what they print themselves.
type stage struct {
	out    io.Writer
	colour bool
	pause  time.Duration // for reading; none when nobody watches
	step   int
}

func newStage(out *os.File, pause time.Duration) *stage {
	s := &stage{out: out}
	if term.IsTerminal(int(out.Fd())) {
		s.pause = pause
		s.colour = os.Getenv("NO_COLOR") == ""
	}
	return s
}

const (
	bold  = "1"
	dim   = "2"
	green = "32"
	red   = "31"
	cyan  = "36"
)

func (s *stage) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// chapter begins a new part of the story.
func (s *stage) chapter(ctx context.Context, title string, text ...string) error {
	s.step++
	s.printf("\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", s.step, title)))
	for _, line := range text {
		s.printf("   %s\n", s.paint(dim, line))
	}
	s.printf("\n")
	return s.rest(ctx)
}

// rest gives the viewer time to read.
func (s *stage) rest(ctx context.Context) error {
	if s.pause == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(s.pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prompt shows a command as typed on a host.
func (s *stage) prompt(host string, argv ...string) {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = quote(a)
	}
	s.printf("%s %s\n", s.paint(cyan, host+" $"), s.paint(bold, strings.Join(quoted, " ")))
}

func quote(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t\n'\"\\$&|;<>(){}*?") {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// run shows a command and runs it with this terminal, so that it can paint
// its progress.
func (s *stage) run(ctx context.Context, h *testbed.Host, argv ...string) error {
	s.prompt(h.Name, argv...)
	return s.perform(ctx, h, argv...)
}

// perform is run without showing the command.
func (s *stage) perform(ctx context.Context, h *testbed.Host, argv ...string) error {
	cmd := h.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, s.out, os.Stderr
	err := h.StartOn(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s on %s: %w", strings.Join(argv[:min(3, len(argv))], " "), h.Name, err)
	}
	s.printf("\n")
	return s.rest(ctx)
}

// quietly runs a command whose output is data; what it prints when it fails is
// part of the error.
func quietly(ctx context.Context, h *testbed.Host, argv ...string) (string, error) {
	res := h.Run(ctx, argv...)
	return strings.TrimSpace(res.Stdout), res.Err()
}
