package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

const (
	shoalStart = 30 * time.Second
	shoalStop  = 30 * time.Second
	// commandTime bounds one command of a client; those that wait for a
	// service to converge take the longest.
	commandTime = 3 * time.Minute
)

func isShoal(argv []string) bool {
	return len(argv) > 1 && strings.HasPrefix(filepath.Base(argv[0]), "shoal") && argv[1] == "daemon"
}

// Socket is the path of shoal's API socket on this machine; on the host it is
// /run/shoal.sock.
func (h *Host) Socket() string { return filepath.Join(h.Dir(), "run", "shoal.sock") }

// DataDir is the host's /var/lib/shoal, for tests that look into it or damage it.
func (h *Host) DataDir() string { return filepath.Join(h.Dir(), "var/lib/shoal") }

// StartShoal starts `shoal daemon` with the given extra flags and waits until
// its API answers.
func (h *Host) StartShoal(ctx context.Context, args ...string) error {
	return h.StartShoalUnder(ctx, nil, args...)
}

// StartShoalUnder has a command, such as setpriv with its arguments, start it.
func (h *Host) StartShoalUnder(ctx context.Context, command []string, args ...string) error {
	if h.bed.state.Shoal == "" {
		return errors.New("this bed was made without a shoal binary")
	}
	ctx, cancel := context.WithTimeout(ctx, shoalStart)
	defer cancel()
	// The running one would answer in its place.
	if up, err := h.ShoalRunning(); err != nil {
		return err
	} else if up {
		return fmt.Errorf("start shoal on %s: it is running", h.Name)
	}
	d, err := h.startDaemon("shoal.log", slices.Concat(command, []string{h.bed.state.Shoal, "daemon"}, args)...)
	if err != nil {
		return err
	}
	api, err := h.API()
	if err != nil {
		return err
	}
	defer api.Close()
	if err := d.await(ctx, func(ctx context.Context) error {
		_, err := api.Ping(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("start shoal on %s: %w", h.Name, err)
	}
	return nil
}

// Boot brings a crashed host back the way an installed one comes up: with
// nothing in /run, and shoal ahead of the engine.
func (h *Host) Boot(ctx context.Context) error {
	run := filepath.Join(h.Dir(), "run")
	left, err := os.ReadDir(run)
	if err != nil {
		return fmt.Errorf("boot %s: %w", h.Name, err)
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(run, e.Name())); err != nil {
			return fmt.Errorf("boot %s: %w", h.Name, err)
		}
	}
	if err := h.StartShoal(ctx); err != nil {
		return err
	}
	return h.StartEngine(ctx)
}

// StopShoal asks the daemon to end and waits for it.
func (h *Host) StopShoal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shoalStop)
	defer cancel()
	return h.end(ctx, unix.SIGTERM, isShoal)
}

// KillShoal ends the daemon with no chance to do anything about it.
func (h *Host) KillShoal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shoalStop)
	defer cancel()
	return h.end(ctx, unix.SIGKILL, isShoal)
}

// ShoalRunning tells whether a daemon runs on the host, whoever started it.
func (h *Host) ShoalRunning() (bool, error) { return h.running(isShoal) }

// ShoalPID is the daemon's process number on this machine, to look it up in
// /proc; on the host it has another one.
func (h *Host) ShoalPID() (int, error) { return h.pidOf("shoal daemons", isShoal) }

// EnginePID is the engine's, in the same way.
func (h *Host) EnginePID() (int, error) { return h.pidOf("engines", isEngine) }

func (h *Host) pidOf(what string, is func(argv []string) bool) (int, error) {
	found, err := h.processes(is)
	for _, p := range found {
		defer p.close()
	}
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d %s run on %s", len(found), what, h.Name)
	}
	return found[0].pid, nil
}

// EngineRunning tells whether the host's engine runs.
func (h *Host) EngineRunning() (bool, error) { return h.running(isEngine) }

// API is a client of the host's shoal daemon; close it after use.
func (h *Host) API() (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost("unix://"+h.Socket()), client.WithAPIVersionNegotiation())
}

// ShoalBinary is the binary whose daemon the bed runs.
func (h *Host) ShoalBinary() string { return h.bed.state.Shoal }

// Shoal runs the shoal command line on the host.
func (h *Host) Shoal(args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	return h.Run(ctx, append([]string{h.bed.state.Shoal}, args...)...)
}

// Docker runs the stock docker command line against shoal's socket.
func (h *Host) Docker(args ...string) Result {
	return h.docker("unix:///run/shoal.sock", args)
}

// EngineDocker runs the stock docker command line against the engine itself.
func (h *Host) EngineDocker(args ...string) Result {
	return h.docker("unix:///run/docker.sock", args)
}

func (h *Host) docker(socket string, args []string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	return h.Run(ctx, append([]string{"docker", "-H", socket}, args...)...)
}
