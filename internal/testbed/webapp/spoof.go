package webapp

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Lengths of the headers without options.
const (
	ipHeader  = 20
	udpHeader = 8
)

// spoof sends a datagram under any sender's address. It needs CAP_NET_RAW, which
// containers have unless it is taken from them.
func spoof(from, to, text string) error {
	src, err := netip.ParseAddr(from)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	p := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(text))
	p[0], p[8], p[9] = 4<<4|ipHeader/4, 64, unix.IPPROTO_UDP // the kernel adds length and checksum
	a, b := src.As4(), dst.Addr().As4()
	copy(p[12:], a[:])
	copy(p[16:], b[:])
	udp := p[ipHeader:]
	binary.BigEndian.PutUint16(udp, 40000)
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(text)))
	return unix.Sendto(fd, append(p, text...), 0, &unix.SockaddrInet4{Addr: b}) // no checksum of UDP's: it may be left out
}
