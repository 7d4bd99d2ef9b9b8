//go:build unix

package boltlog

import (
	"errors"
	"os"
	"syscall"
)

// lock takes bbolt's own lock, and tells whether it was free.
func lock(f *os.File) (free bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
