package wireguard

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tryName = "try0"
	tunPath = "/dev/net/tun"
	ipv6    = "/proc/sys/net/ipv6"
)

// Capable tries what a device needs, in a network namespace that goes again, and
// says what is missing.
func Capable() error {
	if _, err := os.Stat(ipv6); err != nil {
		return errors.New("the kernel has no IPv6 (ipv6.disable=1 at its start?), which encrypted networks use between nodes")
	}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine, and the
		// namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make a network namespace to try WireGuard in: %w", err)
			return
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = tryName
		err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = tryTun()
		}
		done <- err
	}()
	return <-done
}

func tryTun() error {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq(tryName); err == nil {
			ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
	}
	if err != nil {
		return fmt.Errorf("the kernel has no WireGuard, and %s can not stand in for it: %w", tunPath, err)
	}
	return nil
}
