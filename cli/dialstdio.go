package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"shoal/cli/flags"
)

func (s *session) systemCommands() []leaf {
	return []leaf{{
		name: "dial-stdio", usage: "Carry the API over standard input and output, for clients that come by ssh", arity: none,
		flags: flags.Set{}, run: s.dialStdio,
	}, {
		name: "wireguard", args: "DEVICE", usage: "Serve the device of encrypted networks, for the daemon, where the kernel has no WireGuard", arity: one,
		flags: flags.Set{}, run: func(ctx context.Context, in input) error {
			if s.app.WireGuard == nil {
				return errors.New("there is no WireGuard to serve here")
			}
			return s.app.WireGuard(ctx, in.args[0])
		},
	}}
}

// dialStdio connects its own input and output to the daemon's socket. The end of
// the one is the end of the other, each way by itself.
func (s *session) dialStdio(ctx context.Context, _ input) error {
	path, ok := s.socketPath()
	if !ok {
		return errors.New("dial-stdio needs a daemon on this machine: --host names another one")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("cannot reach the shoal daemon at %s: %w", path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() {
		if _, err := io.Copy(conn, s.in); err == nil {
			_ = conn.(*net.UnixConn).CloseWrite() // the daemon may have more to say
		}
	}()
	_, err = io.Copy(s.out, conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
