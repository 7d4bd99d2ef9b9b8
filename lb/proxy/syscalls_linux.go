package proxy

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The loops make their system calls here. No call waits for anything; but many
// take longer than 20 µs, as the kernel goes on with the packet that was sent. Of
// a call made by package unix the runtime would think by then that it waits, and
// give the processor to another thread: that took a tenth of all time.

// receive reads from a socket. No bytes are its end.
func receive(fd int, into []byte) (int, error) {
	return again(func() (uintptr, uintptr, unix.Errno) {
		return unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(into))), uintptr(len(into)), unix.MSG_DONTWAIT, 0, 0)
	})
}

// send writes to a socket. With more, what follows (the end, maybe) may go with it.
func send(fd int, b []byte, more bool) (int, error) {
	flags := uintptr(unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	return again(func() (uintptr, uintptr, unix.Errno) {
		return unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	})
}

// splice moves as much as there is and is taken, one of the two being a pipe.
func splice(from, to int) (int, error) {
	return again(func() (uintptr, uintptr, unix.Errno) {
		return unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, maxSplice, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	})
}

// accept takes a client. Who it is, which unix.Accept4 would find out by two more
// calls, is seldom asked.
func accept(fd int) (int, error) {
	return again(func() (uintptr, uintptr, unix.Errno) {
		return unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	})
}

// newSocket makes one of TCP.
func newSocket() (int, error) {
	return result(unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0))
}

// bind gives a socket its own address.
func bind(fd int, a netip.AddrPort) error {
	raw := socketAddress(a)
	_, err := result(unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw)))
	return err
}

// connect begins to connect a socket.
func connect(fd int, to netip.AddrPort) error {
	raw := socketAddress(to)
	_, err := result(unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw)))
	if err == unix.EINPROGRESS {
		return nil
	}
	return err
}

func socketAddress(a netip.AddrPort) unix.RawSockaddrInet4 {
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], a.Port())
	return raw
}

// option is one of a socket's.
type option struct {
	level, name int
	value       int32
}

func setOption(fd int, o option) error {
	_, err := result(unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(o.level), uintptr(o.name), uintptr(unsafe.Pointer(&o.value)), unsafe.Sizeof(o.value), 0))
	return err
}

// setLinger has a socket that is closed reset its connection.
func setLinger(fd int) {
	now := unix.Linger{Onoff: 1}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now), 0)
}

// shutdown tells a socket's peer that this was all.
func shutdown(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

func closeFD(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// pollControl changes what an epoll descriptor watches.
func pollControl(poll, op, fd int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, err := result(unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(poll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0))
	return err
}

// pollNow gives the events of an epoll descriptor that are there.
func pollNow(poll int, into []unix.EpollEvent) (int, error) {
	return again(func() (uintptr, uintptr, unix.Errno) {
		return unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(unsafe.SliceData(into))), uintptr(len(into)), 0, 0, 0)
	})
}

// ring adds to the count of an eventfd, and hush takes it all.
func ring(fd int) {
	count := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&count)), unsafe.Sizeof(count))
}

func hush(fd int) {
	var count uint64
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&count)), unsafe.Sizeof(count))
}

// again makes a call until no signal interrupts it.
func again(call func() (uintptr, uintptr, unix.Errno)) (int, error) {
	for {
		n, _, errno := call()
		if errno != unix.EINTR {
			return result(n, 0, errno)
		}
	}
}

func result(n, _ uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
