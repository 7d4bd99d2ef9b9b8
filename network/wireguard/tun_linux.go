package wireguard

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

// largePackets are the offloads that have the kernel hand over a large packet in
// a tunnel in one piece, and take one: TUN_F_UDP_TUNNEL_GSO and _CSUM, which came
// with Linux 6.17, and what they build on.
const largePackets = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | 0x80 | 0x100

// few is how many packets one Read takes that are not large. For each peer
// there is a queue of a thousand batches, with a buffer of 64 KB for each packet:
// where somebody sends faster than can be encrypted, memory goes with the length
// of a batch.
const few = 8

// tunDevice is a tun device that takes and gives many packets in one call. What
// has to be done for a batch, such as waking up those who encrypt it and send
// it, is most of the work where each batch is one packet.
type tunDevice struct {
	tun.Device // for everything but packets
	raw        syscall.RawConn
	header     int // bytes in front of each packet

	// One goroutine reads.
	in   []byte
	rest super // of the large packet that was read last

	// Those of all peers write.
	writing sync.Mutex
	merger  merger
	packets [][]byte
	ahead   [mostHeaders]byte
	pieces  []unix.Iovec
}

// createTun makes a device. It does without offloads that the kernel does not
// have.
func createTun(name string, mtu, offloads int) (tun.Device, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunPath, err)
	}
	if err := attach(fd, name); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// From here on it can be waited for, which it can not before it is attached.
	file := os.NewFile(uintptr(fd), tunPath)
	d := &tunDevice{in: make([]byte, tunnelHeader+1<<16)}
	if d.raw, err = file.SyscallConn(); err == nil {
		d.Device, err = tun.CreateTUNFromFile(file, mtu)
	}
	if err == nil {
		// After the library, which sets them for its own reading.
		err = d.control(func(fd int) (err error) {
			d.header, err = offload(fd, offloads)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, file.Close()) // and the interface is gone
	}
	return d, nil
}

func (d *tunDevice) control(f func(fd int) error) (err error) {
	return errors.Join(d.raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

func attach(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("attach %s to %s: %w", tunPath, name, err)
	}
	return nil
}

// offload sets offloads, or none if the kernel does not know one of them, and
// tells how long the header is that goes with that.
func offload(fd, offloads int) (header int, err error) {
	if offloads != 0 &&
		unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1) == nil &&
		unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, tunnelHeader) == nil &&
		unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads) == nil {
		return tunnelHeader, nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, plainHeader); err != nil {
		return 0, fmt.Errorf("set the length of headers: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
		return 0, fmt.Errorf("set offloads: %w", err)
	}
	return plainHeader, nil
}

func (d *tunDevice) BatchSize() int { return conn.IdealBatchSize }

// Read waits for a packet and takes what else there is: all that a large packet
// stands for, or a few others.
func (d *tunDevice) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	closed := d.raw.Read(func(fd uintptr) bool {
		for n < len(bufs) {
			if d.rest.more() {
				sizes[n] = d.rest.next(bufs[n][offset:])
				n++
				continue
			}
			if n >= few {
				break
			}
			var length int
			if length, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), d.in) }); err != nil {
				return n > 0 || err != unix.EAGAIN
			}
			if packet := d.received(length); packet != nil {
				sizes[n] = copy(bufs[n][offset:], packet)
				n++
			}
		}
		return true
	})
	switch {
	case n > 0:
		return n, nil // what is wrong is wrong the next time, too
	case closed != nil || errors.Is(err, unix.EBADFD): // by us, or the interface is gone
		return 0, os.ErrClosed
	default:
		return 0, err
	}
}

// received gives a packet that was read, or has its pieces be the rest. Errors
// would end the device; nothing but what nobody has a way for is dropped.
func (d *tunDevice) received(length int) (packet []byte) {
	if length <= d.header {
		return nil
	}
	h, packet := virtio(d.in[:d.header]), d.in[d.header:length]
	if h.gso() == unix.VIRTIO_NET_HDR_GSO_NONE && h.complete(packet) {
		return packet
	}
	if d.header == tunnelHeader {
		if s, ok := newSuper(h, packet); ok {
			d.rest = s
		}
	}
	return nil
}

// Write hands packets over, those that follow on each other as one where the
// kernel takes that.
func (d *tunDevice) Write(bufs [][]byte, offset int) (int, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.packets = d.packets[:0]
	for _, b := range bufs {
		d.packets = append(d.packets, b[offset:])
	}
	var errs error
	if d.header != tunnelHeader {
		for _, p := range d.packets {
			errs = errors.Join(errs, d.writeOne(p))
		}
		return len(bufs), errs
	}
	for _, r := range d.merger.plan(d.packets) {
		if r.count == 1 {
			errs = errors.Join(errs, d.writeOne(d.packets[r.first]))
		} else {
			errs = errors.Join(errs, d.writeRun(r))
		}
	}
	return len(bufs), errs
}

func (d *tunDevice) writeOne(packet []byte) error {
	clear(d.ahead[:d.header])
	d.pieces = appendPiece(appendPiece(d.pieces[:0], d.ahead[:d.header]), packet)
	return d.write()
}

func (d *tunDevice) writeRun(r run) error {
	d.pieces = appendPiece(d.pieces[:0], r.header(d.ahead[:], d.packets[r.first]))
	for i, n := r.first, 0; n < r.count; i, n = d.merger.next[i], n+1 {
		d.pieces = appendPiece(d.pieces, d.packets[i][r.data:])
	}
	return d.write()
}

func appendPiece(pieces []unix.Iovec, b []byte) []unix.Iovec {
	piece := unix.Iovec{Base: unsafe.SliceData(b)}
	piece.SetLen(len(b))
	return append(pieces, piece)
}

// write writes the pieces as one packet.
func (d *tunDevice) write() (err error) {
	closed := d.raw.Write(func(fd uintptr) bool {
		_, err = ignoringEINTR(func() (int, error) {
			n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(d.pieces))), uintptr(len(d.pieces)))
			if errno != 0 {
				return 0, errno
			}
			return int(n), nil
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	if closed != nil || errors.Is(err, unix.EBADFD) {
		return os.ErrClosed
	}
	return err
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
