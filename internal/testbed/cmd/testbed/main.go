// Command testbed makes and removes test beds by hand.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"shoal/internal/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := app().RunContext(ctx, os.Args)
	stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // a command on a host failed and has said why
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:  "testbed",
		Usage: "several hosts on one machine, each with its own Docker engine",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bed", Aliases: []string{"b"}, Value: "dev", EnvVars: []string{"SHOAL_BED"}, Usage: "name of the bed"},
		},
		ExitErrHandler: func(*cli.Context, error) {}, // main does it
		Commands: []*cli.Command{
			{
				Name:  "up",
				Usage: "make a bed",
				Flags: []cli.Flag{
					&cli.IntFlag{Name: "hosts", Aliases: []string{"n"}, Value: 1},
					&cli.StringFlag{Name: "shoal", Value: "bin/shoal", Usage: "binary to run on the hosts"},
					&cli.BoolFlag{Name: "daemon", Usage: "start shoal on every host"},
					&cli.BoolFlag{Name: "images", Value: true, Usage: "give the engines the test images"},
				},
				Action: up,
			},
			{Name: "down", Usage: "remove a bed", Action: func(c *cli.Context) error {
				return testbed.Remove(c.Context, c.String("bed"), zap.NewNop())
			}},
			{Name: "list", Usage: "name the beds", Action: list},
			{Name: "status", Usage: "show a bed's hosts", Action: status},
			{Name: "exec", Usage: "run a command on a host", ArgsUsage: "HOST COMMAND [ARG...]", SkipFlagParsing: true, Action: execute},
			{Name: "logs", Usage: "show the end of the hosts' logs", ArgsUsage: "[HOST...]", Flags: []cli.Flag{
				&cli.IntFlag{Name: "tail", Aliases: []string{"n"}, Value: 50},
			}, Action: logs},
			control("engine", "start, stop or kill a host's Docker engine", map[string]action{
				"start": (*testbed.Host).StartEngine,
				"stop":  (*testbed.Host).StopEngine,
				"kill":  (*testbed.Host).KillEngine,
			}),
			control("daemon", "start, stop or kill a host's shoal daemon", map[string]action{
				"start": func(h *testbed.Host, ctx context.Context) error { return h.StartShoal(ctx) },
				"stop":  (*testbed.Host).StopShoal,
				"kill":  (*testbed.Host).KillShoal,
			}),
			control("cable", "pull a host's network cable (down) or put it back (up)", map[string]action{
				"up":   func(h *testbed.Host, _ context.Context) error { return h.LinkUp() },
				"down": func(h *testbed.Host, _ context.Context) error { return h.LinkDown() },
			}),
		},
	}
}

// action is a method of Host, hence the order of its parameters.
type action func(*testbed.Host, context.Context) error

// control is a command that does one of a few things to one host.
func control(name, usage string, actions map[string]action) *cli.Command {
	words := strings.Join(slices.Sorted(maps.Keys(actions)), "|")
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "HOST " + words,
		Action: func(c *cli.Context) error {
			act, ok := actions[c.Args().Get(1)]
			if !ok || c.NArg() != 2 {
				return fmt.Errorf("usage: testbed %s HOST %s", name, words)
			}
			bed, err := testbed.Open(c.String("bed"), zap.NewNop())
			if err != nil {
				return err
			}
			host, err := bed.Lookup(c.Args().First())
			if err != nil {
				return err
			}
			return act(host, c.Context)
		},
	}
}

func up(c *cli.Context) error {
	config := zap.NewDevelopmentConfig()
	config.Level.SetLevel(zap.InfoLevel) // the rest is for tests that fail
	log, err := config.Build()
	if err != nil {
		return err
	}
	bed, err := testbed.New(testbed.Config{
		Name: c.String("bed"), Hosts: c.Int("hosts"), Shoal: c.String("shoal"), Log: log,
	})
	if err != nil {
		return err
	}
	if err := bed.Up(c.Context); err != nil {
		return err
	}
	if c.Bool("images") {
		if err := bed.ImportWeb(c.Context, "."); err != nil {
			return err
		}
	}
	if c.Bool("daemon") {
		if err := bed.StartShoal(c.Context); err != nil {
			return err
		}
	}
	return show(bed)
}

func list(*cli.Context) error {
	names, err := testbed.List()
	for _, name := range names {
		fmt.Println(name)
	}
	return err
}

func status(c *cli.Context) error {
	bed, err := testbed.Open(c.String("bed"), zap.NewNop())
	if err != nil {
		return err
	}
	return show(bed)
}

func show(bed *testbed.Bed) error {
	fmt.Printf("bed %s in %s\n", bed.Name(), bed.Dir())
	for _, h := range bed.Hosts() {
		engine, err := h.EngineRunning()
		if err != nil {
			return err
		}
		shoal, err := h.ShoalRunning()
		if err != nil {
			return err
		}
		fmt.Printf("%-7s %-15s engine: %-5t shoal: %-5t unix://%s\n", h.Name, h.IP, engine, shoal, h.Socket())
	}
	fmt.Printf("%-7s %s\n", bed.Client().Name, bed.Client().IP)
	return nil
}

func execute(c *cli.Context) error {
	if c.NArg() < 2 {
		return errors.New("usage: testbed exec HOST COMMAND [ARG...]")
	}
	bed, err := testbed.Open(c.String("bed"), zap.NewNop())
	if err != nil {
		return err
	}
	host, err := bed.Lookup(c.Args().First())
	if err != nil {
		return err
	}
	cmd := host.Command(context.WithoutCancel(c.Context), c.Args().Tail()...) // ^C goes to the command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := host.StartOn(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

func logs(c *cli.Context) error {
	bed, err := testbed.Open(c.String("bed"), zap.NewNop())
	if err != nil {
		return err
	}
	hosts := bed.Hosts()
	if c.NArg() > 0 {
		hosts = nil
		for _, name := range c.Args().Slice() {
			h, err := bed.Lookup(name)
			if err != nil {
				return err
			}
			hosts = append(hosts, h)
		}
	}
	for _, h := range hosts {
		fmt.Printf("# %s: %s\n%s", h.Name, filepath.Clean(h.LogDir()), h.TailLogs(c.Int("tail")))
	}
	return nil
}
