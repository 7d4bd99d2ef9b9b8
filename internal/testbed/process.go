package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process held by descriptor, so that a signal cannot reach
// another one that has taken its number meanwhile.
type process struct {
	pid int
	fd  int
}

func (p process) close() { _ = unix.Close(p.fd) }

// openProcess returns the process if it still satisfies is, looked at after
// its descriptor was opened.
func openProcess(pid int, is func(pid int) bool) (process, bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return process{}, false
	}
	if !is(pid) {
		_ = unix.Close(fd)
		return process{}, false
	}
	return process{pid: pid, fd: fd}, true
}

func (p process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), p.pid, err)
	}
	return nil
}

// wait returns when the process has ended.
func (p process) wait(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("process %d has not ended: %w", p.pid, err)
		}
	}
}

// processes returns the host's processes that satisfy is.
func (h *Host) processes(is func(argv []string) bool) ([]process, error) {
	space, err := os.Readlink(namespaceOf(h.pid))
	if err != nil {
		return nil, fmt.Errorf("host %s is not up: %w", h.Name, err)
	}
	var found []process
	err = eachProcess(func(pid int) {
		p, ok := openProcess(pid, func(pid int) bool {
			link, err := os.Readlink(namespaceOf(pid))
			return err == nil && link == space && is(cmdline(pid))
		})
		if ok {
			found = append(found, p)
		}
	})
	return found, err
}

func namespaceOf(pid int) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "ns", "pid")
}

// end signals the host's processes that satisfy is and waits until they are
// gone; none is fine.
func (h *Host) end(ctx context.Context, sig unix.Signal, is func(argv []string) bool) error {
	found, err := h.processes(is)
	if err != nil {
		return err
	}
	for _, p := range found {
		defer p.close()
		if err := p.signal(sig); err != nil {
			return err
		}
	}
	for _, p := range found {
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Crash kills everything on the host at once, engine and containers included.
// Boot brings it back, and so do StartEngine and StartShoal with /run as it was
// left. Other than after a reboot, the kernel keeps the host's network settings.
func (h *Host) Crash(ctx context.Context) error {
	return h.end(ctx, unix.SIGKILL, func(argv []string) bool { return !slices.Contains(argv, marker) })
}

// running tells whether the host has a process that satisfies is.
func (h *Host) running(is func(argv []string) bool) (bool, error) {
	found, err := h.processes(is)
	for _, p := range found {
		p.close()
	}
	return len(found) > 0, err
}

// poll calls cond until it returns nil; when ctx ends, its last error is the
// reason.
func poll(ctx context.Context, every time.Duration, cond func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// Poll calls cond until it returns nil, for as long as within; then its last
// error is the reason.
func Poll(ctx context.Context, within time.Duration, cond func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return poll(ctx, 50*time.Millisecond, cond)
}
