package cli

import "syscall"

// ownSession has nothing to detach from: the daemon does not run on Windows.
func ownSession() *syscall.SysProcAttr { return nil }
