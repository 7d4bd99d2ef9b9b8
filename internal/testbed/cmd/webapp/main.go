// Command webapp is the test image's server: `webapp` serves, `webapp
// healthcheck` asks the serving one how it is. `webapp get URL` and `webapp ask
// HOST:PORT TEXT` are clients for HTTP and UDP, for where a test has to be
// inside a container; `webapp talk` puts many questions at once.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"shoal/internal/testbed/webapp"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "webapp:", err)
		os.Exit(1)
	}
}

func run() error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	cfg, err := webapp.FromEnv(os.Getenv, hostname)
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch args := os.Args[1:]; {
	case len(args) == 0:
		return serve(ctx, cfg)
	case args[0] == "healthcheck":
		return webapp.CheckHealth(ctx, cfg.Port)
	case args[0] == "get" && len(args) == 2:
		return webapp.Get(ctx, os.Stdout, args[1])
	case args[0] == "ask" && len(args) == 3:
		return webapp.Ask(ctx, os.Stdout, args[1], args[2])
	case args[0] == "talk" && len(args) == 1:
		return webapp.Talk(ctx, os.Stdin, os.Stdout)
	}
	return fmt.Errorf("usage: webapp [healthcheck | get URL | ask HOST:PORT TEXT | talk], not %q", os.Args[1:])
}

func serve(ctx context.Context, cfg webapp.Config) error {
	if cfg.IgnoreTerm {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	} else {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
		defer stop()
	}
	fmt.Printf("%s %s starting\n", cfg.Task, cfg.Version)
	if err := webapp.New(cfg, os.Exit).Run(ctx, func(addr net.Addr) {
		fmt.Printf("listening on %s\n", addr)
	}); err != nil {
		return err
	}
	fmt.Println("drained, goodbye")
	return nil
}
