package wireguard

import (
	"context"
	"fmt"
	"net"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
)

// firstMTU is the device's until it is told another.
const firstMTU = 1420

// Serve is a WireGuard device in this process, until the device is removed or
// ctx ends. It is told what to do over the socket that WireGuard's own tools
// use, so that those show it like any other device.
func Serve(ctx context.Context, name string, complain func(format string, args ...any)) error {
	// It outlives whoever started it, and whoever reads what it complains about.
	signal.Ignore(unix.SIGPIPE)
	// First: it is there once, so it says whether another serves the name.
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return fmt.Errorf("open the control socket of %s: %w", name, err)
	}
	defer file.Close()
	dev, err := createTun(name, firstMTU, largePackets)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	wg := device.NewDevice(dev, conn.NewDefaultBind(), &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			if _, err := net.InterfaceByName(name); err == nil { // that it is gone is how it ends
				complain(format, args...)
			}
		},
	})
	defer wg.Close()
	listener, err := ipc.UAPIListen(name, file)
	if err != nil {
		return fmt.Errorf("listen on the control socket of %s: %w", name, err)
	}
	defer listener.Close()
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				failed <- err
				return
			}
			go wg.IpcHandle(c)
		}
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-wg.Wait(): // the interface was removed
		return nil
	case err := <-failed:
		return fmt.Errorf("control socket of %s: %w", name, err)
	}
}
