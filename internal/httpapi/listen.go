package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"

	"go.uber.org/zap"
)

const (
	socketMode = 0o660
	// socketGroup may use the API like root, as with Docker's own socket.
	socketGroup = "docker"
	probeTime   = time.Second
	// headerTime bounds how long a client may take to say what it wants.
	headerTime = 10 * time.Second
	// stopTime is what requests under way get when the daemon stops; then those
	// that would never end by themselves (logs, attach, events) are cut off.
	stopTime = time.Second
)

// Listen opens the unix socket of the API. A socket that a dead daemon left
// behind is replaced; one that answers is not.
func Listen(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path) // writable by its owner alone until the lines below
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w", err)
	}
	if err := openToGroup(path); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare API socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen for the API: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen for the API: %s exists and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTime)
	if err == nil {
		return errors.Join(fmt.Errorf("listen for the API: another daemon already answers on %s", path), conn.Close())
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale API socket: %w", err)
	}
	return nil
}

func openToGroup(path string) error {
	if g, err := user.LookupGroup(socketGroup); err == nil && os.Geteuid() == 0 {
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return fmt.Errorf("group %s: %w", socketGroup, err)
		}
		if err := os.Chown(path, 0, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, socketMode)
}

// caller is who is at the other end of a connection.
type caller int

const administrator caller = 1

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// identify tells callers by their connection. Who may open the unix socket is
// an administrator; nobody else is anybody.
func identify(ctx context.Context, conn net.Conn) context.Context {
	if _, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, callerKey{}, administrator)
	}
	return ctx
}

// Serve answers on l until ctx ends, and closes it.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *zap.Logger) error {
	// Requests outlive ctx a little: they may finish what they have begun.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       identify,
		ErrorLog:          zap.NewStdLog(log.Named("http")),
	}
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Serve(l) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, done := context.WithTimeout(base, stopTime)
	defer done()
	if err := srv.Shutdown(grace); err != nil {
		cancel()
		_ = srv.Close() // what is cut off here was given its time
	}
	<-stopped
	return nil
}
