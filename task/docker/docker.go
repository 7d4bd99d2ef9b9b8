// Package docker runs tasks on a Docker engine.
package docker

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"shoal/task"
)

// dialTimeout bounds how long an engine may take to say that it is there.
const dialTimeout = 10 * time.Second

const defaultFilesDir = "/run/shoal/files"

// Config says which engine to use, and how.
type Config struct {
	// Host is the engine's address, such as unix:///var/run/docker.sock; ""
	// stands for DOCKER_HOST, and the platform's default after that.
	Host string

	// NetworkDriver makes the engine's side of cluster networks, and IPAMDriver
	// their addresses. "" stands for "shoal", and for NetworkDriver.
	NetworkDriver, IPAMDriver string

	// DNS are the servers that know the cluster's names. Containers on cluster
	// networks ask them first.
	DNS []string

	// FilesDir is where tasks' secrets and configs are, in memory; "" stands for
	// defaultFilesDir. Daemons on one host have one each.
	FilesDir string

	// PortOwner names the process of this host that listens on a port; "" if none
	// does. Nil asks nobody.
	PortOwner func(protocol string, port uint16) (string, error)

	Log *zap.Logger
}

// Executor drives one Docker engine. It implements task.Executor.
type Executor struct {
	cfg     Config
	log     *zap.Logger
	pulls   *pulls
	probes  *probes
	files   *fileStore
	signals *signals
	// failures are the images that a registry did not give.
	failures *failures

	mu     sync.Mutex
	client *client.Client // nil until the engine was reached once

	// networks makes changes to networks one at a time: looking for one and
	// making it are two calls.
	networks sync.Mutex
	// choosing lets one task at a time choose ports and have its container made.
	choosing sync.Mutex
}

var _ task.Executor = (*Executor)(nil)

// New wires an Executor.
func New(cfg Config) *Executor {
	if cfg.Host == "" {
		cfg.Host = os.Getenv(client.EnvOverrideHost)
	}
	if cfg.Host == "" {
		cfg.Host = client.DefaultDockerHost
	}
	if cfg.NetworkDriver == "" {
		cfg.NetworkDriver = "shoal"
	}
	if cfg.IPAMDriver == "" {
		cfg.IPAMDriver = cfg.NetworkDriver
	}
	if cfg.FilesDir == "" {
		cfg.FilesDir = defaultFilesDir
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Executor{cfg: cfg, log: cfg.Log.Named("docker"), pulls: newPulls(), probes: newProbes(), signals: newSignals(), failures: newFailures(), files: newFileStore(cfg.FilesDir)}
}

// engine gives the connection to the engine.
func (e *Executor) engine(ctx context.Context) (*client.Client, error) {
	e.mu.Lock()
	c := e.client
	e.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return e.connect(ctx)
}

// connect reaches the engine and agrees on an API version with it. It is done
// afresh whenever the engine was away, because another one may have come back.
func (e *Executor) connect(ctx context.Context) (*client.Client, error) {
	c, err := client.NewClientWithOpts(client.WithTLSClientConfigFromEnv(), client.WithHost(e.cfg.Host))
	if err != nil {
		return nil, fmt.Errorf("engine address %q: %w", e.cfg.Host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ping, err := c.Ping(ctx)
	if err != nil {
		_ = c.Close()
		return nil, &engineError{kind: errdefs.ErrUnavailable, text: oneLine(err.Error())}
	}
	c.NegotiateAPIVersionPing(ping)

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil && e.client.ClientVersion() == c.ClientVersion() {
		_ = c.Close()
		return e.client, nil
	}
	if e.client != nil {
		_ = e.client.Close() // idle connections only: calls under way end as they may
	}
	e.client = c
	return c, nil
}

// Close lets go of the engine. Nothing may be under way.
func (e *Executor) Close() error {
	e.probes.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		return nil
	}
	c := e.client
	e.client = nil
	return c.Close()
}
