//go:build unix

package cli

import "syscall"

// ownSession detaches a process from this terminal: closing it or pressing Ctrl-C in it must not end the daemon.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
