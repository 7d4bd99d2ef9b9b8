// Command shoal is a container orchestrator: the daemon that every node runs,
// and the client to speak to it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"shoal/cli"
	"shoal/internal/daemon"
)

// version is set by the linker; see the Makefile.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app := cli.App{
		Version: version,
		Daemon: func(ctx context.Context, c cli.DaemonConfig) error {
			return daemon.Run(ctx, daemon.Config(c))
		},
		WireGuard: daemon.ServeWireGuard,
	}
	code := app.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
