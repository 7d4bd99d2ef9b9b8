// Package cli is shoal's command line: a client of the Docker Engine API that the shoal daemon answers, with the
// commands, flags and output of Docker's.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/docker/client"
	"github.com/urfave/cli/v2"

	"shoal/cli/flags"
	"shoal/internal/build"
)

// App is the command line with what it needs from outside.
type App struct {
	Build build.Info
	// Daemon runs a node until ctx ends. Nil where the daemon cannot run.
	Daemon func(ctx context.Context, c DaemonConfig) error
	// WireGuard serves a WireGuard device until it is removed.
	WireGuard func(ctx context.Context, name string) error
}

// Run runs one command and returns the exit code. When ctx ends, so does the command.
func (a App) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &session{app: a, in: stdin, out: stdout, err: stderr, leaves: map[*cli.Command]leaf{}, headers: map[string]string{}}
	defer s.close()
	return s.exit(s.run(ctx, args))
}

// session is one run of the command line.
type session struct {
	app    App
	in     io.Reader
	out    io.Writer
	err    io.Writer
	global flags.Set
	leaves map[*cli.Command]leaf
	conn   *client.Client // made when first asked for: see api
	// headers go with every request; the client looks at them each time.
	headers map[string]string
}

// exitError is an error that asks for an exit code of its own.
type exitError struct {
	code int
	msg  string
}

func (e exitError) Error() string { return e.msg }

// exitUsage is what a command line that cannot be parsed exits with, as Docker's does.
const exitUsage = 125

// run resolves the arguments to a command, spells out its flags, and lets urfave/cli read the values and call it.
func (s *session) run(ctx context.Context, args []string) error {
	s.global = flags.Set{
		flags.Text("host", "H", "Daemon socket to connect to (default from SHOAL_HOST, then "+DefaultHost+")"),
		flags.Text("tlscacert", "", "Trust certificates signed by this CA, over the network (default ca.pem in SHOAL_CERT_PATH)"),
		flags.Text("tlscert", "", "Path to the client's certificate (default cert.pem in SHOAL_CERT_PATH)"),
		flags.Text("tlskey", "", "Path to its key (default key.pem in SHOAL_CERT_PATH)"),
		flags.Bool("version", "v", "Print version information and quit"),
	}
	root := s.commands()
	line, err := s.global.Parse(args[min(1, len(args)):], false)
	switch {
	case err != nil:
		return exitError{exitUsage, err.Error() + "\n\nUsage:  shoal [OPTIONS] COMMAND\n\nRun 'shoal --help' for more information"}
	case line.Help:
		return s.help(root)
	case len(line.Args) > 0 && line.Args[0] == "help":
		line.Args = append(line.Args[1:], "--help")
	}

	argv := append([]string{"shoal"}, line.Flags...)
	if len(line.Args) > 0 || len(line.Flags) == 0 {
		cmd, rest := find(root, line.Args)
		l, runs := s.leaves[cmd]
		if !runs {
			return s.group(cmd, rest)
		}
		sorted, err := l.flags.Parse(rest, !l.verbatim)
		if err != nil {
			return usageError(cmd, err)
		}
		if sorted.Help {
			return s.help(cmd)
		}
		argv = append(argv, strings.Fields(cmd.HelpName)[1:]...)
		argv = append(argv, sorted.Flags...)
		argv = append(argv, "--")
		argv = append(argv, sorted.Args...)
	}
	app := &cli.App{
		Name: "shoal", Usage: root.Usage, Reader: s.in, Writer: s.out, ErrWriter: s.err,
		Flags: asFlags(s.global), Commands: root.Subcommands,
		HideHelp: true, HideVersion: true, DisableSliceFlagSeparator: true,
		Action: func(*cli.Context) error {
			if !s.global.Bool("version") {
				return s.help(root)
			}
			_, err := fmt.Fprintf(s.out, "shoal version %s\n", s.app.Build.Version)
			return err
		},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return exitError{exitUsage, firstError(s.global.Err(), err).Error()}
		},
		// Errors are printed and turned into an exit code by exit; nothing else ends the process.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	return app.RunContext(ctx, argv)
}

// group answers when arguments end at a command that only has subcommands.
func (s *session) group(cmd *cli.Command, rest []string) error {
	switch {
	case len(rest) == 0 || rest[0] == "--help" || rest[0] == "-h":
		return s.help(cmd)
	case strings.HasPrefix(rest[0], "-"):
		_, err := flags.Set{}.Parse(rest, true)
		return usageError(cmd, firstError(err, errors.New("unknown flag: "+rest[0])))
	}
	return unknownCommand(cmd, rest[0])
}

// find walks down from root as far as the arguments name commands, and returns the arguments left.
func find(root *cli.Command, args []string) (*cli.Command, []string) {
	for len(args) > 0 {
		next := root.Command(args[0])
		if next == nil {
			break
		}
		root, args = next, args[1:]
	}
	return root, args
}

// exit prints an error the way Docker's users know it and returns the exit code.
func (s *session) exit(err error) int {
	if err == nil {
		return 0
	}
	if msg := strings.TrimRight(s.explain(err), "\n"); msg != "" {
		fmt.Fprintln(s.err, ourWords.Replace(msg))
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return 1
}

// ourWords turn the commands that the API recommends, in Docker's words because clients look for them, into our own:
// without -H, "docker swarm init" makes a swarm of the engine, and then there is no place for ours.
var ourWords = strings.NewReplacer(
	`Use "docker swarm init" or "docker swarm join"`, `Use "shoal swarm init" or "shoal swarm join"`,
	`Use "docker swarm leave" to`, `Use "shoal swarm leave" to`,
	`use "docker swarm unlock"`, `use "shoal swarm unlock"`,
	`Use the "docker info" command`, `Use the "shoal info" command`,
)

func firstError(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// env is the value of the environment variable, or the default where it is empty.
func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
