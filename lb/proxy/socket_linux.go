package proxy

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// keepAlive is after how many seconds of silence a peer is asked whether it is
// still there, and how long it has for each answer. One that has vanished is
// found out after so many tries.
const (
	keepAlive      = 15
	keepAliveTries = 9
)

// maxBacklog is how many clients may wait to be accepted; the kernel lets fewer if
// net.core.somaxconn says so.
const maxBacklog = 1<<16 - 1

// listenSocket opens a port on every address of the host.
func listenSocket(port uint16) (int, error) {
	fd, err := tcpSocket()
	if err != nil {
		return -1, err
	}
	err = setOptions(fd, option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	if err == nil {
		err = bind(fd, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	if err == nil {
		err = unix.Listen(fd, maxBacklog)
	}
	if err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// tcpSocket makes one that sends at once, and notices when its peer has vanished.
// Those that it accepts do so, too.
func tcpSocket() (int, error) {
	fd, err := newSocket()
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := setOptions(fd,
		option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAlive},
		option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAlive},
		option{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveTries}); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

func setOptions(fd int, options ...option) error {
	for _, o := range options {
		if err := setOption(fd, o); err != nil {
			return fmt.Errorf("set a socket's option: %w", err)
		}
	}
	return nil
}

// late leaves the choice of a local port to connect, which may use one for many
// destinations. At bind it would have to be free altogether, and some 28,000
// connections would be all there can be.
var late = option{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1}

// bindLate has a connection come from an address.
func bindLate(fd int, from netip.Addr) error {
	err := setOptions(fd, late)
	if err == nil {
		err = bind(fd, netip.AddrPortFrom(from, 0))
	}
	if err != nil {
		return fmt.Errorf("bind to %s: %w", from, err)
	}
	return nil
}

// socketError is why a socket is not connected.
func socketError(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case code == 0:
		return unix.ECONNRESET
	}
	return unix.Errno(code)
}

// peerOf and hostOf are the two addresses of a connection; the zero value, when
// it has none any more.
func peerOf(fd int) netip.AddrPort { return addrPort(unix.Getpeername(fd)) }
func hostOf(fd int) netip.AddrPort { return addrPort(unix.Getsockname(fd)) }

func addrPort(a unix.Sockaddr, err error) netip.AddrPort {
	if in, ok := a.(*unix.SockaddrInet4); ok && err == nil {
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	}
	return netip.AddrPort{}
}
