package wireguard

import (
	"encoding/binary"

	"golang.zx2c4.com/wireguard/device"
)

// super is a packet of the kernel's that stands for many: TCP in a tunnel, as far
// as it is not yet taken apart.
type super struct {
	whole              []byte
	udp, ip, tcp, data int  // where they begin
	size               int  // data of each packet but the last
	sums               bool // the tunnel's packets have checksums
	at, count          int  // where the next one's data begins, and how many there were
}

func newSuper(h virtio, p []byte) (s super, ok bool) {
	s = super{whole: p, udp: h.udp(), ip: h.ip(), tcp: h.sumFrom(), size: h.size(), sums: h.flags()&sumsTunnel != 0}
	if h.gso() != gsoTunnel || h.flags()&needsSum == 0 || s.size == 0 ||
		s.udp < atUDP || s.ip < s.udp+8 || s.tcp < s.ip+20 || len(p) < s.tcp+20 {
		return super{}, false
	}
	s.data = s.tcp + tcpHeader(p[s.tcp:])
	s.at = s.data
	if s.data < s.tcp+20 || s.data+s.size > device.MaxContentSize || !s.more() {
		return super{}, false
	}
	return s, true
}

func (s *super) more() bool { return s.at < len(s.whole) }

// next writes the next packet as the kernel would have sent it, and gives its
// length.
func (s *super) next(to []byte) (length int) {
	n := min(s.size, len(s.whole)-s.at)
	length = s.data + n
	p := to[:length]
	copy(p, s.whole[:s.data])
	copy(p[s.data:], s.whole[s.at:s.at+n])
	ip, tcp := p[s.ip:], p[s.tcp:]

	binary.BigEndian.PutUint16(p[4:], uint16(length-atUDP))
	binary.BigEndian.PutUint16(p[s.udp+4:], uint16(length-s.udp))
	binary.BigEndian.PutUint16(ip[2:], uint16(length-s.ip))
	binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(s.count))
	ip[10], ip[11] = 0, 0
	setSum(ip[10:], sum(0, p[s.ip:s.tcp]))

	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(s.at-s.data))
	if s.count > 0 {
		tcp[13] &^= flagCWR
	}
	s.at, s.count = s.at+n, s.count+1
	if s.more() {
		tcp[13] &^= flagFIN | flagPSH
	}
	tcp[atTCPSum], tcp[atTCPSum+1] = 0, 0
	ahead := pseudo4(ip, len(tcp))
	setSum(tcp[atTCPSum:], sum(ahead, tcp))

	if s.sums {
		// With its checksum, TCP comes to the complement of what that covers
		// besides: the data need not be added again.
		p[s.udp+6], p[s.udp+7] = 0, 0
		of := sum(pseudo6(p, length-s.udp), p[s.udp:s.tcp])
		setUDPSum(p[s.udp+6:], add(of, uint64(^fold(ahead))))
	}
	return length
}
