//go:build !linux

package daemon

import (
	"context"
	"errors"
)

// ServeWireGuard refuses, too.
func ServeWireGuard(context.Context, string) error {
	return errors.New("this is for Linux")
}

// Run refuses: a node needs Linux. The client works everywhere.
func Run(context.Context, Config) error {
	return errors.New(`"shoal daemon" runs on Linux only; use --host to reach a node from here`)
}
