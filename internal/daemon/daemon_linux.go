package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"shoal/cluster"
	"shoal/internal/httpapi"
	"shoal/internal/netkit"
	"shoal/lb/proxy"
	"shoal/task/docker"
)

// Run runs a node until ctx ends, which is no error, or until something that
// it can not do without has failed. Containers and the mesh are left as they
// are: the next run takes them over.
func Run(ctx context.Context, cfg Config) (err error) {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // standard error may be a pipe that can not be synced
	bare := networkless()
	if cfg.DataPlane, err = choosePlane(cfg.DataPlane, bare, log); err != nil {
		return err
	}
	if bare != "" {
		if err := unencumbered(); err != nil {
			return err
		}
		log.Warn("this node has none of the cluster's networks: tasks that need one run on other nodes, and published ports are passed on to those", zap.String("why", bare))
	}
	lock, err := cluster.LockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()

	user := proxy.New(log.Named("proxy"), tableOf(bare), userspace(cfg.DataPlane))
	engine := docker.New(docker.Config{
		Host: cfg.DockerHost, DNS: []string{netkit.Gateway.String()}, FilesDir: filesDir(cfg.DataDir), PortOwner: strangerOn(user), Log: log,
	})
	defer func() { err = errors.Join(err, engine.Close()) }()

	g, ctx := errgroup.WithContext(ctx)
	n := newNode(cfg, engine, newMesh(cfg.DataPlane, bare, user, log.Named("mesh")), log)
	handler, err := httpapi.New(httpapi.Config{Node: n, Logs: n, Execs: n, Doctor: n, Events: n.events, DockerHost: cfg.DockerHost, APIAddr: cfg.APIAddr, DNS: []string{netkit.Gateway.String()}, Build: cfg.Build, Log: log})
	if err != nil {
		return err
	}
	n.api = handler
	// Bound before the node starts, so that a second daemon is noticed while it
	// has done nothing yet, and answered when the node is there.
	listener, err := httpapi.Listen(cfg.Socket)
	if err != nil {
		return err
	}
	guard := newGuard(n)
	var door net.Listener // nil: not on the network
	if cfg.APIAddr != "" {
		if door, err = httpapi.ListenTLS(cfg.APIAddr, guard, log); err != nil {
			return errors.Join(fmt.Errorf("--api-addr: %w", err), listener.Close())
		}
	}
	if err := n.resume(ctx); err != nil {
		if door != nil {
			err = errors.Join(err, door.Close())
		}
		return errors.Join(err, listener.Close())
	}
	g.Go(func() error { return user.Run(ctx) })
	g.Go(func() error { return n.run(ctx) })
	g.Go(func() error { return httpapi.Serve(ctx, listener, handler, log) })
	if door != nil {
		g.Go(func() error { return httpapi.ServeTLS(ctx, door, handler, guard, log) })
	}

	log.Info("shoal is up", zap.String("version", cfg.Build.Version), zap.Int("pid", os.Getpid()),
		zap.String("api", cfg.Socket), zap.String("engine", cfg.DockerHost), zap.String("data-plane", cfg.DataPlane), zap.String("data", cfg.DataDir))
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		log.Warn("can not tell systemd that the daemon is ready", zap.Error(err))
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		log.Error("shoal stops", zap.Error(err))
		return err
	}
	log.Info("shoal stopped; containers and published ports stay up")
	return nil
}

// newLogger writes lines for people to standard error.
func newLogger(level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.EncodeLevel = zapcore.CapitalLevelEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.Lock(os.Stderr), l)), nil
}

// filesDir is where the secrets and configs of this daemon's tasks are, in
// memory. Other daemons on this host have other data directories.
func filesDir(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return "/run/shoal/files-" + hex.EncodeToString(sum[:4])
}
