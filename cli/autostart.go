package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// startTimeout is how long a daemon started here may take to answer.
const startTimeout = 30 * time.Second

// ensureDaemon starts a daemon in the background if none answers on the socket, so that the first command on a new
// host works. Only for a socket of this host, and only where this program can be a daemon.
func (s *session) ensureDaemon(ctx context.Context) error {
	socket, ok := s.socketPath()
	if !ok || s.app.Daemon == nil {
		return nil // whatever is wrong, the request itself will say
	}
	err := dial(ctx, socket)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	dataDir := env("SHOAL_DATA_DIR", DefaultDataDir)
	log := filepath.Join(dataDir, "daemon.log")
	if err := s.startDaemon(ctx, socket, dataDir, log); err != nil {
		return fmt.Errorf("start the shoal daemon: %w", err)
	}
	fmt.Fprintf(s.err, "Started the shoal daemon in the background; its log is %s\n", log)
	return nil
}

func (s *session) startDaemon(ctx context.Context, socket, dataDir, log string) error {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	out, err := newLog(log)
	if err != nil {
		return err
	}
	defer out.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Not bound to ctx: it outlives this command.
	cmd := exec.Command(self, "daemon", "--data-dir", dataDir, "--socket", socket)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended at once (%w); see %s", orEnded(err), log)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer on %s after %s; see %s", socket, startTimeout, log)
		case <-poll.C:
			if dial(ctx, socket) == nil {
				return nil
			}
		}
	}
}

// newLog begins a daemon's log and keeps that of the one before, so that what made it end can still be read.
func newLog(path string) (*os.File, error) {
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func dial(ctx context.Context, socket string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
