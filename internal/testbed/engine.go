package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

const (
	// engineStart covers a cold start with twenty engines on two cores.
	engineStart = 90 * time.Second
	// engineStop covers an engine that waits for containers to end first.
	engineStop = 40 * time.Second
)

func isEngine(argv []string) bool { return len(argv) > 0 && filepath.Base(argv[0]) == "dockerd" }

// EngineSocket is the path of the engine's API socket on this machine; on the
// host it is where it always is.
func (h *Host) EngineSocket() string { return filepath.Join(h.Dir(), "run", "docker.sock") }

// cgroup is the parent of the host's containers' cgroups, so that the bed can
// tell them from other engines' and remove them.
func (h *Host) cgroup() string { return filepath.Join("/shoal-testbed", h.bed.Name(), h.Name) }

func (h *Host) engineConfig() string {
	raw, err := json.MarshalIndent(map[string]any{
		"live-restore":  false,
		"cgroup-parent": h.cgroup(),
		// systemd, where there is one, does not know this host's processes.
		"exec-opts":           []string{"native.cgroupdriver=cgroupfs"},
		"insecure-registries": []string{h.bed.state.Subnet.String()},
		"debug":               true,
	}, "", "  ")
	if err != nil {
		panic(err) // strings and booleans always encode
	}
	return string(raw)
}

// StartEngine starts the host's Docker engine and waits until it answers. It
// chooses its storage driver itself: overlay2 where that works.
func (h *Host) StartEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	// The running one would answer in its place.
	if up, err := h.EngineRunning(); err != nil {
		return err
	} else if up {
		return fmt.Errorf("start the engine of %s: it is running", h.Name)
	}
	begin := time.Now()
	d, err := h.startDaemon("engine.log", "dockerd")
	if err != nil {
		return err
	}
	api, err := h.Engine()
	if err != nil {
		return err
	}
	defer api.Close()
	if err := d.await(ctx, func(ctx context.Context) error {
		_, err := api.Ping(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("start the engine of %s: %w", h.Name, err)
	}
	h.bed.log.Sugar().Debugf("engine of %s answers after %s", h.Name, time.Since(begin).Round(time.Millisecond))
	return nil
}

// StopEngine stops the engine as `systemctl stop docker` would: it stops its
// containers first. It returns when the engine is gone.
func (h *Host) StopEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStop)
	defer cancel()
	return h.end(ctx, unix.SIGTERM, isEngine)
}

// KillEngine kills the engine alone; containers and containerd run on.
func (h *Host) KillEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStop)
	defer cancel()
	return h.end(ctx, unix.SIGKILL, isEngine)
}

// Engine is a client of the host's engine; close it after use.
func (h *Host) Engine() (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost("unix://"+h.EngineSocket()), client.WithAPIVersionNegotiation())
}
