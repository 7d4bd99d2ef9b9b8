//go:build unix

package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// DirLock keeps a second daemon out of a data directory.
type DirLock struct{ file *os.File }

// LockDir takes the lock of a data directory, making the directory if need be.
// The kernel lets go of it when the process ends, however it ends, so a lock
// that is held has a living owner.
func LockDir(dir string) (*DirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(io.LimitReader(f, 32)) // only for the message
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		by := "another process"
		if pid := strings.TrimSpace(string(owner)); pid != "" {
			by = "pid " + pid
		}
		return nil, fmt.Errorf("data directory %s is already in use by %s: %w", dir, by, errdefs.ErrFailedPrecondition)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return &DirLock{f}, nil
}

// Unlock lets go. The file stays: removing it would let two daemons hold locks
// on two files of the same name.
func (l *DirLock) Unlock() error { return l.file.Close() }
