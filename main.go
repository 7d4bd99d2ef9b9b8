// Command shoal is a container orchestrator: the daemon that every node runs,
// and the client to speak to it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"shoal/cli"
	"shoal/internal/build"
	"shoal/internal/daemon"
)

// What the linker is told of the build; see the Makefile.
var version, commit, built string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app := cli.App{
		Build: build.Of(version, commit, built),
		Daemon: func(ctx context.Context, c cli.DaemonConfig) error {
			return daemon.Run(ctx, daemon.Config(c))
		},
		WireGuard: daemon.ServeWireGuard,
	}
	code := app.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
